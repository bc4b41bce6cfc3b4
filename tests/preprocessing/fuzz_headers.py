"""Headers that are well formed and say extreme things, drawn by hypothesis: what `fuzz_files` rarely hits by chance.

`crafted(kind)` draws what to state in the header of one healthy image of `fuzz_files`, field by field; `craft` writes
it. Nothing else of the files changes, but that a stream may be cut and bytes may be swapped.
"""

import gzip
import re
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pydicom.config
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

Changes = dict[str, Any]
INTEGERS = [0, 1, -1, 2, 11, 13, 255, 32767, -32768]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.04, 0.5, 3.5, 31.0, -1024.0, 1e-30, 1e30, np.nan, np.inf, -np.inf]
WORDS = ["0", "-1", "1", "0.04", "31", "-3.5", "1e-30", "1e30", "1e400", "nan", "-inf", "65536", "4294967297"]
WORDS += ["2147483647", "9223372036854775807", "99999999999999999999", ""]
NIFTI_TYPES = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 2304]
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
SYNTAXES += [JPEGLSLossless, JPEG2000Lossless, RLELossless]


def crafted(kind: str) -> st.SearchStrategy[Changes]:
    """One to four statements for the header of an image of this kind."""
    if kind in ("nii", "nii.gz", "hdr"):
        fields = _nifti_fields() | ({"packed": st.sampled_from(PACKED)} if kind == "nii.gz" else {})
    elif kind == "dcm":
        fields = _dicom_fields()
    else:
        fields = NRRD_FIELDS if kind.endswith(("nrrd", "nhdr")) else METAIMAGE_FIELDS
    names = st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=4, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: fields[name] for name in chosen}))


def craft(files: dict[Path, bytes], kind: str, changes: Changes) -> dict[Path, bytes]:
    """The files that differ from the healthy ones."""
    paths = list(files)
    if kind == "dcm":
        chosen = paths if changes.get("where") == "all" else paths[5:6]
        return {path: _dicom(files[path], changes) for path in chosen}
    header = files[paths[0]]
    if kind.endswith(("nrrd", "nhdr")):
        return {paths[0]: _with_lines(header, changes, ": ", b"\n\n")}
    if kind.endswith(("mha", "mhd")):
        return {paths[0]: _with_lines(header, changes, " = ", b"ElementDataFile")}
    if kind != "nii.gz":
        return {paths[0]: _nifti(header, changes)}
    return {paths[0]: _repacked(_nifti(gzip.decompress(header), changes), changes.get("packed", "whole"))}


# NIfTI

PACKED = ["whole", "cut in half", "without checksum", "wrong checksum", "two members", "more behind", "not packed"]


def _nifti_fields() -> dict[str, st.SearchStrategy]:
    indexed = {"dim": (8, INTEGERS), "pixdim": (8, FLOATS)}
    indexed |= {f"srow_{axis}": (4, FLOATS) for axis in "xyz"}
    single = dict.fromkeys(("scl_slope", "scl_inter", "vox_offset", "cal_max"), FLOATS)
    single |= dict.fromkeys((*(f"quatern_{n}" for n in "bcd"), *(f"qoffset_{n}" for n in "xyz")), FLOATS)
    single |= {"vox_offset": [*FLOATS, 16.0, 353.0, 1000.0, 8192.0, 2.0**31]}
    single |= {"datatype": NIFTI_TYPES, "bitpix": [0, 1, 8, 16, 32, 64, -16], "magic": [b"n+1", b"ni1", b"n+2", b""]}
    single |= {name: [0, 1, 2, 4, 5, -1] for name in ("sform_code", "qform_code")}
    single |= {"sizeof_hdr": [0, 348, 540, 1543569408], "swapped": ["header", "voxels", "both"]}
    pairs = {
        name: st.tuples(st.integers(0, count - 1), st.sampled_from(values)) for name, (count, values) in indexed.items()
    }
    return pairs | {name: st.sampled_from(values) for name, values in single.items()}


