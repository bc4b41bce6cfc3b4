"""Small made-up CTs and the files that hold them, written without the package's own readers."""

from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, SecondaryCaptureImageStorage

from preprocessing.geometry import Geometry

CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "OT": SecondaryCaptureImageStorage}


def ball_hu(shape=(24, 28, 32)) -> np.ndarray:
    """A water ball with a bone core in air, int16 (z, y, x), a little noise, and different along every axis."""
    z, y, x = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    radius = np.sqrt(z**2 + (y * 1.2) ** 2 + (x * 1.1 + 0.1) ** 2)
    hu = np.where(radius < 0.25, 700, np.where(radius < 0.85, 30 + 40 * z + 20 * x, -1000))
    noise = np.random.default_rng(7).normal(0, 8, shape)
    return (hu + noise).round().astype(np.int16)


def rotation(angles) -> np.ndarray:
    """A rotation matrix from three angles in radians."""
    out = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        out = out @ turn
    return out


def ras_affine(geometry: Geometry) -> np.ndarray:
    """The NIfTI affine (x, y, z; RAS) of a geometry, for an array stored as (x, y, z) = transposed (z, y, x)."""
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ geometry.matrix[::-1, ::-1]
    affine[:3, 3] = np.diag([-1, -1, 1]) @ np.asarray(geometry.origin_mm)[::-1]
    return affine


def write_nifti(path: Path, array_zyx: np.ndarray, affine: np.ndarray, *, sform=1, qform=0) -> Path:
    """A NIfTI file with chosen codes of its two affines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array_zyx.transpose(2, 1, 0), affine)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    nib.save(image, path)
    return path


def write_dicom(folder: Path, stored, positions, **changes) -> list[Path]:
    """One file a slice of `stored` (z, y, x) at `positions` (x, y, z); file names run against the order of slices.

    `changes` are DICOM attributes; a tuple gives each slice its own value.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, (pixels, position) in enumerate(zip(stored, positions, strict=True)):
        own = {name: value[k] if isinstance(value, tuple) else value for name, value in changes.items()}
        dataset = _slice(pixels, position, k, own)
        path = folder / f"{len(stored) - k:03d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _slice(pixels, position, k: int, changes: dict) -> Dataset:
    dataset = Dataset()
    dataset.Modality = changes.get("Modality", "CT")
    dataset.SOPClassUID = CLASSES.get(dataset.Modality, SecondaryCaptureImageStorage)
    dataset.SOPInstanceUID = f"1.2.3.{k + 1}"
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = "1.2.3.4", "1.2.3.5"
    dataset.PatientID, dataset.InstanceNumber = "P-1", 500 - k
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = list(position), [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [1.5, 1.25], 2
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, int(pixels.dtype.kind == "i")
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    for name, value in changes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset
