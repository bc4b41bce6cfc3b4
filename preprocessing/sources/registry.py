"""The sources that meddiff knows by name; a source's module is imported only when it is asked for.

A public data set is one line here and one file beside; a collection of the Imaging Data Commons is `idc:<name>`. What
a user's release has otherwise stands in `sources.toml` of the state folder, a table a source with the fields of
`PublicSource` or `IdcSource` (the table `idc` counts for all of those); options given by hand count more.
"""

import re
import tomllib
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from infra.errors import UserError
from infra.settings import load_settings
from preprocessing.sources.base import Source, SourceInfo

if TYPE_CHECKING:
    from preprocessing.sources.dataset import Dataset
    from preprocessing.sources.idc_cases import IdcSet

OWN = {
    "folder": ("preprocessing.sources.folder", "FolderSource"),
    "phantom": ("preprocessing.sources.phantom", "PhantomSource"),
}
DATASETS = {
    "abdomenct-1k": ("preprocessing.sources.abdomenct_1k", "ABDOMENCT_1K"),
    "amos22": ("preprocessing.sources.amos22", "LABELLED"),
    "amos22-unlabelled": ("preprocessing.sources.amos22", "UNLABELLED"),
    "bmad-liver": ("preprocessing.sources.bmad_liver", "BMAD_LIVER"),
    "btcv": ("preprocessing.sources.btcv", "BTCV"),
    "chaos": ("preprocessing.sources.chaos", "CHAOS"),
    "ct-rate": ("preprocessing.sources.ct_rate", "CT_RATE"),
    "flare22": ("preprocessing.sources.flare22", "FLARE22"),
    "han-seg": ("preprocessing.sources.han_seg", "HAN_SEG"),
    "instance22": ("preprocessing.sources.instance22", "INSTANCE22"),
    "kits": ("preprocessing.sources.kits", "KITS"),
    "mayo-2016": ("preprocessing.sources.mayo_2016", "MAYO_2016"),
    "msd-colon": ("preprocessing.sources.msd", "COLON"),
    "msd-hepatic-vessel": ("preprocessing.sources.msd", "HEPATIC_VESSEL"),
    "msd-liver": ("preprocessing.sources.msd", "LIVER"),
    "msd-lung": ("preprocessing.sources.msd", "LUNG"),
    "msd-pancreas": ("preprocessing.sources.msd", "PANCREAS"),
    "msd-spleen": ("preprocessing.sources.msd", "SPLEEN"),
    "rplhr-ct": ("preprocessing.sources.rplhr_ct", "RPLHR_CT"),
    "segrap23": ("preprocessing.sources.segrap23", "SEGRAP23"),
    "segthor": ("preprocessing.sources.segthor", "SEGTHOR"),
    "structseg": ("preprocessing.sources.structseg", "STRUCTSEG"),
    "totalsegmentator": ("preprocessing.sources.totalsegmentator", "WHOLE"),
    "totalsegmentator-small": ("preprocessing.sources.totalsegmentator", "SMALL"),
    "word": ("preprocessing.sources.word", "WORD"),
}
IDC_SETS = {
    "abd-ln": ("preprocessing.sources.ct_lymph_nodes", "ABDOMEN"),
    "c4kc-kits": ("preprocessing.sources.c4kc_kits", "C4KC_KITS"),
    "fdg-pet-ct-lesions": ("preprocessing.sources.fdg_pet_ct_lesions", "FDG_PET_CT_LESIONS"),
    "ldct-and-projection-data": ("preprocessing.sources.ldct_and_projection_data", "LDCT_AND_PROJECTION_DATA"),
    "lidc-idri": ("preprocessing.sources.lidc_idri", "LIDC_IDRI"),
    "med-ln": ("preprocessing.sources.ct_lymph_nodes", "MEDIASTINUM"),
    "nlst": ("preprocessing.sources.nlst", "NLST"),
}
IDC = {"idc": ("preprocessing.sources.idc", "IdcSource"), **IDC_SETS}
SOURCES = {**OWN, **IDC, **DATASETS}
KNOWN = ", ".join([*sorted(SOURCES), "idc:<collection>"])
IDC_COLLECTION = re.compile(r"idc:[a-z0-9_]+")
OVERRIDES = "sources.toml"


def source_infos() -> list[SourceInfo]:
    """The catalogue, sorted by name."""
    return [_info(name) for name in sorted(SOURCES)]


def is_source(name: str) -> bool:
    """Whether a source can be made by this name: one of `SOURCES`, or `idc:<collection>`, whose maker knows which."""
    return name in SOURCES or IDC_COLLECTION.fullmatch(name) is not None


def dataset(name: str) -> "Dataset":
    """The facts of a public data set."""
    module, attribute = DATASETS[name]
    return getattr(import_module(module), attribute)


def idc_set(name: str) -> "IdcSet":
    """The facts of a data set of the Imaging Data Commons."""
    module, attribute = IDC_SETS[name]
    return getattr(import_module(module), attribute)


def make_source(name: str, /, **options: object) -> Source:
    """The source of this name with its own options.

    Raises:
        UserError: the name is unknown, or an option is unknown, missing or no good.
    """
    if not is_source(name):
        raise UserError(f"there is no source {name!r}; known are {KNOWN}")
    try:
        return _make(name, options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "options"
        raise UserError(f"source {name}: {where}: {first['msg']}") from None
    except TypeError as error:
        raise UserError(f"source {name}: {error}") from None


def _info(name: str) -> SourceInfo:
    if name in DATASETS:
        return dataset(name).info
    return idc_set(name).info if name in IDC_SETS else import_module(SOURCES[name][0]).INFO


def _make(name: str, options: dict[str, object]) -> Source:
    if name in DATASETS:
        from preprocessing.sources.dataset import PublicSource

        return PublicSource.model_validate({**_overrides(name), **options, "name": name})
    if name not in OWN:
        from preprocessing.sources.idc import IdcSource

        given = {**_overrides("idc"), **(_overrides(name) if name != "idc" else {}), **options}
        return IdcSource.model_validate(given | ({"name": name} if name != "idc" else {}))
    module, maker = OWN[name]
    return getattr(import_module(module), maker)(**options)


def _overrides(name: str) -> dict[str, Any]:
    """What the user's `sources.toml` says of a source.

    Raises:
        UserError: the file cannot be read.
    """
    file = load_settings().home / OVERRIDES
    try:
        return tomllib.loads(file.read_text(encoding="utf-8")).get(name, {})
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); mend or remove it") from None
