import struct
import tarfile

import py7zr
import pytest
from archive_samples import (
    FILES,
    KINDS,
    NOISE,
    add,
    declared,
    everything,
    write_7z,
    write_archive,
    write_tar,
    write_zip,
)

from infra.errors import UserError
from preprocessing.archive import open_archive
from preprocessing.case import CaseError

MB = 2**20


@pytest.mark.parametrize("method", [0, 8, 12, 14])
@pytest.mark.parametrize("change", [-100_000, 100_000])
def test_a_member_of_another_size_than_declared_is_refused(tmp_path, method, change):
    path = write_zip(tmp_path / "a.zip", {"a.nii": NOISE + bytes(MB)}, method)
    declared(path, "a.nii", len(NOISE) + MB + change)
    with pytest.raises((CaseError, UserError), match=r"a\.nii|overlaps"):
        open_archive(path).extract(["a.nii"], tmp_path / "out")
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
def test_an_archive_cut_short_is_refused_whole(tmp_path, kind, kept):
    path = write_archive(tmp_path, kind, FILES)
    data = path.read_bytes()
    size = int(len(data) * kept) if kind != "tar" else int((len(data) - 10240) * kept) // 512 * 512
    path.write_bytes(data[:size])
    with pytest.raises(UserError, match=r"sample.* is damaged, cut short"):
        open_archive(path)
    assert everything(tmp_path) == {path.name}


@pytest.mark.parametrize("text", [b"", b"x", b"no archive" * 1000, bytes(100)])
def test_what_is_no_archive_is_refused(tmp_path, text):
    (tmp_path / "a.zip").write_bytes(text)
    with pytest.raises(UserError, match=r"a\.zip is damaged, cut short or no archive"):
        open_archive(tmp_path / "a.zip")


def test_what_is_not_there_is_a_sentence(tmp_path):
    for path in (tmp_path / "gone.zip", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            open_archive(path)


@pytest.mark.parametrize("name", ["a.zip.001", "a.7z.002", "a.z01"])
def test_a_part_of_a_split_archive_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(write_zip(tmp_path / "whole.zip", FILES).read_bytes())
    with pytest.raises(UserError, match="one part of a split archive; join"):
        open_archive(tmp_path / name)


def test_the_last_part_of_a_split_zip_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", FILES)
    (tmp_path / "a.z01").touch()
    with pytest.raises(UserError, match="one part of a split archive"):
        open_archive(path)
    (tmp_path / "a.z01").unlink()
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 34 : at + 36] = b"\x01\0"  # the disk on which the member begins
    path.write_bytes(data)
    with pytest.raises(UserError, match="one part of a split zip"):
        open_archive(path)


@pytest.mark.parametrize(
    ("start", "why"), [(b"Rar!\x1a\x07", "RAR"), (b"\x28\xb5\x2f\xfd", "Zstandard"), (b"PK\x07\x08", "split zip")]
)
def test_formats_that_are_not_read_are_named(tmp_path, start, why):
    (tmp_path / "a.bin").write_bytes(start + NOISE)
    with pytest.raises(UserError, match=why):
        open_archive(tmp_path / "a.bin")


@pytest.mark.parametrize(("method", "why"), [(99, "encrypted with AES"), (9, "method 9")])
def test_a_zip_of_a_method_that_is_not_read_is_refused(tmp_path, method, why):
    path = write_zip(tmp_path / "a.zip", {"a": NOISE})
    data = bytearray(path.read_bytes())
    for at in (8, data.index(b"PK\x01\x02") + 10):
        data[at : at + 2] = struct.pack("<H", method)
    path.write_bytes(data)
    with pytest.raises(UserError, match=why):
        open_archive(path)


def test_a_7z_of_a_method_that_cannot_be_bounded_is_refused(tmp_path):
    path = write_7z(tmp_path / "a.7z", FILES, filters=[{"id": py7zr.FILTER_DEFLATE}])
    with pytest.raises(UserError, match="method 040108, which is not read"):
        open_archive(path)


@pytest.mark.parametrize("kind", ["store.zip", "deflate.zip", "bzip2.zip", "lzma.zip", "7z"])
def test_a_damaged_member_is_named_and_the_others_are_had(tmp_path, kind):
    path = write_archive(tmp_path, kind, {"good.nii": NOISE[::-1], "hurt.nii": NOISE})
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 0x55
    path.write_bytes(data)
    archive = open_archive(path)
    with pytest.raises(CaseError, match=rf"sample\.{kind}: hurt\.nii"):
        archive.extract(["good.nii", "hurt.nii"], tmp_path / "out")
    assert everything(tmp_path / "out") == {"good.nii"}
    assert archive.read("good.nii") == NOISE[::-1]


def test_a_damaged_header_in_a_tar_is_not_taken_for_its_end(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"one": b"1", "two": b"2", "three": b"3"})
    data = bytearray(path.read_bytes())
    data[1024] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="no header and no end mark at offset 1024"):
        open_archive(path)


@pytest.mark.parametrize("size", [-512, -1024, 2**62])
def test_a_tar_with_an_impossible_size_is_refused(tmp_path, size):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        add(tar, "a", b"1")
        info = tarfile.TarInfo("b")
        info.size = size
        tar.fileobj.write(info.tobuf(tarfile.GNU_FORMAT))
        tar.offset += 512
    with pytest.raises(UserError, match=r"a\.tar is damaged"):
        open_archive(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_tar_header_as_large_as_memory_is_refused(tmp_path, kind):
    for mode in ("w:", "w:gz"):
        with tarfile.open(tmp_path / "a.tar", mode) as tar:
            add(tar, "x", bytes(8 * MB), type=kind)
            add(tar, "a", b"1")
        with pytest.raises(UserError, match=f"a header claims {8 * MB} bytes"):
            open_archive(tmp_path / "a.tar")


def test_a_tar_of_headers_about_headers_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for _ in range(3000):
            add(tar, "x", b"a\0", type=tarfile.GNUTYPE_LONGNAME)
    with pytest.raises(UserError, match=r"a\.tar is damaged"):
        open_archive(tmp_path / "a.tar")


def test_a_member_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CaseError, match=r"a\.zip has no member 'gone\.nii' \(it has 5\)"):
        open_archive(write_zip(tmp_path / "a.zip", FILES)).extract(["gone.nii"], tmp_path / "out")


def test_a_file_where_another_member_is_a_folder_is_told(tmp_path):
    archive = open_archive(write_zip(tmp_path / "a.zip", {"a": b"1", "a/b": b"2"}))
    with pytest.raises(CaseError, match="is a file where another member is a folder"):
        archive.extract(["a", "a/b"], tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.partial"))
    assert archive.read("a/b") == b"2"
