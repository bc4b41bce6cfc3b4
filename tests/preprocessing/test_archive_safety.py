import struct
import tarfile
import tracemalloc
import zipfile

import py7zr
import pytest
from archive_samples import (
    FILES,
    KINDS,
    NOISE,
    add,
    declared,
    everything,
    link_in_zip,
    plain_7z,
    replaced,
    sealed_7z,
    write_archive,
    write_tar,
    write_zip,
)

from infra.errors import UserError
from preprocessing import archive as archive_module
from preprocessing.archive import open_archive
from preprocessing.archive.members import Limits
from preprocessing.case import CaseError

MB = 2**20
SMALL = Limits(ratio=50, ratio_from_bytes=MB)
UNSAFE = {
    "../evil.txt": "leaves the folder",
    "a/../../evil.txt": "leaves the folder",
    "a/..": "leaves the folder",
    "/etc/evil.txt": "absolute",
    "C:/evil.txt": "absolute",
    "c:evil.txt": "absolute",
    "a\\..\\evil.txt": "backslash",
    "a\n.txt": "control characters",
    "a\x1b[2J.txt": "control characters",
    "a/" + "x" * 256: "more than 255 bytes",
}


def unsafe_archive(folder, kind, name):
    """An archive with this member; names are put in afterwards where the writer refuses them."""
    if kind == "tar":
        return write_tar(folder / "a.tar", {"good.txt": b"1", name: b"2"})
    if kind == "zip":
        return write_zip(folder / "a.zip", {"good.txt": b"1", name: b"2"})
    stand_in = "x" * len(name)
    path = plain_7z(folder / "a.7z", {"good.txt": b"1", stand_in: b"2"})
    replaced(path, stand_in.encode("utf-16le") + b"\0\0", name.encode("utf-16le") + b"\0\0")
    path.write_bytes(sealed_7z(path.read_bytes()))
    return path


@pytest.mark.parametrize("kind", ["tar", "zip", "7z"])
@pytest.mark.parametrize("name", UNSAFE)
def test_an_archive_with_an_unsafe_name_is_refused_by_that_name(tmp_path, kind, name):
    path = unsafe_archive(tmp_path, kind, name)
    if kind == "7z":
        name = name.replace("\\", "/")  # which a 7z made on Windows means by it
    with pytest.raises(UserError, match=UNSAFE.get(name, "leaves the folder")) as caught:
        open_archive(path)
    assert path.name in str(caught.value)
    assert repr(name)[:-1] in str(caught.value)
    assert everything(tmp_path) == {path.name}


def test_a_name_with_nul_in_it_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.txt-evil.nii": b"1"})
    replaced(path, b"a.txt-evil", b"a.txt\0evil")
    with pytest.raises(UserError, match="NUL or control"):
        open_archive(path)


@pytest.mark.parametrize(
    ("name", "target", "why"),
    [
        ("a/b", "../../etc/passwd", "out of the archive"),
        ("a/b", "/etc/passwd", "out of the archive"),
        ("a/b", "..\\..\\x", "out of the archive"),
        ("a/b", "", "out of the archive"),
        ("a/b", "gone.txt", "not there"),
        ("a/b", "b", "leads back"),
        ("a/b", "../a", "folders are not followed"),
        ("a/b", "../good", "folders are not followed"),
    ],
)
def test_a_link_that_leads_to_no_file_of_the_archive_is_a_problem_of_its_own(tmp_path, name, target, why):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "good/x.txt", b"1")
        add(tar, name, type=tarfile.SYMTYPE, linkname=target)
    zipped = write_zip(tmp_path / "a.zip", {"good/x.txt": b"1"})
    link_in_zip(zipped, name, target)
    for path in (tmp_path / "a.tar", zipped):
        archive = open_archive(path)
        with pytest.raises(CaseError, match=why) as caught:
            archive.extract(["good/x.txt", name], tmp_path / "out")
        assert f"{path.name}: {name}" in str(caught.value)
        assert not (tmp_path / "out").exists()
        assert archive.read("good/x.txt") == b"1"


def test_a_hard_link_out_of_a_tar_and_a_circle_of_links_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "hard", type=tarfile.LNKTYPE, linkname="../../etc/passwd")
        add(tar, "one", type=tarfile.SYMTYPE, linkname="two")
        add(tar, "two", type=tarfile.SYMTYPE, linkname="one")
    problems = {member.name: member.problem for member in open_archive(tmp_path / "a.tar").members}
    assert "out of the archive" in problems["hard"]
    assert "leads back" in problems["one"]
    assert "leads back" in problems["two"]


def test_a_link_in_a_7z_is_refused(tmp_path):
    (tmp_path / "target").write_text("1")
    (tmp_path / "link").symlink_to("target")
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w") as archive:
        archive.write(tmp_path / "link", "link")
    with pytest.raises(CaseError, match="links in a 7z are not followed"):
        open_archive(tmp_path / "a.7z").extract(["link"], tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_a_device_or_pipe_in_a_tar_is_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "dev", type=kind)
        add(tar, "good.txt", b"1")
    archive = open_archive(tmp_path / "a.tar")
    with pytest.raises(CaseError, match=r"a\.tar: dev is no file .*device or pipe"):
        archive.extract(["dev"], tmp_path / "out")
    assert archive.read("good.txt") == b"1"


def test_a_pipe_in_a_zip_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"good.txt": b"1"})
    link_in_zip(path, "pipe", "x", mode=0o010644)
    with pytest.raises(CaseError, match="pipe is no file"):
        open_archive(path).extract(["pipe"], tmp_path / "out")


