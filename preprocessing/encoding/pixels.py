"""The pixels of a derived DICOM slice: the source's stored numbers, those of changed voxels re-encoded.

A stored number may mean padding, which reads as -1024 HU; the slice is read again as the decoder reads it, and where a
new number would be taken for padding, or padding for a measurement, the slice no longer names a padding value.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from preprocessing.decoding.dicom_frames import Frame
from preprocessing.decoding.dicom_pixels import hu_frames
from preprocessing.encoding.values import Scale

PADDING = ("PixelPaddingValue", "PixelPaddingRangeLimit")


def set_changed(
    dataset: Dataset, frame: Frame, stored: NDArray, changed: NDArray[np.bool_], hu: NDArray, scale: Scale
) -> int:
    """Gives a slice its source's numbers `stored` (y, x) with `hu` where it has changed; returns how many were clipped.

    `scale` is that of the whole case, `frame` holds the slice's own.
    """
    _set(dataset, stored)
    if not changed.any():
        return 0
    numbers, clipped = _numbers(dataset, hu[changed], scale)
    new = stored.copy()
    new[changed] = numbers
    if PADDING[0] in dataset:
        new = _beside_padding(dataset, frame, stored, new, changed)
    _set(dataset, new)
    return clipped


def set_all(dataset: Dataset, hu: NDArray, scale: Scale) -> int:
    """Gives a slice new pixels (y, x) altogether; returns how many were clipped."""
    for keyword in PADDING:
        dataset.pop(keyword, None)
    numbers, clipped = _numbers(dataset, hu, scale)
    dataset.Rows, dataset.Columns = hu.shape
    _set(dataset, numbers)
    return clipped


def limits(dataset: Dataset) -> tuple[int, int]:
    """The smallest and the largest number that a pixel of the slice can store."""
    bits = int(dataset.BitsStored)
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if dataset.PixelRepresentation else (0, (1 << bits) - 1)


def _numbers(dataset: Dataset, hu: NDArray, scale: Scale) -> tuple[NDArray[np.int64], int]:
    """Stored numbers of HU within what the pixels can hold, and how many were not."""
    exact = np.rint(scale.stored(hu))
    low, high = limits(dataset)
    return np.clip(exact, low, high).astype(np.int64), int(np.count_nonzero((exact < low) | (exact > high)))


def _set(dataset: Dataset, numbers: NDArray) -> None:
    kind = f"<{'i' if dataset.PixelRepresentation else 'u'}{int(dataset.BitsAllocated) // 8}"
    data = numbers.astype(kind).tobytes()
    dataset.HighBit = int(dataset.BitsStored) - 1
    dataset.pop("PixelData", None)
    dataset.add_new("PixelData", "OB" if kind.endswith("1") else "OW", data + b"\0" * (len(data) % 2))


def _beside_padding(
    dataset: Dataset, frame: Frame, stored: NDArray, new: NDArray, changed: NDArray[np.bool_]
) -> NDArray:
    """The numbers with which the slice reads as wanted, of which the padding value may have to go."""
    own = Scale(1.0 if frame.slope is None else frame.slope, frame.intercept or 0.0)
    wanted = _read(dataset, frame)
    wanted[changed] = np.rint(own.hu(new[changed]))
    _set(dataset, new)
    if np.array_equal(_read(dataset, frame), wanted):
        return new
    for keyword in PADDING:
        dataset.pop(keyword, None)
    lost = _read(dataset, frame) != wanted
    new[lost] = _numbers(dataset, wanted[lost], own)[0]
    return new


def _read(dataset: Dataset, frame: Frame) -> NDArray[np.int16]:
    return next(hu_frames(dataset, [replace(frame, number=0)], "", Counter()))
