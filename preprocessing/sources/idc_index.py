"""The index of the Imaging Data Commons: one row a DICOM series, in a Parquet file that comes with idc-index-data.

Nothing here needs a network. Another release of the index is another file of the same columns.
"""

from collections.abc import Collection
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infra.errors import UserError

OF_FEW_VALUES = ["collection_id", "Modality", "SOPClassUID", "analysis_result_id", "source_DOI", "license_short_name"]
OF_FEW_VALUES += ["aws_bucket", "SeriesNumber"]
COLUMNS = ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesDescription", "instanceCount"]
COLUMNS += ["series_revised_idc_version", "crdc_series_uuid", *OF_FEW_VALUES[1:]]
LABELS = ("SEG", "RTSTRUCT")
SIZE = "series_size_MB"


def collections(index: str = "") -> dict[str, int]:
    """Every collection that has CT, with its number of CT series.

    Raises:
        UserError: the index cannot be read.
    """
    return _collections(*_file(index))


def megabytes(collection: str, index: str = "") -> float | None:
    """What all CT series of a collection hold; None where the index does not say.

    Raises:
        UserError: the index cannot be read.
    """
    return _megabytes(*_file(index), collection)


def refuse_unknown(collection: str, index: str = "") -> None:
    """Raise a UserError with the nearest names where no collection of the index has CT under this name."""
    known = collections(index)
    if collection in known:
        return
    near = get_close_matches(collection, known, 3, 0.5) or [name for name in known if collection in name][:3]
    hint = f"; near are {', '.join(near)}" if near else f"; known are {', '.join(sorted(known))}"
    raise UserError(f"the Imaging Data Commons has no collection {collection!r} with CT{hint}")


def series(collection: str, analysis: Collection[str] = ("",), index: str = "") -> dict[str, list]:
    """The CT series of a collection with the SEG and RTSTRUCT series of it, as columns sorted by patient and series.

    Args:
        collection: its id.
        analysis: of which analysis results; "" is what the collection itself brought.
        index: another file than the one that is installed.

    Raises:
        UserError: the index cannot be read.
    """
    path, _ = _file(index)
    try:
        with pq.ParquetFile(path, read_dictionary=OF_FEW_VALUES) as file:
            head = file.read(columns=["collection_id", "Modality", "analysis_result_id"])
            wanted = _among(head["Modality"], LABELS) & _among(head["analysis_result_id"], analysis)
            wanted = _among(head["collection_id"], [collection]) & (wanted | _among(head["Modality"], ["CT"]))
            rows = pa.array(np.flatnonzero(wanted))
            table = pa.table({name: file.read(columns=[name])[name].take(rows) for name in COLUMNS})
    except (OSError, pa.ArrowException, KeyError) as error:
        raise _unreadable(path, error) from error
    table = table.sort_by([("PatientID", "ascending"), ("SeriesInstanceUID", "ascending")])
    return {name: _values(table[name].combine_chunks()) for name in COLUMNS}


def _among(column: pa.ChunkedArray, texts: Collection[str]) -> NDArray[np.bool_]:
    """Where a column of few values has one of these; a null counts as ""."""
    held = column.combine_chunks()
    known = [text or "" for text in held.dictionary.to_pylist()]
    table = np.array([text in texts for text in known] + ["" in texts])
    return table[held.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)]


def _values(column: pa.Array) -> list:
    """Python values, nulls as ""; equal texts of a column with few of them are one object."""
    if isinstance(column, pa.DictionaryArray):
        texts = [*(text or "" for text in column.dictionary.to_pylist()), ""]
        return [texts[k] for k in column.indices.fill_null(len(texts) - 1).to_pylist()]
    return [value or "" for value in column.to_pylist()]


@lru_cache(maxsize=4)
def _collections(path: str, _stamp: int) -> dict[str, int]:
    few = ["collection_id", "Modality"]
    try:
        table = pq.read_table(path, columns=few, read_dictionary=few)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise _unreadable(path, error) from error
    names = table["collection_id"].combine_chunks()
    codes = names.indices.fill_null(-1).to_numpy(zero_copy_only=False)[_among(table["Modality"], ["CT"])]
    found, counts = np.unique(codes, return_counts=True)
    texts = names.dictionary.to_pylist()
    return {texts[code]: int(count) for code, count in zip(found, counts, strict=True) if code >= 0}


@lru_cache(maxsize=16)
def _megabytes(path: str, _stamp: int, collection: str) -> float | None:
    few = ["collection_id", "Modality"]
    try:
        with pq.ParquetFile(path, read_dictionary=few) as file:
            if SIZE not in file.schema_arrow.names:
                return None
            table = file.read(columns=[*few, SIZE])
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    wanted = _among(table["collection_id"], [collection]) & _among(table["Modality"], ["CT"])
    return float(np.nansum(table[SIZE].to_numpy()[wanted]))


def _file(index: str) -> tuple[str, int]:
    """The index file's path and time: the given one, else the one that is installed."""
    if index:
        path = Path(index).expanduser()
    else:
        from idc_index_data import IDC_INDEX_PARQUET_FILEPATH

        path = Path(str(IDC_INDEX_PARQUET_FILEPATH))
    try:
        return str(path), path.stat().st_mtime_ns
    except OSError as error:
        raise UserError(f"the index {path} cannot be read ({error.strerror}); name a Parquet file") from None


def _unreadable(path: str, error: Exception) -> UserError:
    return UserError(f"{path} is no index of the Imaging Data Commons ({error}); take one of idc-index-data >= 25")
