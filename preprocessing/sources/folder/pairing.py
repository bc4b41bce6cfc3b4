"""Which label belongs to which image: by folder and by the words of the names, never by content.

`<case>/segmentations/<class>`  belongs to the image, or the one DICOM series, of `<case>`
`labelsTr/x`                    belongs to `imagesTr/x` or `imagesTr/x_0000`
`x_seg`, `x_label`, `lesion` …  belongs to the image of its folder with the same other words, else to the only image
                                or the only DICOM series there
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from preprocessing.sources.folder.naming import core, is_label

LABEL_FOLDERS = {"segmentations", "segmentation", "segs", "seg", "masks", "mask", "labels", "label"}
LABELS_SPLIT = re.compile(r"^labels(Tr|Ts|Val)$", re.IGNORECASE)


@dataclass
class Pairs:
    """Labels by the image they belong to (an image file, or the folder of a DICOM series), and labels without one."""

    labels: dict[Path, list[Path]] = field(default_factory=dict)
    images: list[Path] = field(default_factory=list)
    lost: list[tuple[Path, str]] = field(default_factory=list)


def pair(files: dict[Path, list[Path]], series_folders: list[Path]) -> Pairs:
    """Sorts image files by folder into images and labels and finds each label's image."""
    pairs = Pairs()
    labels: list[Path] = []
    for folder in sorted(files):
        whole = _is_label_folder(folder, files, series_folders)
        for path in files[folder]:
            (labels if whole or is_label(path.name) else pairs.images).append(path)
    for label in labels:
        owner, reason = _owner(label, pairs.images, series_folders)
        if owner is None:
            pairs.lost.append((label, reason))
        else:
            pairs.labels.setdefault(owner, []).append(label)
    return pairs


def image_folders(folder: Path) -> list[Path]:
    """Where the images of a label's folder may lie."""
    split = LABELS_SPLIT.match(folder.name)
    if split:
        return [folder.parent / f"images{split.group(1)}"]
    if folder.name.lower() in LABEL_FOLDERS:
        return [folder, folder.parent, folder.parent / "images"]
    return [folder]


def _is_label_folder(folder: Path, files: dict[Path, list[Path]], series_folders: list[Path]) -> bool:
    """True for a folder of labels by its name, as long as there are images where its images should be."""
    places = [place for place in image_folders(folder) if place != folder]
    return any(place in files or place in series_folders for place in places)


def _owner(label: Path, images: list[Path], series_folders: list[Path]) -> tuple[Path | None, str]:
    """The image file or series folder a label belongs to, or why there is none."""
    for place in image_folders(label.parent):
        near = [image for image in images if image.parent == place]
        same = [image for image in near if core(image.name) == core(label.name)]
        if len(same) == 1:
            return same[0], ""
        if len(same) > 1:
            names = " or ".join(image.name for image in same)
            return None, f"label {label.name} may belong to {names}; name it after one of them."
        if LABELS_SPLIT.match(label.parent.name):
            continue
        candidates = [*near, *(folder for folder in series_folders if folder == place)]
        if len(candidates) == 1:
            return candidates[0], ""
    return None, f"label {label.name} has no image beside it; name it after its image (<image>_seg) in one folder."
