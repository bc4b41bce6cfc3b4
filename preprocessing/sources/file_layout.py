r"""How a data set names its files: one pattern for images, and where the labels of an image lie and what they mean.

A layout is data, so that a user who has another release may correct it (`sources.toml` in the state folder). Patterns
are searched in the whole name; their named groups fill the other templates: `imagesTr/(?P<case>lung_\d+)\.nii\.gz$`
and `labelsTr/{case}.nii.gz`.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property

from pydantic import Field, field_validator

from infra.config import Config
from infra.errors import UserError
from preprocessing.anatomy import BODY, UNKNOWN, class_ids, class_names
from preprocessing.case import LESION, AnatomyKind, Case, DeclaredSplit, LabelFile, RegionName
from preprocessing.sources.files import Files

ORGANS = 117


class LabelRule(Config):
    """A label file of an image: the end of its name, and what its values mean.

    `classes` gives each value the names of its classes, joined by `+`: `{1: "liver", 2: "lesion+liver"}`; a structure
    that is none of the classes is `unknown`. `binary` takes every value above 0 for 1.
    """

    path: str
    classes: dict[int, str]
    binary: bool = False

    @field_validator("classes")
    @classmethod
    def _known_names(cls, classes: dict[int, str]) -> dict[int, str]:
        for names in classes.values():
            for name in names.split("+"):
                if name != "lesion" and name not in class_ids():
                    raise ValueError(f"{name!r} is no class of classes.csv, nor lesion, nor unknown")
        return classes

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(value, class id) as a label file of a case has them."""
        ids = class_ids() | {"lesion": LESION}
        return tuple((value, ids[name]) for value, names in self.classes.items() for name in names.split("+"))


class FileLayout(Config):
    """One image pattern with templates for what belongs to the image.

    An image that matches one of `refused` (pattern, reason) is listed with that problem. Where `part` is a group of the
    image's pattern, `splits` gives the data set's own split by its text, and `labelled` the parts that should have
    labels (empty: all): there an image without any is listed with a note.
    """

    image: str
    case: str = "{case}"
    patient: str = "{case}"
    labels: tuple[LabelRule, ...] = ()
    companions: tuple[tuple[str, str], ...] = Field((), description="(name, end of the file's name)")
    regions: tuple[RegionName, ...] = ()
    splits: dict[str, DeclaredSplit] = Field(default_factory=dict)
    labelled: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()

    @field_validator("image")
    @classmethod
    def _is_pattern(cls, image: str) -> str:
        try:
            groups = re.compile(image).groupindex
        except re.error as error:
            raise ValueError(f"{image!r} is no regular expression: {error}") from None
        if not groups:
            raise ValueError(f"{image!r} names no group; give at least (?P<case>…)")
        return image


def masks(path: str, names: Iterable[str] = ()) -> tuple[LabelRule, ...]:
    """One rule a class for masks named after classes: `path` holds `{name}`; all 117 organs where none are given."""
    organs = names or (class_names()[id_] for id_ in range(1, BODY))
    return tuple(LabelRule(path=path.replace("{name}", name), classes={1: name}, binary=True) for name in organs)


def cases_by_layout(files: Files, layout: FileLayout, source: str) -> Iterator[Case]:
    """Every image of the layout as a case with its labels; in the order of names.

    Raises:
        UserError: a template names a group that the image's pattern does not have.
    """
    refused = [(re.compile(pattern), reason) for pattern, reason in layout.refused]
    for match in files.matching(re.compile(layout.image)):
        name, groups = match.string, {key: value or "" for key, value in match.groupdict().items()}
        try:
            yield _case(files, layout, source, name, groups, [why for p, why in refused if p.search(name)])
        except KeyError as error:
            raise UserError(
                f"source {source}: a template of its layout names {{{error.args[0]}}}, which is no group of "
                f"{layout.image!r}; correct it in sources.toml"
            ) from None


def _case(files: Files, layout: FileLayout, source: str, name: str, groups: dict[str, str], refused: list[str]) -> Case:
    found = [(rule, files.ending(rule.path.format(**groups), near=name)) for rule in layout.labels]
    labels = tuple(
        LabelFile(path=path, classes=rule.pairs, binary=rule.binary) for rule, path in found if path is not None
    )
    part = groups.get("part", "")
    missing = layout.labels and not labels and (not layout.labelled or part in layout.labelled)
    others = [(kind, files.ending(tail.format(**groups), near=name)) for kind, tail in layout.companions]
    return Case(
        source=source,
        id=layout.case.format(**groups),
        patient=layout.patient.format(**groups),
        image=(name,),
        labels=labels,
        anatomy=anatomy_kind(labels),
        companions=tuple((kind, path) for kind, path in others if path is not None),
        declared_regions=layout.regions,
        split=layout.splits.get(part, ""),
        notes=("no label file of this image was found",) if missing else (),
        problem=refused[0] if refused else "",
    )


def anatomy_kind(labels: Iterable[LabelFile]) -> AnatomyKind:
    """How much of the anatomy label files name: all 117 organs, some, or none."""
    organs = {id_ for label in labels for _, id_ in label.classes} - {LESION, UNKNOWN, BODY}
    return "full" if len(organs) == ORGANS else "partial" if organs else "none"
