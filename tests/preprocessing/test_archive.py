import io
import pickle
import tarfile
import zipfile

import py7zr
import pytest
from archive_samples import (
    FILES,
    KINDS,
    LITTER,
    NOISE,
    add,
    encrypt_zip,
    link_in_zip,
    repeat_in_zip,
    replaced,
    write_7z,
    write_archive,
    write_tar,
    write_zip,
)

from infra.errors import UserError
from preprocessing.archive import open_archive
from preprocessing.archive.index import SUFFIX
from preprocessing.archive.tar import Tape
from preprocessing.case import CaseError

CASE = ["set/labelsTr/ct_1.nii.gz", "set/imagesTr/ct_1.nii.gz"]


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def names(archive):
    return [member.name for member in archive.members]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.mark.parametrize("kind", KINDS)
def test_a_case_is_taken_out_of_any_archive_and_nothing_else_with_it(tmp_path, out, kind):
    archive = open_archive(write_archive(tmp_path, kind, FILES))
    assert names(archive) == sorted(FILES)
    assert {m.name: m.size for m in archive.members} == {name: len(data) for name, data in FILES.items()}
    assert archive.findings == ()
    paths = archive.extract(CASE, out)
    assert list(paths) == CASE
    assert paths[CASE[0]] == out / CASE[0]
    assert contents(out) == {name: FILES[name] for name in CASE}


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_read_without_a_file_of_its_own(tmp_path, kind):
    archive = open_archive(write_archive(tmp_path, kind, FILES))
    before = set(tmp_path.iterdir())
    assert archive.read("set/dataset.json") == FILES["set/dataset.json"]
    assert archive.read("set/empty.csv") == b""
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", KINDS)
def test_what_macos_leaves_behind_is_no_member(tmp_path, kind):
    files = {**dict.fromkeys(LITTER, b"x"), **FILES}
    assert names(open_archive(write_archive(tmp_path, kind, files))) == sorted(FILES)


