"""Whether the organs lie in a patient's order along each axis: head up, spine behind, liver right.

Every pair of organ groups is one vote. Two votes against the order and none for it prove that the image (or its labels)
lies the wrong way round: such a case is refused, because it would teach wrong anatomy, and it is never turned here,
because only its source knows which of its two halves, pixels or header, is wrong. One vote is a finding.
"""

from dataclasses import dataclass
from itertools import pairwise

from preprocessing.case import CaseError
from preprocessing.regions.class_extents import LUNGS, SPINE, ClassExtents

MARGIN_MM = 10.0  # nearer to each other, two groups say nothing
LEAST_ML = 5.0
PROOF = 2
UNSORTED_VERTEBRAE = 2
RIGHT_LUNG = tuple(name for name in LUNGS if name.endswith("right"))
LEFT_LUNG = tuple(name for name in LUNGS if name.endswith("left"))
BODY = ("body", "unknown")
Group = tuple[str, tuple[str, ...]]  # how it is called, and its classes


@dataclass(frozen=True)
class Order:
    """Groups that follow each other along an axis (0 up, 1 to the back, 2 to the left), pair by pair."""

    wrong: str
    remedy: str
    axis: int
    pairs: tuple[tuple[Group, Group], ...]


HEAD = ("head", ("brain", "skull"))
CHEST = ("lungs and heart", (*LUNGS, "heart"))
HEART = ("heart", ("heart",))
TRACHEA = ("trachea", ("trachea",))
BELLY = ("liver and kidneys", ("liver", "kidney_left", "kidney_right"))
LIVER = ("liver", ("liver",))
SPLEEN = ("spleen", ("spleen",))
PELVIS = ("pelvis", ("hip_left", "hip_right", "urinary_bladder"))
BLADDER = ("bladder", ("urinary_bladder",))
COLUMN = ("spine", SPINE)
HEADER = "correct the direction in its header, or leave it out"
ORDERS = (
    Order(
        "upside down",
        HEADER,
        0,
        ((PELVIS, BELLY), (BELLY, CHEST), (CHEST, HEAD), (HEART, TRACHEA)),
    ),
    Order(
        "back to front",
        HEADER,
        1,
        (
            (HEART, COLUMN),
            (TRACHEA, COLUMN),
            (LIVER, COLUMN),
            (BLADDER, ("sacrum", ("sacrum",))),
            (("sternum", ("sternum",)), HEART),
        ),
    ),
    Order(
        "mirrored",
        f"{HEADER} (a patient with situs inversus looks the same)",
        2,
        ((LIVER, COLUMN), (COLUMN, SPLEEN), (COLUMN, HEART)),
    ),
    Order(
        "with left and right swapped in the names of paired organs",
        "swap the labels' names, or correct the direction in the image's header",
        2,
        (
            (("right lung", RIGHT_LUNG), ("left lung", LEFT_LUNG)),
            (("right kidney", ("kidney_right",)), ("left kidney", ("kidney_left",))),
            (("right hip", ("hip_right",)), ("left hip", ("hip_left",))),
            (("right clavicle", ("clavicula_right",)), ("left clavicle", ("clavicula_left",))),
        ),
    ),
)
DIRECTIONS = ("above", "behind", "left of")


def check_order(extents: ClassExtents) -> tuple[str, ...]:
    """Findings about organs that lie where they must not.

    Raises:
        CaseError: the organs prove that the image or its labels lie the wrong way round.
    """
    rising, steps = _vertebra_steps(extents)
    findings = []
    if unsorted := rising > UNSORTED_VERTEBRAE:
        findings.append(f"vertebra_order: {rising} of {steps + 1} vertebrae lie above the one before; upside down?")
    for order in ORDERS:
        against, for_ = _votes(extents, order)
        if order.axis == 0:
            against += ["the vertebrae count upwards"] if unsorted else []
            for_ += not unsorted and steps - rising > UNSORTED_VERTEBRAE
        if len(against) >= PROOF and not for_:
            raise CaseError(f"the labels show the body {order.wrong}: {', '.join(against)}; {order.remedy}.")
        if against:
            findings.append(f"organ_order: {', '.join(against)}, as in a body {order.wrong}")
    return tuple(findings)


def _votes(extents: ClassExtents, order: Order) -> tuple[list[str], int]:
    """What speaks against an order, in words, and how many pairs speak for it."""
    against, for_ = [], 0
    for first, second in order.pairs:
        near, far = (_place(extents, group, order.axis) for group in (first, second))
        if near is None or far is None or abs(far - near) < MARGIN_MM:
            continue
        if far > near:
            for_ += 1
        else:
            against.append(f"{first[0]} {DIRECTIONS[order.axis]} {second[0]}")
    return against, for_


def _place(extents: ClassExtents, group: Group, axis: int) -> float | None:
    """World mm of the middle of a group; the body's stands for the midline where no vertebra is labelled."""
    names = group[1]
    if group is COLUMN and axis == 2 and extents.volume(*names) < LEAST_ML:
        names = BODY
    return extents.quantile(0.5, *names, axis=axis) if extents.volume(*names) >= LEAST_ML else None


def _vertebra_steps(extents: ClassExtents) -> tuple[int, int]:
    """How many vertebrae lie above the labelled one that must be above them, of how many steps down the spine."""
    names = [name for name in SPINE if extents.volume(name) >= 1]
    centres = [z for z in (extents.quantile(0.5, name) for name in names) if z is not None]
    return sum(below > above for above, below in pairwise(centres)), max(0, len(centres) - 1)
