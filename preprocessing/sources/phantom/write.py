"""One scan of the phantom on disk: image, anatomy, lesions and the companions that evaluation compares with."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preprocessing.anatomy import class_ids
from preprocessing.case import LabelFile, RegionName
from preprocessing.sources.phantom.body import paint_patient
from preprocessing.sources.phantom.dose import projection_noise, white_noise
from preprocessing.sources.phantom.files import series_names, write_image, write_series
from preprocessing.sources.phantom.lesions import paint_lesions
from preprocessing.sources.phantom.patient import Scan, patient_key
from preprocessing.sources.phantom.texture import add_texture

LOW_DOSE = 0.25
COMPANIONS = ("noise_free", "low_dose", "white_noise")
_RNG_ROUTINE, _RNG_LOW, _RNG_WHITE = 41, 42, 43
_PARTIAL: dict[RegionName, tuple[str, ...]] = {
    "abdomen": (
        *("spleen", "kidney_right", "kidney_left", "gallbladder", "esophagus", "liver", "stomach", "aorta"),
        *("inferior_vena_cava", "portal_vein_and_splenic_vein", "pancreas"),
        *("adrenal_gland_right", "adrenal_gland_left"),
    ),
    "head_neck": (
        *("brain", "skull", "spinal_cord", "thyroid_gland", "trachea", "esophagus"),
        *("common_carotid_artery_left", "common_carotid_artery_right"),
        *(f"vertebrae_C{i}" for i in range(1, 6)),
    ),
}


def label_ending(scan: Scan) -> str:
    """Labels and companions are files of the image's kind; beside a DICOM series they are NIfTI."""
    return scan.format if scan.format in ("nrrd", "mha") else "nii.gz"


def image_names(scan: Scan) -> tuple[str, ...]:
    """The image's files, relative to the case's folder."""
    if scan.format == "dicom":
        return tuple(f"ct/{name}" for name in series_names(scan.geometry.shape[0]))
    return (f"ct.{scan.format}",)


def label_files(scan: Scan) -> tuple[LabelFile, ...]:
    """The anatomy file with the meaning of its values: class ids; thirteen of them where it is partial."""
    kind = scan.patient.anatomy
    if kind == "none":
        return ()
    ids = named_ids(scan) if kind == "partial" else tuple(i for i in class_ids().values() if i <= 118)
    return (LabelFile(path=f"anatomy.{label_ending(scan)}", classes=tuple((i, i) for i in ids)),)


def named_ids(scan: Scan) -> tuple[int, ...]:
    """The thirteen class ids that a partially labelled scan of this field of view names."""
    return tuple(sorted(class_ids()[name] for name in _PARTIAL[scan.view.regions[0]]))


def write_scan(folder: Path, scan: Scan, *, dose_pair: bool = True) -> None:
    """Generate a scan and write its files into `folder`; without `dose_pair` the noise-free companion only."""
    canvas = paint_patient(scan)
    lesions = paint_lesions(canvas, scan)
    clean = add_texture(canvas, scan)
    folder.mkdir(parents=True, exist_ok=True)
    _write_ct(folder, scan, clean + _noise(clean, scan, 1.0, _RNG_ROUTINE))
    _write_labels(folder, scan, canvas.labels, lesions)
    _write_side(folder, scan, "noise_free", clean)
    if dose_pair:
        noise = _noise(clean, scan, LOW_DOSE, _RNG_LOW)
        _write_side(folder, scan, "low_dose", clean + noise)
        white = white_noise(noise, canvas.labels > 0, scan.rng(_RNG_WHITE))
        _write_side(folder, scan, "white_noise", clean + white)


def _noise(clean: NDArray[np.float32], scan: Scan, dose: float, purpose: int) -> NDArray[np.float32]:
    pixel = scan.geometry.spacing_mm[1]
    return projection_noise(clean, pixel, scan.noise_hu / np.sqrt(dose), scan.rng(purpose))


def stored_hu(hu: NDArray[np.float32]) -> NDArray[np.int16]:
    """Hounsfield values as a scanner stores them: whole numbers from −1024 to 3071."""
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def _write_ct(folder: Path, scan: Scan, hu: NDArray[np.float32]) -> None:
    if scan.format == "dicom":
        key = f"{scan.seed}-{scan.name}-{scan.geometry.shape}"
        write_series(folder / "ct", stored_hu(hu), scan.geometry, key, patient_key(scan.patient.index))
    else:
        write_image(folder / image_names(scan)[0], stored_hu(hu), scan.geometry, scan.orientation)


def _write_side(folder: Path, scan: Scan, name: str, hu: NDArray[np.float32]) -> None:
    write_image(folder / f"{name}.{label_ending(scan)}", stored_hu(hu), scan.geometry, _side_orientation(scan))


def _side_orientation(scan: Scan) -> str:
    return "LPS" if scan.format == "dicom" else scan.orientation


def _write_labels(folder: Path, scan: Scan, labels: NDArray[np.uint8], lesions: NDArray[np.uint8]) -> None:
    kind, ending, turn = scan.patient.anatomy, label_ending(scan), _side_orientation(scan)
    if kind == "partial":
        labels = np.where(np.isin(labels, named_ids(scan)), labels, np.uint8(0))
    if kind != "none":
        write_image(folder / f"anatomy.{ending}", labels, scan.geometry, turn)
    if scan.lesions:
        write_image(folder / f"lesion.{ending}", lesions, scan.geometry, turn)