def _nifti(data: bytes, changes: Changes) -> bytes:
    """A NIfTI-1 file, or a header alone, with other values in its fields."""
    header = np.frombuffer(data[:348], nib.Nifti1Header.template_dtype).copy()
    for name, value in changes.items():
        if name in ("swapped", "packed"):
            continue
        if isinstance(value, tuple):
            header[name][0, value[0]] = value[1]
        else:
            header[name] = value
    swapped = changes.get("swapped", "")
    head, rest = header.tobytes(), data[348:]
    if swapped in ("header", "both"):
        head = header.byteswap().tobytes()
    if swapped in ("voxels", "both") and len(rest) > 4:
        rest = rest[:4] + np.frombuffer(rest[4:], "<i2").byteswap().tobytes()
    return head + rest


def _repacked(data: bytes, how: str) -> bytes:
    packed = gzip.compress(data, 1, mtime=0)
    if how == "two members":
        return gzip.compress(data[:1000], 1, mtime=0) + gzip.compress(data[1000:], 1, mtime=0)
    wrong = struct.pack("<II", 7, len(data))
    return {
        "cut in half": packed[: len(packed) // 2],
        "without checksum": packed[:-8],
        "wrong checksum": packed[:-8] + wrong,
        "more behind": packed + b"\1" * 40,
        "not packed": data,
    }.get(how, packed)


# NRRD and MetaImage


def _numbers(usual: str) -> st.SearchStrategy[str]:
    """The usual text with one of its numbers replaced, left out or written twice."""
    hits = list(re.finditer(r"[-.\d]+", usual))
    further = ["1", "2", "8", "3.4", "-4", "12", *WORDS]

    def put(choice: tuple[re.Match, str]) -> str:
        hit, word = choice
        word = {"twice": f"{hit[0]} {hit[0]}"}.get(word, word)
        return usual[: hit.start()] + word + usual[hit.end() :]

    return st.tuples(st.sampled_from(hits), st.sampled_from([*further, "twice"])).map(put)


NRRD_FIELDS = {
    "sizes": _numbers("16 14 12"),
    "dimension": st.sampled_from(["0", "1", "2", "3", "4", "17", "-3", "4294967299"]),
    "type": st.sampled_from(["short", "int16", "uint16", "uchar", "double", "float", "block", "int64", "complex"]),
    "encoding": st.sampled_from(["raw", "gzip", "bzip2", "ascii", "hex", "zrl"]),
    "endian": st.sampled_from(["little", "big", "middle"]),
    "space": st.sampled_from(
        ["left-posterior-superior", "right-anterior-superior", "LPS", "RAS", "scanner-xyz", "3D-right-handed", ""]
    ),
    "space directions": _numbers("(3.5,0,0) (0,-4,0) (0,0,-6)"),
    "space origin": _numbers("(7.5,15,-40)"),
    "space dimension": st.sampled_from(["3", "2", "4"]),
    "spacings": _numbers("3.5 4 6"),
    "kinds": st.sampled_from(["domain domain domain", "list domain domain", "complex domain domain"]),
    "byte skip": st.sampled_from(["-1", "0", "1", "7", "100000", "99999999999", "-2"]),
    "line skip": st.sampled_from(["0", "1", "99999999", "-1"]),
    "data file": st.sampled_from(["LIST", "ct%03d.raw 1 9 1", "gone.raw", "../ct.raw", "."]),
    "measurement frame": _numbers("(1,0,0) (0,1,0) (0,0,1)"),
    "block size": st.sampled_from(["2", "0", "4294967296"]),
}
METAIMAGE_FIELDS = {
    "DimSize": _numbers("16 14 12"),
    "NDims": st.sampled_from(["0", "1", "2", "3", "4", "11", "-1"]),
    "ElementSpacing": _numbers("3.5 4 6"),
    "ElementSize": _numbers("3.5 4 6"),
    "Offset": _numbers("7.5 15 -40"),
    "TransformMatrix": _numbers("1 0 0 0 -1 0 0 0 -1"),
    "ElementType": st.sampled_from(["MET_SHORT", "MET_USHORT", "MET_UCHAR", "MET_FLOAT", "MET_DOUBLE", "MET_OTHER",
                                    "MET_LONG_LONG", "MET_SHORT_ARRAY"]),
    "ElementNumberOfChannels": st.sampled_from(["0", "1", "2", "3", "-1", "2147483647"]),
    "BinaryData": st.sampled_from(["True", "False", "Maybe"]),
    "BinaryDataByteOrderMSB": st.sampled_from(["True", "False"]),
    "ElementByteOrderMSB": st.sampled_from(["True", "False"]),
    "CompressedData": st.sampled_from(["True", "False"]),
    "CompressedDataSize": st.sampled_from(WORDS),
    "HeaderSize": st.sampled_from(["-1", "0", "1", "348", "100000", "99999999999"]),
    "ObjectType": st.sampled_from(["Image", "Tube", "Scene", ""]),
    "AnatomicalOrientation": st.sampled_from(["RAI", "LPS", "???", "ASL"]),
    "CenterOfRotation": _numbers("0 0 0"),
}  # fmt: skip


def _with_lines(data: bytes, changes: Changes, mark: str, end: bytes) -> bytes:
    """A text header with these lines instead of its own, or before its last one where it has none of that key."""
    for key, value in changes.items():
        line = f"{key}{mark}{value}".encode()
        size = data.index(end) if end in data else len(data) - 1
        own = re.search(rb"^" + re.escape(key).encode() + rb"\s*[:=].*$", data[:size], re.MULTILINE | re.IGNORECASE)
        if own:
            data = data[: own.start()] + line + data[own.end() :]
        else:
            data = data[:size] + (b"\n" + line if end == b"\n\n" else line + b"\n") + data[size:]
    return data


# DICOM


def _dicom_fields() -> dict[str, st.SearchStrategy]:
    short = [0, 1, 2, 7, 8, 11, 12, 13, 15, 16, 17, 31, 32, 64, 255, 65535]
    text = st.sampled_from(WORDS)
    single: dict[str, list] = dict.fromkeys(("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"), short)
    single |= {"SamplesPerPixel": [0, 1, 2, 3, 65535], "PixelRepresentation": [0, 1, 2, 65535]}
    single |= {"PlanarConfiguration": [0, 1], "NumberOfFrames": ["0", "-1", "1", "2", "2147483647"]}
    single |= {"AcquisitionNumber": ["0", "-1", "2147483647"]}
    single |= {"PhotometricInterpretation": ["MONOCHROME1", "RGB", "PALETTE COLOR", "YBR_FULL", ""]}
    single |= {"Modality": ["MR", "", "ct"], "TransferSyntaxUID": SYNTAXES, "PixelPaddingValue": [0, 1024, 65535]}
    single |= {"PixelPaddingRangeLimit": [0, 1100, 65535], "StackID": ["1"], "SOPInstanceUID": ["1.2.3.1", ""]}
    single |= {"ImageType": [["DERIVED", "SECONDARY"], ["ORIGINAL", "PRIMARY", "LOCALIZER"], [""]]}
    several = {"PixelSpacing": 2, "ImagePositionPatient": 3, "ImageOrientationPatient": 6}
    fields = {name: st.sampled_from(values) for name, values in single.items()}
    fields |= dict.fromkeys(("RescaleSlope", "RescaleIntercept", "SliceThickness", "KVP"), text)
    fields |= {name: st.lists(text | st.just("1"), min_size=n - 1, max_size=n) for name, n in several.items()}
    return fields | {"where": st.sampled_from(["one", "all"])}


def _dicom(data: bytes, changes: Changes) -> bytes:
    """One slice with other values in its elements, written without a check."""
    dataset = pydicom.dcmread(BytesIO(data))
    for name, value in changes.items():
        if name == "TransferSyntaxUID":
            dataset.file_meta.TransferSyntaxUID = value
        elif name != "where":
            tag = tag_for_keyword(name)
            dataset[tag] = DataElement(tag, dictionary_VR(tag).split(" or ")[0], value, pydicom.config.IGNORE)
    return _unchecked(dataset)


def with_element(data: bytes, keyword: str, text: str) -> bytes:
    """One slice with any text as the value of an element, whatever it should hold."""
    dataset = pydicom.dcmread(BytesIO(data))
    tag = tag_for_keyword(keyword)
    dataset[tag] = RawDataElement(tag, dictionary_VR(tag), len(text), text.encode(), 0, False, True)
    return _unchecked(dataset)


def _unchecked(dataset: pydicom.Dataset) -> bytes:
    out = DicomBytesIO(bytes(128) + b"DICM")
    out.seek(132)
    out.is_implicit_VR, out.is_little_endian = False, True
    mode = pydicom.config.settings.writing_validation_mode
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    try:
        write_file_meta_info(out, dataset.file_meta, enforce_standard=False)
        write_dataset(out, dataset)
    finally:
        pydicom.config.settings.writing_validation_mode = mode
    return out.getvalue()
