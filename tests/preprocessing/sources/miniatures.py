"""Miniatures of public data sets: a phantom's arrays in the files, names and archives that the real ones have.

A miniature differs from its data set in its voxels alone: names, folders, archive, label values and quirks are real.
"""

import gzip
import io
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import md5, sha256
from pathlib import Path

import nibabel as nib
import numpy as np
import py7zr
import SimpleITK as sitk
from ct_samples import ras_affine, write_dicom
from faulty_server import FaultyServer, File

from infra.lake import Lake, open_lake
from infra.remote import Remote
from infra.settings import Settings
from preprocessing.anatomy import class_ids
from preprocessing.decoding.decode import decode_image, decode_labels
from preprocessing.geometry import Geometry
from preprocessing.ingest import IngestSummary, ingest
from preprocessing.manifest import Manifest, ManifestRow, read_manifest
from preprocessing.recipe import Recipe
from preprocessing.sources.base import Source
from preprocessing.sources.phantom import PhantomSource

RECIPE = Recipe(name="miniature", spacing_mm=6.0, levels=2, thumbnail_size=8, chunk=16, shard=32)
PATIENTS = {"chest": (8, 28, 48), "abdomen": (4, 24, 44), "head_neck": (6, 26, 46), "whole": (0, 2, 5)}


@dataclass(frozen=True)
class Scan:
    """HU int16, class ids and lesions uint8 (z, y, x), and their geometry."""

    hu: np.ndarray
    anatomy: np.ndarray
    lesion: np.ndarray
    geometry: Geometry

    def labelled(self, classes: Mapping[int, str]) -> np.ndarray:
        """The anatomy in a data set's own values; `lesion` names the lesion, which lies above the organs."""
        out = np.zeros(self.hu.shape, np.uint8)
        for value, name in classes.items():
            out[self.lesion > 0 if name == "lesion" else self.anatomy == class_ids()[name]] = value
        return out

    def nifti(self, array: np.ndarray | None = None) -> bytes:
        """An array (the image by default) as .nii.gz."""
        array = self.hu if array is None else array
        image = nib.Nifti1Image(array.transpose(2, 1, 0), ras_affine(self.geometry))
        return gzip.compress(image.to_bytes(), 1, mtime=0)

    def nrrd(self, array: np.ndarray | None = None, **fields: str) -> bytes:
        """An array (the image by default) as packed NRRD, with further fields in its header."""
        image = sitk.GetImageFromArray(self.hu if array is None else array)
        matrix = self.geometry.matrix[::-1, ::-1]
        image.SetSpacing(self.geometry.spacing_mm[::-1])
        image.SetDirection((matrix / np.asarray(self.geometry.spacing_mm)[::-1]).ravel())
        image.SetOrigin(self.geometry.origin_mm[::-1])
        for name, value in fields.items():
            image.SetMetaData(name, value)
        with tempfile.TemporaryDirectory() as folder:
            sitk.WriteImage(image, f"{folder}/image.nrrd", useCompression=True)
            return Path(folder, "image.nrrd").read_bytes()

    def dicom(self, **changes: object) -> dict[str, bytes]:
        """The image as a DICOM series {file name: bytes}; `changes` are attributes."""
        with tempfile.TemporaryDirectory() as folder:
            world, spacing = self.geometry.world, self.geometry.spacing_mm
            positions = [world((k, 0, 0))[::-1] for k in range(len(self.hu))]
            ends = ((0, 0, 1), spacing[2]), ((0, 1, 0), spacing[1])
            along = [(world(end)[::-1] - positions[0]) / mm for end, mm in ends]
            orientation = [float(cosine) for axis in along for cosine in axis]
            values = {"PixelSpacing": list(spacing[1:]), "ImageOrientationPatient": orientation} | changes
            paths = write_dicom(Path(folder), self.hu, positions, **values)
            return {path.name: path.read_bytes() for path in paths}


@cache
def scan(view: str = "abdomen", patient: int = 0) -> Scan:
    """The tiny phantom in a field of view: chest, abdomen, head_neck or whole; with a lesion where it has one."""
    index = PATIENTS[view][patient]
    source = PhantomSource(patients=index + 1, resolution="tiny", dose_pairs=False)
    case = next(case for case in source.cases() if case.patient == f"phantom-{index:04d}")
    with tempfile.TemporaryDirectory() as folder:
        lake = open_lake(folder)
        case = source.fetch(case, lake, Path(folder))
        image = decode_image(case.image)
        anatomy, lesion, _ = decode_labels(case, image.geometry)
    assert anatomy is not None
    if lesion is None:
        lesion = np.zeros_like(anatomy)
        centre = tuple(int(k) for k in np.argwhere(anatomy > 0).mean(axis=0))
        lesion[tuple(slice(k - 1, k + 2) for k in centre)] = 1
    return Scan(image.array, anatomy, lesion, image.geometry)


def zipped(files: Mapping[str, bytes], password: str = "") -> bytes:
    """A zip with these members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def tarred(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    """A tar with these members; `w:gz` packs it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def seven_zipped(files: Mapping[str, bytes]) -> bytes:
    """A solid 7z with these members."""
    stream = io.BytesIO()
    with py7zr.SevenZipFile(stream, "w") as archive:
        for name, data in files.items():
            archive.writestr(data, name)
    return stream.getvalue()


def served(server: FaultyServer, files: Mapping[str, bytes]) -> dict[str, object]:
    """Puts files on a server and returns the options that make a source take them from there, with their checksums."""
    for name, data in files.items():
        server.files[f"/{name}"] = File(data, etag=f'"{md5(data).hexdigest()}"')
    remotes = tuple(Remote(url=server.url(f"/{name}"), sha256=sha256(data).hexdigest()) for name, data in files.items())
    return {"files": remotes}


def brought(folder: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Writes files that a user brings and returns their paths."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return tuple(str(folder / name) for name in files)


def ingested(lake: Lake, source: Source, settings: Settings, **options: object) -> IngestSummary:
    """The source, ingested as a run would do it."""
    return ingest(lake, RECIPE, [source], settings=settings, **options)


def rows(lake: Lake, manifest: Manifest | None = None) -> dict[str, ManifestRow]:
    """The rows of the newest manifest by case."""
    return {case: row for (_, case), row in (manifest or read_manifest(lake, RECIPE)).by_case().items()}


def anatomy_of(lake: Lake, row: ManifestRow) -> set[str]:
    """The names of the classes in a stored case, body and unknown included."""
    from preprocessing.anatomy import class_names
    from preprocessing.store import open_case

    values = np.unique(open_case(lake, row.key).read_all("anatomy"))
    return {class_names()[int(value)] for value in values if value}


def statuses(found: Iterable[ManifestRow]) -> dict[str, str]:
    """Status by case, with the reason where a case is refused."""
    return {row.case: row.reason or row.status for row in found}
