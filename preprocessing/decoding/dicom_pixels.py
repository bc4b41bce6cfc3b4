"""The pixels of one parsed DICOM file as HU, frame by frame: decompressed, rescaled, padding made air.

Stored numbers become HU in one step with one rounding. Pixels that PixelPaddingValue (and PixelPaddingRangeLimit) mark
as no measurement become -1024 HU and never pass the rescale.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import iter_pixels
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from preprocessing.case import CaseError
from preprocessing.decoding.dicom_frames import Frame
from preprocessing.decoding.dicom_header import HEADER_ERRORS
from preprocessing.decoding.raster import INT16

PIXEL_TAGS = [
    *("PixelData", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation"),
    *("PlanarConfiguration", "PixelPaddingValue", "PixelPaddingRangeLimit", "LossyImageCompression"),
    *("FloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
]
PADDING_HU = -1024
BODY_HU = (-900, 3000)  # a padding value in between is doubted
PIXEL_ERRORS = (*HEADER_ERRORS, RuntimeError, MemoryError)

Tally = Counter[str]


def hu_frames(dataset: Dataset, frames: Sequence[Frame], name: str, tally: Tally) -> Iterator[NDArray[np.int16]]:
    """HU (y, x) of the given frames; what was odd is counted in `tally`.

    Raises:
        CaseError: the pixels cannot be decoded.
    """
    with _decoding(name):
        padding = _padding(dataset)
    tally["lossy"] += len(frames) if str(dataset.get("LossyImageCompression", "")) == "01" else 0
    for frame, pixels in zip(frames, stored_frames(dataset, [frame.number for frame in frames], name), strict=True):
        tally["bare"] += frame.slope is None
        yield _hu(pixels, frame, padding, tally)


def stored_frames(dataset: Dataset, numbers: Sequence[int], name: str) -> Iterator[NDArray]:
    """The stored numbers (y, x) of frames, counted from 0, decompressed.

    Raises:
        CaseError: the pixels cannot be decoded.
    """
    with _decoding(name):
        _name_encoding(dataset)
        _check_length(dataset)
        pixels = _planes(dataset, list(numbers))
    for _ in numbers:
        with _decoding(name):
            plane = next(pixels)
        yield plane


def notes_of(tally: Tally) -> tuple[str, ...]:
    """One finding for each odd thing that was counted."""
    sentences = {
        "bare": "{} slices carry no RescaleSlope; their stored values were taken as HU",
        "padded": "{} pixels of PixelPaddingValue became -1024 HU",
        "doubted": "{} pixels equal PixelPaddingValue but lie inside the image at a HU of tissue: taken as measured",
        "clipped": "{} voxels lay outside int16 and were clipped",
        "lossy": "{} slices were compressed with loss",
    }
    return tuple(sentence.format(tally[key]) for key, sentence in sentences.items() if tally[key])


def _planes(dataset: Dataset, numbers: list[int]) -> Iterator[NDArray]:
    if dataset.get("BitsAllocated") == 1 and not dataset.file_meta.TransferSyntaxUID.is_compressed:
        return _bit_planes(dataset, numbers)
    return iter_pixels(dataset, indices=numbers)


def _bit_planes(dataset: Dataset, numbers: list[int]) -> Iterator[NDArray[np.uint8]]:
    """Frames of one bit a pixel, which may begin inside a byte (pydicom takes single ones from a wrong bit)."""
    shape = int(dataset.Rows), int(dataset.Columns)
    size = shape[0] * shape[1]
    for number in numbers:
        first, skip = divmod(number * size, 8)
        data = dataset.PixelData[first : first + -(-(skip + size) // 8)]
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[skip : skip + size]
        yield bits.reshape(shape)


@contextmanager
def _decoding(name: str) -> Generator[None]:
    try:
        yield
    except (*PIXEL_ERRORS, StopIteration) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise CaseError(f"{name}: its pixels cannot be decoded ({reason!r}); copy or export it again.") from error


def _name_encoding(dataset: Dataset) -> None:
    """States the transfer syntax of a file without a preamble, as it was parsed."""
    if dataset.file_meta.get("TransferSyntaxUID"):
        return
    implicit, little = dataset.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _check_length(dataset: Dataset) -> None:
    """Refuses plain pixels that are more or fewer than the header says (pydicom takes the first of too many)."""
    if dataset.file_meta.TransferSyntaxUID.is_compressed or "PixelData" not in dataset:
        return
    promised, held = get_expected_length(dataset), len(dataset.PixelData)
    if held not in (promised, promised + promised % 2):
        raise ValueError(f"PixelData holds {held} bytes, the header promises {promised}")


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """The stored numbers (lowest, highest) that mean no measurement."""
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return None
    ends = (value, limit if isinstance(limit, int) else value)
    bits = int(dataset.get("BitsAllocated") or 16)
    kind = f"{'i' if dataset.get('PixelRepresentation') else 'u'}{1 if bits <= 8 else 2 if bits <= 16 else 4}"
    low, high = sorted(np.array(ends).astype(kind).tolist())  # a signed value may be written as unsigned
    return low, high


def _hu(pixels: NDArray, frame: Frame, padding: tuple[int, int] | None, tally: Tally) -> NDArray[np.int16]:
    slope = 1.0 if frame.slope is None else frame.slope
    intercept = frame.intercept or 0.0
    padded = _padded(pixels, padding, slope, intercept, tally) if padding else None
    measured = pixels if padded is None else pixels[~padded]
    if _is_whole(measured, slope, intercept):
        hu = pixels.astype(np.int16)  # modulo 2**16, which is exact where the result fits
        if slope != 1:
            hu *= np.int16(slope)
        hu += np.int64(intercept).astype(np.int16)
    else:
        exact = np.rint(np.nan_to_num(pixels * slope + intercept, nan=PADDING_HU, posinf=PADDING_HU, neginf=PADDING_HU))
        outside = (exact < INT16.min) | (exact > INT16.max)
        tally["clipped"] += int(np.count_nonzero(outside if padded is None else outside & ~padded))
        hu = np.clip(exact, INT16.min, INT16.max).astype(np.int16)
    if padded is not None:
        hu[padded] = PADDING_HU
    return hu


def _is_whole(measured: NDArray, slope: float, intercept: float) -> bool:
    """True where slope and intercept are whole and every HU fits int16."""
    if measured.dtype.kind not in "iu" or (slope % 1, intercept % 1) != (0, 0):
        return False
    if abs(slope) > INT16.max or not measured.size:
        return not measured.size
    ends = [int(end) * slope + intercept for end in (measured.min(), measured.max())]
    return INT16.min <= min(ends) and max(ends) <= INT16.max


def _padded(
    pixels: NDArray, padding: tuple[int, int], slope: float, intercept: float, tally: Tally
) -> NDArray[np.bool_] | None:
    """Where the padding lies; None where there is none, or where it would be tissue that no corner of the image has."""
    low, high = padding
    marked = pixels == low if low == high else (pixels >= low) & (pixels <= high)
    count = int(np.count_nonzero(marked))
    if not count:
        return None
    hu = sorted(value * slope + intercept for value in padding)
    if hu[0] < BODY_HU[1] and hu[1] > BODY_HU[0] and not marked[[0, 0, -1, -1], [0, -1, 0, -1]].any():
        tally["doubted"] += count
        return None
    tally["padded"] += count
    return marked
