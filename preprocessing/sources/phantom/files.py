"""Writes the phantom's volumes as the files that users have: NIfTI in any orientation, a DICOM series, NRRD, MHA.

Equal arrays give equal bytes: no dates, no host names, gzip without a time stamp, DICOM identifiers derived from names.
"""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from preprocessing.geometry import Geometry

_INTERCEPT = -1024
_ZYX_TO_XYZ = np.eye(3)[::-1]


def write_image(path: Path, array_ZYX: NDArray, geometry: Geometry, orientation: str = "LPS") -> None:
    """One file in the format its name ends with (.nii.gz, .nii, .nrrd, .mha), array axes running as `orientation` says.

    Raises:
        ValueError: the name ends with no known format.
    """
    array, affine = _oriented(array_ZYX, geometry, orientation)
    if path.name.endswith((".nii.gz", ".nii")):
        data = _nifti_bytes(array, affine)
        path.write_bytes(gzip.compress(data, compresslevel=1, mtime=0) if path.suffix == ".gz" else data)
    elif path.suffix in (".nrrd", ".mha"):
        SimpleITK.WriteImage(_itk_image(array, affine), str(path), useCompression=array.dtype == np.uint8)
    else:
        raise ValueError(f"{path.name}: the phantom writes .nii.gz, .nii, .nrrd and .mha")


def _oriented(array_ZYX: NDArray, geometry: Geometry, orientation: str) -> tuple[NDArray, NDArray[np.float64]]:
    """The array with axes (i, j, k) that run towards `orientation`, and its affine to RAS mm."""
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ _ZYX_TO_XYZ @ geometry.matrix @ _ZYX_TO_XYZ
    affine[:3, 3] = np.diag([-1, -1, 1]) @ _ZYX_TO_XYZ @ np.asarray(geometry.origin_mm)
    array = array_ZYX.transpose(2, 1, 0)
    change = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(orientation)))
    turned = apply_orientation(array, change)
    return np.asarray(turned), affine @ inv_ornt_aff(change, array.shape)


def _nifti_bytes(array: NDArray, affine: NDArray[np.float64]) -> bytes:
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return image.to_bytes()


def write_slice(path: Path, array_YX: NDArray, pixel_mm: float) -> None:
    """A NIfTI file (.nii.gz) with two dimensions only."""
    image = nib.Nifti1Image(np.ascontiguousarray(array_YX.T), np.diag([pixel_mm, pixel_mm, 1, 1]))
    path.write_bytes(gzip.compress(image.to_bytes(), mtime=0))


def _itk_image(array_XYZ: NDArray, affine: NDArray[np.float64]) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array_XYZ.transpose(2, 1, 0)))
    matrix = np.diag([-1, -1, 1]) @ affine[:3, :3]
    spacing = np.linalg.norm(matrix, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix / spacing).ravel().tolist())
    image.SetOrigin((np.diag([-1, -1, 1]) @ affine[:3, 3]).tolist())
    return image


def write_series(
    folder: Path,
    array_ZYX: NDArray[np.int16],
    geometry: Geometry,
    name: str,
    patient: str,
    modality: str = "CT",
) -> None:
    """A DICOM series, one file a slice from feet to head, stored unsigned with rescale slope 1, intercept −1024."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = np.clip(array_ZYX.astype(np.int32) - _INTERCEPT, 0, 65535).astype(np.uint16)
    for number, path in enumerate(series_names(len(stored))):
        slice_ = _slice(stored, number, geometry, name, patient, modality)
        slice_.save_as(folder / path, enforce_file_format=True)


def series_names(slices: int) -> list[str]:
    """File names of a series, feet first."""
    return [f"{number:04d}.dcm" for number in range(1, slices + 1)]


def _slice(
    stored: NDArray[np.uint16], number: int, geometry: Geometry, name: str, patient: str, modality: str
) -> FileDataset:
    uid = generate_uid(entropy_srcs=["phantom", name, "slice", str(number)])
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, uid
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["phantom", name, "study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["phantom", name, "series"])
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=["phantom", name, "frame"])
    dataset.Modality, dataset.Manufacturer, dataset.SeriesDescription = modality, "MedDiff phantom", name
    dataset.PatientID = dataset.PatientName = patient
    dataset.SeriesNumber, dataset.InstanceNumber = 1, number + 1
    _place(dataset, number, geometry)
    dataset.Rows, dataset.Columns = stored.shape[1:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, _INTERCEPT
    dataset.PixelData = stored[number].tobytes()
    return dataset


def _place(dataset: FileDataset, number: int, geometry: Geometry) -> None:
    """Position, orientation and spacing; DICOM names rows' direction (x) before columns' (y)."""
    direction = np.asarray(geometry.direction)
    dataset.ImagePositionPatient = [_decimal(v) for v in geometry.world((number, 0, 0))[::-1]]
    dataset.ImageOrientationPatient = [_decimal(v) for v in (*direction[::-1, 2], *direction[::-1, 1])]
    dataset.PixelSpacing = [_decimal(geometry.spacing_mm[1]), _decimal(geometry.spacing_mm[2])]
    dataset.SliceThickness = _decimal(geometry.spacing_mm[0])


def _decimal(value: float) -> str:
    """A DICOM decimal string: at most 16 characters."""
    return f"{value:.8f}"[:16]