def test_folders_are_no_members(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a/": b"", "a/b.txt": b"1", "./c//d.txt": b"2"})
    assert names(open_archive(path)) == ["a/b.txt", "c/d.txt"]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "./", type=tarfile.DIRTYPE)
        add(tar, "./a", type=tarfile.DIRTYPE)
        add(tar, "./a/b.txt", b"1")
    assert names(open_archive(tmp_path / "a.tar")) == ["a/b.txt"]
    (tmp_path / "a").mkdir()
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w") as archive:
        archive.write(tmp_path / "a", "a")
        archive.writestr(b"1", "a/b.txt")
    assert names(open_archive(tmp_path / "a.7z")) == ["a/b.txt"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_index_answers_until_the_archive_changes(tmp_path, monkeypatch, kind):
    path = write_archive(tmp_path, kind, FILES)
    first = open_archive(path)
    assert path.with_name(path.name + SUFFIX).is_file()
    with monkeypatch.context() as patched:
        for reader in (tarfile, zipfile, py7zr.SevenZipFile):
            patched.delattr(reader, "open" if reader is tarfile else "ZipFile" if reader is zipfile else "__init__")
        assert open_archive(path).catalogue == first.catalogue
    write_archive(tmp_path, kind, {"other.txt": b"1"})
    with pytest.raises(UserError, match="changed since it was opened"):
        first.extract(CASE, tmp_path / "out")
    assert names(open_archive(path)) == ["other.txt"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', '{"format": 1, "stamp": [0, 0]}'])
def test_a_useless_index_is_made_anew(tmp_path, text):
    path = write_zip(tmp_path / "a.zip", FILES)
    index = path.with_name(path.name + SUFFIX)
    index.write_text(text)
    assert names(open_archive(path)) == sorted(FILES)
    assert index.read_text() != text


def test_an_index_cannot_lead_out_of_the_folder(tmp_path, out):
    path = write_tar(tmp_path / "a.tar", {"inside.txt": b"1"})
    open_archive(path)
    replaced(path.with_name(path.name + SUFFIX), b"inside.txt", b"../out.txt")
    with pytest.raises(UserError, match=r"\.\./out\.txt"):
        open_archive(path).extract(["../out.txt"], out)
    assert not (tmp_path / "out.txt").exists()


def test_where_no_index_can_be_written_the_archive_is_read_all_the_same(tmp_path):
    path = write_zip(tmp_path / "a.zip", FILES)
    path.with_name(path.name + SUFFIX).mkdir()
    assert names(open_archive(path)) == sorted(FILES)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "a.zip" + SUFFIX]


def test_an_archive_can_go_to_another_process_and_keeps_its_password_to_itself(tmp_path, out):
    archive = open_archive(write_zip(tmp_path / "a.zip", FILES), "secret")
    assert "secret" not in repr(archive)
    assert pickle.loads(pickle.dumps(archive)).extract(CASE, out)


class Meter:
    """Counts what is read of the unpacked bytes of tars."""

    def __init__(self, monkeypatch):
        self.bytes = 0
        read = Tape.read

        def counted(tape, size=-1, /):
            data = read(tape, size)
            self.bytes += len(data)
            return data

        monkeypatch.setattr(Tape, "read", counted)


def test_one_member_of_a_plain_tar_costs_one_seek(tmp_path, out, monkeypatch):
    files = {f"{k}.nii": NOISE for k in range(20)}
    archive = open_archive(write_tar(tmp_path / "a.tar", files))
    meter = Meter(monkeypatch)
    archive.extract(["17.nii"], out)
    assert len(NOISE) <= meter.bytes < len(NOISE) + 4096


def test_many_members_of_a_packed_tar_cost_one_pass_that_ends_early(tmp_path, out, monkeypatch):
    files = {f"{k:02}.nii": NOISE for k in range(20)}
    archive = open_archive(write_tar(tmp_path / "a.tar.gz", files, "w:gz"))
    meter = Meter(monkeypatch)
    archive.extract(["09.nii", "00.nii", "05.nii"], out)
    assert 10 * len(NOISE) <= meter.bytes < 11 * len(NOISE)


def test_many_members_of_a_solid_7z_cost_one_pass(tmp_path, out, monkeypatch):
    archive = open_archive(write_7z(tmp_path / "a.7z", FILES))
    unpacked = []
    decompress = py7zr.py7zr.Worker.decompress
    monkeypatch.setattr(
        py7zr.py7zr.Worker,
        "decompress",
        lambda self, fp, folder, fq, size, *rest: (
            unpacked.append(size) or decompress(self, fp, folder, fq, size, *rest)
        ),
    )
    archive.extract(sorted(FILES), out)
    assert sum(unpacked) == sum(len(data) for data in FILES.values())
    assert contents(out) == FILES


def test_a_7z_of_several_blocks_is_read(tmp_path, out):
    path = write_7z(tmp_path / "a.7z", {"a.txt": b"1" * 1000, "b.txt": b"2"})
    with py7zr.SevenZipFile(path, "a") as archive:
        archive.writestr(b"3" * 2000, "c.txt")
        archive.writestr(b"4", "d.txt")
    archive = open_archive(path)
    assert names(archive) == ["a.txt", "b.txt", "c.txt", "d.txt"]
    archive.extract(["d.txt", "a.txt"], out)
    assert contents(out) == {"a.txt": b"1" * 1000, "d.txt": b"4"}


def test_zip64_is_read(tmp_path, out, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    path = write_zip(tmp_path / "a.zip", FILES)
    assert b"PK\x06\x06" in path.read_bytes()
    monkeypatch.undo()
    open_archive(path).extract(sorted(FILES), out)
    assert contents(out) == FILES


@pytest.mark.parametrize("method", [0, 8])
def test_a_password_zip_opens_with_its_password_only(tmp_path, out, method):
    path = encrypt_zip(write_zip(tmp_path / "WORD.zip", FILES, method), b"word@uest")
    with pytest.raises(UserError, match=r"WORD\.zip is encrypted; give its password"):
        open_archive(path)
    archive = open_archive(path, "word@uest")
    archive.extract(CASE, out)
    assert contents(out) == {name: FILES[name] for name in CASE}
    with pytest.raises((UserError, CaseError), match="password"):
        open_archive(path, "guess").extract(CASE, out / "other")
    assert contents(out) == {name: FILES[name] for name in CASE}


@pytest.mark.parametrize("header", [False, True])
def test_a_password_7z_opens_with_its_password_only(tmp_path, out, header):
    path = write_7z(tmp_path / "a.7z", FILES, password="known", header_encryption=header)
    with pytest.raises(UserError, match="is encrypted; give its password"):
        open_archive(path)
    with pytest.raises((UserError, CaseError), match="password"):
        open_archive(path, "guess").extract(CASE, out)
    assert not contents(out)
    open_archive(path, "known").extract(CASE, out)
    assert contents(out) == {name: FILES[name] for name in CASE}


def test_a_password_that_is_not_needed_does_no_harm(tmp_path):
    for path in (write_7z(tmp_path / "a.7z", FILES), write_zip(tmp_path / "a.zip", FILES)):
        assert open_archive(path, "needless").read("set/dataset.json") == FILES["set/dataset.json"]
        assert open_archive(path).read("set/dataset.json") == FILES["set/dataset.json"]


def test_a_link_in_a_password_zip_is_read_with_the_password(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"data/real.nii": NOISE[:1000]})
    link_in_zip(path, "ct.nii", "data/real.nii")
    encrypt_zip(path, b"known")
    with pytest.raises(UserError, match="is encrypted"):
        open_archive(path)
    assert open_archive(path, "known").read("ct.nii") == NOISE[:1000]


@pytest.mark.parametrize("inner", ["store.zip", "tar", "tar.gz", "7z"])
@pytest.mark.parametrize("outer", ["deflate.zip", "tar", "7z"])
def test_an_archive_in_an_archive_is_extracted_once_and_read(tmp_path, out, inner, outer):
    inside = write_archive(tmp_path, inner, FILES).read_bytes()
    (tmp_path / "outer").mkdir()
    archive = open_archive(write_archive(tmp_path / "outer", outer, {"part/inner.bin": inside}))
    nested = archive.nested("part/inner.bin", tmp_path / "scratch")
    assert names(nested) == sorted(FILES)
    written = nested.path.stat().st_mtime_ns
    again = archive.nested("part/inner.bin", tmp_path / "scratch")
    assert again.path.stat().st_mtime_ns == written
    again.extract(CASE, out)
    assert contents(out) == {name: FILES[name] for name in CASE}


def test_only_a_member_is_opened_as_an_archive_in_an_archive(tmp_path):
    archive = open_archive(write_zip(tmp_path / "a.zip", FILES))
    write_zip(tmp_path / "secret.zip", {"secret": b"1"})
    with pytest.raises(CaseError, match="has no member"):
        archive.nested("../../secret.zip", tmp_path / "scratch")
    with pytest.raises(UserError, match="no archive that can be read"):
        archive.nested("set/dataset.json", tmp_path / "scratch")


def test_an_archive_lies_in_one_other_and_no_deeper(tmp_path):
    path = write_zip(tmp_path / "a.zip", FILES)
    for name in ("b.zip", "c.zip"):
        path = write_zip(tmp_path / name, {path.name: path.read_bytes()}, 0)
    nested = open_archive(path).nested("b.zip", tmp_path / "scratch")
    with pytest.raises(CaseError, match=r"a\.zip lies in an archive in an archive"):
        nested.nested("a.zip", tmp_path / "scratch")


def test_the_last_of_two_members_with_one_name_counts(tmp_path):
    tar = write_tar(tmp_path / "a.tar", {"a.txt": b"old", "b.txt": b"b"})
    with tarfile.open(tar, "a") as archive:
        add(archive, "./a.txt", b"new")
    zipped = write_zip(tmp_path / "a.zip", {"a.txt": b"old", "b.txt": b"b"})
    repeat_in_zip(zipped, "a.txt", b"new")
    for path in (tar, zipped):
        archive = open_archive(path)
        assert names(archive) == ["a.txt", "b.txt"]
        assert archive.findings == ("stored more than once, the last one counts: a.txt",)
        assert archive.read("a.txt") == b"new"


def test_of_two_members_of_a_7z_with_one_name_none_is_taken(tmp_path, out):
    path = write_7z(tmp_path / "a.7z", {"a.txt": b"old", "a.txt_0": b"c"})
    with py7zr.SevenZipFile(path, "a") as archive:
        archive.writestr(b"new", "a.txt")
    archive = open_archive(path)
    assert archive.findings
    with pytest.raises(CaseError, match=r"a\.txt is stored 2 times"):
        archive.extract(["a.txt"], out)
    assert archive.read("a.txt_0") == b"c"


def test_names_that_differ_only_in_case_are_told_and_not_mixed(tmp_path, out):
    archive = open_archive(write_zip(tmp_path / "a.zip", {"x/CT.nii": b"1", "X/ct.nii": b"2", "y": b"3"}))
    assert archive.findings == ("names differ only in case: X/ct.nii, x/CT.nii",)
    with pytest.raises(CaseError, match="differ only in case"):
        archive.extract(["x/CT.nii", "X/ct.nii"], out)
    assert (archive.read("x/CT.nii"), archive.read("X/ct.nii")) == (b"1", b"2")


def test_links_inside_a_tar_lead_to_their_file(tmp_path, out):
    for mode in ("w:", "w:gz"):
        with tarfile.open(tmp_path / "a.tar", mode) as tar:
            add(tar, "data/real.nii", NOISE)
            add(tar, "cases/1/ct.nii", type=tarfile.SYMTYPE, linkname="../../data/real.nii")
            add(tar, "cases/2/ct.nii", type=tarfile.SYMTYPE, linkname="../1/ct.nii")
            add(tar, "hard.nii", type=tarfile.LNKTYPE, linkname="data/real.nii")
        wanted = ["hard.nii", "cases/2/ct.nii", "cases/1/ct.nii"]
        paths = open_archive(tmp_path / "a.tar").extract(wanted, out)
        assert [paths[name].read_bytes() for name in wanted] == [NOISE] * 3
        assert not any(path.is_symlink() for path in paths.values())


def test_links_inside_a_zip_lead_to_their_file(tmp_path, out):
    path = write_zip(tmp_path / "a.zip", {"data/real.nii": NOISE})
    link_in_zip(path, "cases/ct.nii", "../data/real.nii")
    paths = open_archive(path).extract(["cases/ct.nii"], out)
    assert paths["cases/ct.nii"].read_bytes() == NOISE
    assert list(contents(out)) == ["cases/ct.nii"]


def test_names_are_read_in_the_encoding_they_were_written_in(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"Größe/肝.nii": b"1", "plain.nii": b"2"})
    assert names(open_archive(path)) == ["Größe/肝.nii", "plain.nii"]
    bare = write_zip(tmp_path / "b.zip", {"XX.nii": b"1", "XYZ.nii": b"2"})
    replaced(bare, b"XX.nii", "é".encode() + b".nii")  # UTF-8 without its flag, as macOS writes it
    replaced(bare, b"XYZ.nii", b"X\x81Z.nii")  # code page 437, as DOS did
    assert names(open_archive(bare)) == ["XüZ.nii", "é.nii"]