def test_nothing_is_stored_through_a_link_that_the_archive_brings(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "way", type=tarfile.SYMTYPE, linkname=str(tmp_path / "elsewhere"))
        add(tar, "way/evil.txt", b"1")
    (tmp_path / "elsewhere").mkdir()
    paths = open_archive(tmp_path / "a.tar").extract(["way/evil.txt"], tmp_path / "out")
    assert paths["way/evil.txt"].resolve() == tmp_path / "out/way/evil.txt"
    assert not everything(tmp_path / "elsewhere")


def test_nothing_is_stored_through_a_link_that_lay_in_the_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/set").symlink_to(tmp_path / "elsewhere")
    archive = open_archive(write_zip(tmp_path / "a.zip", FILES))
    for name in ("set/dataset.json", "set/imagesTr/ct_1.nii.gz"):
        with pytest.raises(UserError, match="extract into a folder without links"):
            archive.extract([name], tmp_path / "out")
    assert not everything(tmp_path / "elsewhere")


@pytest.mark.parametrize("kind", ["deflate.zip", "bzip2.zip", "lzma.zip", "7z"])
def test_a_member_that_expands_absurdly_is_refused_before_a_byte_is_written(tmp_path, kind):
    archive = open_archive(write_archive(tmp_path, kind, {"bomb": bytes(2 * MB), "good": b"1"}), limits=SMALL)
    with pytest.raises(CaseError, match=rf"bomb \d+ bytes claim to hold {2 * MB}, more than 50 to 1"):
        archive.extract(["good", "bomb"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bzip2_bomb_behind_a_small_size_stays_small_in_memory(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"bomb": bytes(64 * MB)}, 12)
    archive = open_archive(declared(path, "bomb", MB))
    tracemalloc.start()
    with pytest.raises(CaseError, match=rf"bomb holds more than the {MB} bytes it declares"):
        archive.extract(["bomb"], tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * MB
    assert not everything(tmp_path / "out")


def test_an_empty_label_map_is_no_bomb(tmp_path):
    for kind in KINDS:
        archive = open_archive(write_archive(tmp_path, kind, {"empty.nii": bytes(MB)}))
        assert archive.read("empty.nii") == bytes(MB)


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz"])
def test_a_packed_tar_that_expands_absurdly_is_left_while_it_is_listed(tmp_path, kind):
    path = write_archive(tmp_path, kind, {"bomb": bytes(16 * MB)})
    with pytest.raises(UserError, match=r"more than 50 to 1") as caught:
        open_archive(path, limits=SMALL)
    assert int(str(caught.value).split("claim to hold ")[1].split(",")[0]) < 8 * MB


def test_a_sparse_file_that_claims_terabytes_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        add(tar, "a.raw", bytes(512), pax_headers={"GNU.sparse.size": str(2**42), "GNU.sparse.map": "0,512"})
    with pytest.raises(CaseError, match=f"512 bytes claim to hold {2**42}"):
        open_archive(tmp_path / "a.tar").extract(["a.raw"], tmp_path / "out")


@pytest.mark.parametrize("kind", KINDS)
def test_one_extraction_has_a_limit(tmp_path, kind):
    limits = Limits(total_bytes=len(NOISE) + 100)
    archive = open_archive(write_archive(tmp_path, kind, FILES), limits=limits)
    with pytest.raises(
        CaseError, match=rf"{2 * len(NOISE)} bytes asked for at once, the limit is {limits.total_bytes}"
    ):
        archive.extract(["set/imagesTr/ct_1.nii.gz", "set/imagesTr/ct_2.nii.gz"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_told_before_a_byte_is_written(tmp_path, monkeypatch):
    archive = open_archive(write_zip(tmp_path / "a.zip", FILES))
    usage = archive_module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archive_module.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match=f"has 1000 bytes free, a.zip needs {len(NOISE)}"):
        archive.extract(["set/imagesTr/ct_1.nii.gz"], tmp_path / "out")


def test_too_many_members_are_refused(tmp_path):
    with pytest.raises(UserError, match="more than 3 members"):
        open_archive(write_zip(tmp_path / "a.zip", FILES), limits=Limits(members=3))


def test_members_that_share_their_bytes_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"one": NOISE, "two": NOISE})
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("two").header_offset
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    assert data[at + 42 : at + 46] == struct.pack("<L", place)
    data[at + 42 : at + 46] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(UserError, match="overlaps member 'two', as in a zip bomb"):
        open_archive(path)


def quoted_overlap(kernel, count):
    """Fifield's bomb of 2019: every member's data begins with the next local header, stored as a deflate block."""
    names = [chr(65 + k) for k in range(count)]
    body, offsets = b"", []
    for k, name in enumerate(names):
        offsets.append(len(body))
        body += struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 8, 0, 33, 0, len(kernel), MB, 1, 0) + name.encode()
        if k < count - 1:
            quoted = 31
            body += struct.pack("<BHH", 0, quoted, quoted ^ 0xFFFF)
    start = len(body) + len(kernel)
    directory = b""
    for name, offset in zip(names, offsets, strict=True):
        packed = start - offset - 31
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 8, 0, 33, 0, packed, MB, 1, 0, 0, 0, 0, 0, offset
        )
        directory += name.encode()
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), start, 0)
    return body + kernel + directory + end


def test_the_overlap_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.zip"
    path.write_bytes(quoted_overlap(b"\x03\x00" * 500, 50))
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == 50
    with pytest.raises(UserError, match="member 'A' overlaps member 'B'"):
        open_archive(path)
