"""Real archives for tests, and the damage that their own writers would not do."""

import io
import struct
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import py7zr

NOISE = np.random.default_rng(7).integers(0, 256, 300_000, np.uint8).tobytes()
FILES = {
    "set/dataset.json": b'{"name": "set"}',
    "set/empty.csv": b"",
    "set/imagesTr/ct_1.nii.gz": NOISE,
    "set/imagesTr/ct_2.nii.gz": NOISE[::-1],
    "set/labelsTr/ct_1.nii.gz": bytes(50_000) + NOISE[:100],
}
LITTER = ("set/._dataset.json", "__MACOSX/set/imagesTr/._ct_1.nii.gz", "set/imagesTr/.DS_Store")
TAR_MODES = {"tar": "w:", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}
ZIP_METHODS = {"store": 0, "deflate": 8, "bzip2": 12, "lzma": 14}


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w:", **options) -> Path:
    with tarfile.open(path, mode, **options) as tar:
        for name, data in files.items():
            add(tar, name, data)
    return path


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(data))


def write_zip(path: Path, files: dict[str, bytes], method: int = 8) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_7z(path: Path, files: dict[str, bytes], **options) -> Path:
    with py7zr.SevenZipFile(path, "w", **options) as archive:
        for name, data in files.items():
            archive.writestr(data, name)
    return path


def write_archive(folder: Path, kind: str, files: dict[str, bytes]) -> Path:
    """An archive of any kind that is read, named by its kind."""
    path = folder / f"sample.{kind}"
    if kind in TAR_MODES:
        return write_tar(path, files, TAR_MODES[kind])
    if kind.endswith("zip"):
        return write_zip(path, files, ZIP_METHODS[kind.removesuffix(".zip")])
    return write_7z(path, files)


KINDS = (*TAR_MODES, *(f"{method}.zip" for method in ZIP_METHODS), "7z")


def link_in_zip(path: Path, name: str, target: str, mode: int = 0o120777) -> None:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, target)


def repeat_in_zip(path: Path, name: str, data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, data)


def replaced(path: Path, old: bytes, new: bytes) -> Path:
    """The same file with some of its bytes changed; of equal length, so that offsets stay."""
    data = path.read_bytes()
    assert len(old) == len(new)
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


def sealed_7z(data: bytes) -> bytes:
    """7z bytes with the two checksums of its header made right again, so that readers go on to believe it."""
    offset, size = struct.unpack("<QQ", data[12:28])
    crc = struct.pack("<L", zlib.crc32(data[32 + offset : 32 + offset + size]))
    start = data[12:28] + crc
    return data[:8] + struct.pack("<L", zlib.crc32(start)) + start + data[32:]


def plain_7z(path: Path, files: dict[str, bytes], **options) -> Path:
    """A 7z whose header is not packed."""
    with py7zr.SevenZipFile(path, "w", **options) as archive:
        archive.set_encoded_header_mode(False)
        for name, data in files.items():
            archive.writestr(data, name)
    return path


def encrypt_zip(path: Path, password: bytes) -> Path:
    """The same zip under the traditional PKWARE encryption (APPNOTE 6.1), which the standard library only reads."""
    with zipfile.ZipFile(path) as archive:
        infos, start = archive.infolist(), archive.start_dir
    data = path.read_bytes()
    body, moved = b"", {}
    for info in infos:
        at = info.header_offset
        head = at + 30 + sum(struct.unpack("<HH", data[at + 26 : at + 30]))
        plain = bytes(11) + bytes([info.CRC >> 24]) + data[head : head + info.compress_size]
        local = bytearray(data[at:head])
        local[6] |= 1
        local[18:22] = struct.pack("<L", len(plain))
        moved[at] = len(body)
        body += bytes(local) + _zipcrypto(plain, password)
    directory, at = bytearray(data[start:]), 0
    while directory[at : at + 4] == b"PK\x01\x02":
        directory[at + 8] |= 1
        (packed,) = struct.unpack("<L", directory[at + 20 : at + 24])
        (place,) = struct.unpack("<L", directory[at + 42 : at + 46])
        directory[at + 20 : at + 24] = struct.pack("<L", packed + 12)
        directory[at + 42 : at + 46] = struct.pack("<L", moved[place])
        at += 46 + sum(struct.unpack("<HHH", directory[at + 28 : at + 34]))
    directory[at + 16 : at + 20] = struct.pack("<L", len(body))
    path.write_bytes(body + bytes(directory))
    return path


def _zipcrypto(plain: bytes, password: bytes) -> bytes:
    keys = [0x12345678, 0x23456789, 0x34567890]

    def crc(byte: int, key: int) -> int:
        return zlib.crc32(bytes([byte]), key ^ 0xFFFFFFFF) ^ 0xFFFFFFFF

    def update(byte: int) -> None:
        keys[0] = crc(byte, keys[0])
        keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = crc(keys[1] >> 24, keys[2])

    for byte in password:
        update(byte)
    out = bytearray()
    for byte in plain:
        key = keys[2] | 2
        out.append(byte ^ (((key * (key ^ 1)) >> 8) & 0xFF))
        update(byte)
    return bytes(out)


def everything(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def declared(path, name, size):
    """A zip whose directory tells another size for a member than its bytes have."""
    with zipfile.ZipFile(path) as archive:
        true = archive.getinfo(name).file_size
    return replaced(path, struct.pack("<L", true), struct.pack("<L", size))
