"""What a cell measured, in the lake: `rows.parquet`, `curves.json`, `pictures/NN.npz` and, written last, `seal.json`.

Pictures are kept as volumes, not as PNG: the report cuts them as it likes. HU are rounded to whole numbers, maps to
half precision.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import TypeAdapter

from evaluation.cells import Cell, CellSeal, read_cell_seal
from evaluation.curves import Curve
from evaluation.table import from_parquet, to_parquet
from evaluation.tasks.context import Panel, Picture
from infra.errors import UserError
from infra.fingerprint import digest
from infra.lake import Lake
from preprocessing.regions import Window
from training.runs import seal_key

CURVES = TypeAdapter(list[Curve])


@dataclass(frozen=True)
class Measured:
    """What was measured: tidy rows, pictures, curves, and how many network evaluations it took."""

    table: pd.DataFrame
    pictures: Sequence[Picture] = ()
    curves: Sequence[Curve] = ()
    evaluations: int = 0


def write_cell(lake: Lake, key: str, cell: Cell, found: Measured, seconds: float) -> None:
    """Puts a measured cell into the lake; a reader sees it with its seal only."""
    data = to_parquet(found.table)
    lake.write(f"{key}/rows.parquet", data)
    lake.write(f"{key}/curves.json", CURVES.dump_json(list(found.curves)))
    for index, picture in enumerate(found.pictures):
        lake.write(_picture_key(key, index), to_npz(picture))
    seal = CellSeal(
        cell=cell,
        rows=digest(data),
        pictures=len(found.pictures),
        evaluations=found.evaluations,
        seconds=seconds,
    )
    lake.write(seal_key(key), seal.model_dump_json(indent=1).encode())


def read_cell(lake: Lake, key: str) -> Measured:
    """What a sealed cell measured.

    Raises:
        UserError: it is not sealed, or a file of it is gone or damaged.
    """
    seal = read_cell_seal(lake, key)
    try:
        data = lake.read(f"{key}/rows.parquet")
        if digest(data) != seal.rows:
            raise ValueError("its rows are not those that were sealed")
        pictures = [from_npz(lake.read(_picture_key(key, index))) for index in range(seal.pictures)]
        curves = CURVES.validate_json(lake.read(f"{key}/curves.json"))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"the cell {lake.url_of(key)} is damaged ({error}); remove it and evaluate again") from None
    return Measured(from_parquet(data), pictures, curves, seal.evaluations)


def _picture_key(key: str, index: int) -> str:
    return f"{key}/pictures/{index:02d}.npz"


def to_npz(picture: Picture) -> bytes:
    """A picture as a compressed NumPy archive; equal pictures give equal bytes."""
    about = {
        "title": picture.title,
        "centre": picture.centre_zyx,
        "z_mm": picture.z_mm,
        "panels": [[panel.caption, _window(panel)] for panel in picture.panels],
    }
    images = {f"panel{index}": _compact(panel) for index, panel in enumerate(picture.panels)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **images)  # ty: ignore[invalid-argument-type]
    return buffer.getvalue()


def _window(panel: Panel) -> list[float] | None:
    return [panel.window.width_hu, panel.window.level_hu] if panel.window else None


def _compact(panel: Panel) -> NDArray:
    if panel.window is not None:
        return np.rint(panel.image).clip(-32768, 32767).astype(np.int16)
    return np.asarray(panel.image).astype(np.float16)


def from_npz(data: bytes) -> Picture:
    """The picture that `to_npz` wrote; nothing in it is ever unpickled.

    Raises:
        ValueError: it is no such archive.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        about = json.loads(archive["about"].tobytes())
        panels = [
            Panel(caption, archive[f"panel{index}"].astype(np.float32), Window(*window) if window else None)
            for index, (caption, window) in enumerate(about["panels"])
        ]
    centre, z_mm = (tuple(about[name]) if about.get(name) else None for name in ("centre", "z_mm"))
    return Picture(about["title"], panels, centre, z_mm)
