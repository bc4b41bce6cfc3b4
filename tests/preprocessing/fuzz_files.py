"""Healthy small CTs in every format, and seeded ways to damage their files."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from ct_samples import ball_hu, ras_affine, write_dicom, write_nifti

from preprocessing.geometry import Geometry

HU = ball_hu((12, 14, 16))
GEOMETRY = Geometry(HU.shape, (6.0, 4.0, 3.5), (-40.0, 15.0, 7.5), ((1, 0, 0), (0, -1, 0), (0, 0, -1)))
FORMATS = (
    "nii",
    "nii.gz",
    "hdr",
    "nrrd",
    "nhdr",
    "mha",
    "mhd",
    "packed.nrrd",
    "packed.nhdr",
    "packed.mha",
    "packed.mhd",
    "dcm",
)
BINARY_HEADER = {"nii": 352, "hdr": 348, "dcm": 1500}
NUMBERS = (
    "0",
    "-1",
    "1",
    "nan",
    "inf",
    "1e30",
    "1e-30",
    "65536",
    "2147483648",
    "99999999999999999999",
    "3000",
    "x",
    "",
)
Damage = Callable[[bytes, np.random.Generator], bytes]


def write_healthy(folder: Path, kind: str) -> list[Path]:
    """The files of one image; the first is its header."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"ct.{kind}"
    if kind == "hdr":
        nib.save(nib.Nifti1Pair(HU.transpose(2, 1, 0), ras_affine(GEOMETRY)), path)
        return [path, path.with_suffix(".img")]
    if kind.startswith("nii"):
        return [write_nifti(path, HU, ras_affine(GEOMETRY), qform=1)]
    if kind == "dcm":
        places = [(7.5, 15.0, -40.0 + 6 * k) for k in range(len(HU))]
        rescale = {"RescaleIntercept": -1024, "PixelSpacing": [4, 3.5]}
        return sorted(write_dicom(folder, (HU + 1024).astype(np.uint16), places, **rescale))
    image = sitk.GetImageFromArray(HU)
    image.SetSpacing(GEOMETRY.spacing_mm[::-1])
    image.SetOrigin(GEOMETRY.origin_mm[::-1])
    image.SetDirection(np.asarray(GEOMETRY.direction)[::-1, ::-1].ravel().tolist())
    sitk.WriteImage(image, str(path), kind.startswith("packed"))
    return [path, *sorted(p for p in folder.iterdir() if p.suffix in (".raw", ".gz", ".zraw"))]


def damage(files: dict[Path, bytes], kind: str, rng: np.random.Generator) -> dict[Path, bytes | None]:
    """New contents of some of the files, None for one that is taken away."""
    paths = list(files)
    victim = paths[0] if rng.random() < 0.8 and kind != "dcm" else paths[rng.integers(len(paths))]
    data = files[victim]
    if len(paths) > 1 and rng.random() < 0.03:
        return {victim: None}
    if kind == "dcm" and rng.random() < 0.1:
        return {victim: files[paths[rng.integers(len(paths))]]}
    packed = kind == "nii.gz" and rng.random() < 0.8
    inner = gzip.decompress(data) if packed else data
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        inner = _one_of(victim, kind, packed, rng)(inner, rng)
    return {victim: gzip.compress(inner, 1, mtime=0) if packed else inner}


def _one_of(path: Path, kind: str, packed: bool, rng: np.random.Generator) -> Damage:
    text = path.suffix in (".nrrd", ".nhdr", ".mha", ".mhd")
    choices: list[Damage] = [flip_anywhere, cut, stretch, zero, repeat, insert]
    if text:
        choices = [change_number] * 6 + [change_line] * 4 + [flip_in_text] * 3 + choices
    elif kind == "nii.gz" and not packed:
        choices += [flip_anywhere] * 3
    else:
        size = BINARY_HEADER.get("nii" if packed else path.suffix.lstrip("."), 0)
        if size:
            choices = [header_number(size)] * 6 + [header_flip(size)] * 6 + choices
    return choices[rng.integers(len(choices))]


def flip_anywhere(data: bytes, rng: np.random.Generator) -> bytes:
    return _flip(data, len(data), rng)


def flip_in_text(data: bytes, rng: np.random.Generator) -> bytes:
    return _flip(data, min(len(data), 500), rng)


def header_flip(size: int) -> Damage:
    return lambda data, rng: _flip(data, min(size, len(data)), rng)


def _flip(data: bytes, size: int, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    if size:
        out[rng.integers(size)] = rng.integers(256)
    return bytes(out)


def header_number(size: int) -> Damage:
    """A number of a header's kind, at a place where one may lie."""

    def change(data: bytes, rng: np.random.Generator) -> bytes:
        kind = str(rng.choice(["<i2", "<f4", ">i2", "<i4", "<f8"]))
        extremes = [0, 1, -1, 2, 7, 255, 32767, -32768] + ([np.nan, np.inf, 1e30, 1e-30, 0.5] if "f" in kind else [])
        number = np.array([extremes[rng.integers(len(extremes))]], kind).tobytes()
        place = int(rng.integers(max(1, min(size, len(data)) // 2))) * 2
        return data[:place] + number + data[place + len(number) :]

    return change


def change_number(data: bytes, rng: np.random.Generator) -> bytes:
    head, body = _split_text(data)
    found = list(re.finditer(rb"-?\d+(\.\d+)?", head))
    if not found:
        return data
    hit = found[rng.integers(len(found))]
    return head[: hit.start()] + str(rng.choice(NUMBERS)).encode() + head[hit.end() :] + body


def change_line(data: bytes, rng: np.random.Generator) -> bytes:
    head, body = _split_text(data)
    lines = head.split(b"\n")
    one, other = (int(rng.integers(len(lines))) for _ in range(2))
    how = rng.integers(4)
    if how == 0:
        del lines[one]
    elif how == 1:
        lines.insert(other, lines[one])
    elif how == 2:
        lines[one], lines[other] = lines[other], lines[one]
    else:
        key, mark, _ = lines[one].partition(b":" if b":" in lines[one] else b"=")
        lines[one] = key + mark + b" " + str(rng.choice(NUMBERS)).encode() * int(rng.integers(1, 4))
    return b"\n".join(lines) + body


def _split_text(data: bytes) -> tuple[bytes, bytes]:
    """A text header and what follows it."""
    for end in (b"\n\n", b"ElementDataFile = LOCAL\n"):
        if end in data:
            place = data.index(end) + len(end)
            return data[:place], data[place:]
    return data[:600], data[600:]


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data) + 1)]


def stretch(data: bytes, rng: np.random.Generator) -> bytes:
    return data + rng.bytes(int(rng.integers(1, 5000)))


def zero(data: bytes, rng: np.random.Generator) -> bytes:
    start, length = int(rng.integers(len(data) + 1)), int(rng.integers(1, 400))
    return data[:start] + bytes(min(length, len(data) - start)) + data[start + length :]


def repeat(data: bytes, rng: np.random.Generator) -> bytes:
    start, length = int(rng.integers(len(data) + 1)), int(rng.integers(1, 400))
    return data[: start + length] + data[start:]


def insert(data: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(data) + 1))
    return data[:place] + rng.bytes(int(rng.integers(1, 9))) + data[place:]
