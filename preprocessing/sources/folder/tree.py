"""A directory tree as a source sees it: image files, DICOM headers, and files that only claim to be one.

Hidden files, AppleDouble twins (`._x`) and `__MACOSX` are skipped; tables, texts and pictures are no images. A file of
any other name is DICOM if it begins like one.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from preprocessing.decoding.dicom_header import SUFFIXES, DicomHeader, read_headers
from preprocessing.sources.folder.naming import IMAGE_SUFFIXES

SKIPPED_FOLDERS = {"__MACOSX"}
NO_IMAGES = {
    *(".txt", ".md", ".rst", ".json", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".log", ".html", ".pdf", ".xlsx"),
    *(".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".bmp", ".svg", ".py", ".sh", ".m", ".mat", ".npz", ".npy"),
    *(".raw", ".zraw", ".bval", ".bvec", ".zip", ".tar", ".gz", ".7z", ".h5", ".fcsv", ".vtk", ".stl"),
}


@dataclass
class Tree:
    """What lies under a root: image files by folder, a header for each DICOM frame, files named DICOM that are not."""

    images: dict[Path, list[Path]] = field(default_factory=dict)
    dicom: list[DicomHeader] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)


def scan(root: Path) -> Tree:
    """Walks the tree once, in a stable order; of DICOM files only the header is read."""
    tree = Tree()
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(n for n in subfolders if not n.startswith(".") and n not in SKIPPED_FOLDERS)
        for name in sorted(names):
            if not name.startswith("."):
                _place(Path(folder) / name, tree)
    return tree


def _place(path: Path, tree: Tree) -> None:
    lower = path.name.lower()
    if lower.endswith(IMAGE_SUFFIXES):
        tree.images.setdefault(path.parent, []).append(path)
    elif path.suffix.lower() in NO_IMAGES or not path.is_file():
        return
    elif headers := read_headers(path):
        tree.dicom.extend(headers)
    elif lower.endswith(SUFFIXES):
        tree.broken.append(path)
