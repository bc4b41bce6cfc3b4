"""How a stored case lies on disk: OME-Zarr 0.5 metadata, chunk and shard shapes, object names.

Plain functions from shapes and geometry to JSON; nothing here reads or writes. Axes are z, y, x in millimetres with
RFC-4 orientation; a level's translation is the LPS world position of the centre of its voxel 0, 0, 0, so it moves by
half a voxel with every halving. What OME-Zarr has no word for lies beside `ome`, in `meddiff`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.anatomy import class_names
from preprocessing.case import RegionName
from preprocessing.geometry import Geometry
from preprocessing.recipe import Recipe

Shape = tuple[int, ...]
OME_VERSION = "0.5"
OWN_KEY = "meddiff"
ORIENTATION = {"z": "inferior-to-superior", "y": "anterior-to-posterior", "x": "right-to-left"}
LABEL_NAMES = ("anatomy", "lesion")
FILL = {"image": -1024, "anatomy": 0, "lesion": 0}


@dataclass(frozen=True)
class Pyramid:
    """Everything of a case that is written: levels finest first, companions at level 0, one thumbnail set a region.

    `image` int16 HU, `anatomy` uint8 0-119, `lesion` uint8 0/1; level k is `image[0]` halved k times along each axis.
    """

    geometry: Geometry
    image: tuple[NDArray[np.int16], ...]
    anatomy: tuple[NDArray[np.uint8], ...]
    lesion: tuple[NDArray[np.uint8], ...] | None = None
    companions: dict[str, NDArray[np.int16]] = field(default_factory=dict)
    thumbnails: dict[RegionName, dict[str, NDArray]] = field(default_factory=dict)


def level_geometry(geometry: Geometry, level: int, shape: Shape) -> Geometry:
    """The geometry of level `level` of a pyramid whose level 0 has `geometry`."""
    factor = 2**level
    spacing = np.asarray(geometry.spacing_mm)
    origin = geometry.world(np.full(3, (factor - 1) / 2))
    return replace(
        geometry,
        shape=tuple(shape),
        spacing_mm=tuple((spacing * factor).tolist()),
        origin_mm=tuple(origin.tolist()),
    )


def multiscale(name: str, geometry: Geometry, shapes: Sequence[Shape]) -> dict[str, Any]:
    """One entry of OME-Zarr's `multiscales` for levels of these shapes, finest first.

    Raises:
        ValueError: the geometry is not axis-aligned LPS, which OME-Zarr 0.5 cannot say.
    """
    if not geometry.is_axis_aligned:
        raise ValueError(f"only axis-aligned volumes are stored, not {geometry.direction}")
    levels = [level_geometry(geometry, level, shape) for level, shape in enumerate(shapes)]
    return {
        "name": name,
        "type": "mean" if name not in LABEL_NAMES else "mode",
        "axes": [_axis(axis) for axis in "zyx"],
        "datasets": [
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": list(at.spacing_mm)},
                    {"type": "translation", "translation": list(at.origin_mm)},
                ],
            }
            for level, at in enumerate(levels)
        ],
    }


def _axis(name: str) -> dict[str, Any]:
    orientation = {"type": "anatomical", "value": ORIENTATION[name]}
    return {"name": name, "type": "space", "unit": "millimeter", "orientation": orientation}


def image_attributes(name: str, geometry: Geometry, shapes: Sequence[Shape], own: dict | None = None) -> dict:
    """Attributes of an image group; `own` becomes the sibling attribute `meddiff`."""
    ome = {"version": OME_VERSION, "multiscales": [multiscale(name, geometry, shapes)]}
    return {"ome": ome} | ({OWN_KEY: own} if own is not None else {})


def labels_attributes(names: Sequence[str]) -> dict:
    """Attributes of the `labels` group."""
    return {"ome": {"version": OME_VERSION, "labels": list(names)}}


def label_attributes(name: str, geometry: Geometry, shapes: Sequence[Shape]) -> dict:
    """Attributes of one label image, with the name of every value."""
    names = class_names() if name == "anatomy" else {1: "lesion"}
    properties = [{"label-value": value, "name": text} for value, text in sorted(names.items())]
    attributes = image_attributes(name, geometry, shapes)
    attributes["ome"]["image-label"] = {"properties": properties, "source": {"image": "../../"}}
    return attributes


def members(attributes: dict) -> list[str]:
    """The paths of the groups and arrays, relative to a group, that its attributes promise."""
    ome, own = attributes.get("ome", {}), attributes.get(OWN_KEY)
    parts = [dataset["path"] for scale in ome.get("multiscales", ()) for dataset in scale["datasets"]]
    parts += ome.get("labels", ())
    if own is not None:
        parts += ["labels", *(f"companions/{name}" for name in own["companions"])]
        parts += [f"thumbnails/{region['name']}/{name}" for region in own["regions"] for name in ("image", "anatomy")]
    return parts


def level_geometries(attributes: dict, shapes: Sequence[Shape]) -> list[Geometry]:
    """The geometries that `image_attributes` wrote, finest first."""
    geometries = []
    for dataset, shape in zip(attributes["ome"]["multiscales"][0]["datasets"], shapes, strict=True):
        scale, translation = dataset["coordinateTransformations"]
        depth, height, width = shape
        geometries.append(Geometry((depth, height, width), tuple(scale["scale"]), tuple(translation["translation"])))
    return geometries


def chunk_and_shard(shape: Shape, recipe: Recipe) -> tuple[Shape, Shape]:
    """Inner chunk and shard edges for an array: the recipe's, clipped where the array is smaller.

    The shards along an axis are as few as the recipe's edge allows and equally long, so that hardly a chunk lies
    outside the array.
    """
    chunk = tuple(min(recipe.chunk, n) for n in shape)
    counts = [ceil(n / c) for n, c in zip(shape, chunk, strict=True)]
    shards = [ceil(count / max(1, recipe.shard // c)) for count, c in zip(counts, chunk, strict=True)]
    return chunk, tuple(c * ceil(n / s) for c, n, s in zip(chunk, counts, shards, strict=True))


def object_keys(shape: Shape, shard: Shape) -> list[str]:
    """The names of all shards of an array, relative to the array."""
    return list(chunks_per_object(shape, shard, shard))


def chunks_per_object(shape: Shape, chunk: Shape, shard: Shape) -> dict[str, int]:
    """The names of all shards of an array, relative to it, and how many chunks of each hold voxels."""
    along = [
        [ceil(min(s, n - start) / c) for start in range(0, n, s)] for n, c, s in zip(shape, chunk, shard, strict=True)
    ]
    places = product(*(range(len(counts)) for counts in along))
    return {
        "/".join(("c", *map(str, place))): prod(counts[i] for counts, i in zip(along, place, strict=True))
        for place in places
    }


def array_path(name: str, level: int) -> str:
    """Where an array lies under the case's group: `image`, a label or a companion at a level."""
    if name == "image":
        return str(level)
    return f"labels/{name}/{level}" if name in LABEL_NAMES else f"companions/{name}/{level}"


def group_document(attributes: dict) -> bytes:
    """`zarr.json` of a group, the same bytes for the same attributes."""
    document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(document, indent=1, allow_nan=False).encode()