def test_a_tar_of_another_encoding_has_readable_names_and_the_right_bytes(tmp_path):
    options = {"format": tarfile.GNU_FORMAT, "encoding": "latin-1"}
    path = write_tar(tmp_path / "a.tar", {"Größe.nii": b"1", "b.nii": b"2"}, "w:", **options)
    archive = open_archive(path)
    (odd,) = set(names(archive)) - {"b.nii"}
    assert odd.isprintable()
    assert archive.read(odd) == b"1"


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "store.zip", "7z"])
def test_five_thousand_members_are_listed_and_the_last_is_read(tmp_path, out, kind):
    files = {f"case_{k:05}/segmentations/organ.nii.gz": b"%d" % k for k in range(5000)}
    archive = open_archive(write_archive(tmp_path, kind, files))
    assert names(archive) == sorted(files)
    archive.extract(["case_04999/segmentations/organ.nii.gz", "case_00000/segmentations/organ.nii.gz"], out)
    assert sorted(contents(out).values()) == [b"0", b"4999"]
    assert open_archive(archive.path).catalogue == archive.catalogue


def test_extracting_twice_gives_the_same_files(tmp_path, out):
    archive = open_archive(write_zip(tmp_path / "a.zip", FILES))
    archive.extract(CASE, out)
    first = contents(out)
    archive.extract(CASE, out)
    assert contents(out) == first


@pytest.mark.parametrize("name", ["BZh9.nii", "Rar!.nii", "7z.nii", "PK.nii"])
def test_a_tar_is_one_whatever_its_first_member_is_called(tmp_path, name):
    assert open_archive(write_tar(tmp_path / "a.tar", {name: b"1"})).read(name) == b"1"


def test_the_bytes_of_a_sparse_file_are_those_it_had(tmp_path):
    data = b"head" + bytes(5000) + b"tail"
    stored = data[:512].ljust(512, b"\0") + data[4608:].ljust(512, b"\0")
    pax = {"GNU.sparse.size": str(len(data)), "GNU.sparse.map": f"0,512,4608,{len(data) - 4608}"}
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.raw")
        info.pax_headers = pax
        info.size = 512 + len(data) - 4608
        tar.addfile(info, io.BytesIO(stored))
    archive = open_archive(tmp_path / "a.tar")
    assert archive.members[0][1:3] == (len(data), info.size)
    assert archive.read("a.raw") == data
