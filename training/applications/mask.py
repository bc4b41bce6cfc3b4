"""Masks that a user draws on a scan: read on its grid, brought to the model's."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.errors import UserError
from preprocessing.case import CaseError
from preprocessing.decoding.decode import decode_labels
from preprocessing.resample import resample_onto
from training.applications.scan import Scan


def read_mask(scan: Scan, path: Path) -> NDArray[np.bool_]:
    """A mask (file, DICOM SEG or RTSTRUCT; everything above 0) on the scan's own grid.

    Raises:
        UserError: it is not there, lies on another grid, is empty, or lies outside the body.
    """
    if not path.exists():
        raise UserError(f"{path} is not there; give a mask on the grid of {scan.case.id}")
    try:
        _, mask, _ = decode_labels(scan.case.replace(labels=(), lesion=(str(path),)), scan.volume.geometry)
    except CaseError as error:
        raise UserError(f"{path.name} does not fit {scan.case.id}: {error}") from None
    if mask is None or not mask.any():
        raise UserError(f"{path.name} is empty: it marks no voxel of {scan.case.id}")
    found = mask > 0
    if not (on_model_grid(scan, found) & (scan.stored.read_all("anatomy") > 0)).any():
        raise UserError(f"{path.name} lies outside of the body of {scan.case.id}; draw it on this scan")
    return found


def on_model_grid(scan: Scan, mask_zyx: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask of the scan's grid on the stored grid of the model, by the nearest voxel."""
    moved = resample_onto(mask_zyx.astype(np.uint8), scan.volume.geometry, scan.stored.geometry(0), nearest=True)
    return moved > 0
