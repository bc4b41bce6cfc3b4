"""The recipe: everything that decides the bytes of a stored case, and its split.

A change of any field is another recipe with another fingerprint and another folder in the lake. A change of code that
changes bytes must raise `version`; a golden test fails otherwise.
"""

from typing import Literal

from pydantic import Field

from infra.config import Config
from infra.fingerprint import fingerprint


class SplitRule(Config):
    """Shares of patients for train, val and test; the hash of (source, patient, salt) decides."""

    train: float = Field(0.90, ge=0, le=1)
    val: float = Field(0.05, ge=0, le=1)
    salt: str = "meddiff-1"
    paper_like: bool = Field(
        False, description="when read: nothing is excluded as a duplicate of test data, and every row is marked"
    )


class Segmenter(Config):
    """The tool that names the organs of cases without full labels, with all that decides its answer.

    Where its command and weights lie, and whether a GPU runs it, are settings of the machine.
    """

    tool: Literal["totalsegmentator"] = "totalsegmentator"
    version: str = Field("2.18.0", description="the only version that may run")
    task: Literal["total"] = Field("total", description="its 117 classes are the first 117 of ours")
    fast: bool = Field(False, description="the 3 mm model instead of the 1.5 mm ones")


class Recipe(Config):
    """Spacing, pyramid, chunks, codec and rules of a stored case. `paper` is the default of every command."""

    name: str = Field("paper", description="the preset's name; shown to people")
    version: int = Field(3, description="raised whenever the code would write other bytes for the same recipe")
    spacing_mm: float = Field(1.0, gt=0, description="isotropic spacing of level 0 in mm")
    levels: int = Field(3, ge=1, le=5, description="pyramid levels, each twice as coarse as the one before")
    thumbnail_size: int = Field(128, ge=8, description="edge in voxels of the per-region image-level cube")
    chunk: int = Field(64, ge=8, description="edge of an inner chunk in voxels")
    shard: int = Field(256, ge=8, description="edge of a shard in voxels, a multiple of chunk")
    codec: Literal["lz4-shuffle", "zstd3-shuffle"] = "lz4-shuffle"
    body_threshold_hu: int = Field(-800, description="air is the outer component below it (SPEC §2.3)")
    segmenter: Segmenter | None = Field(
        None, description="names the organs of cases without full labels; none = no tool"
    )
    split: SplitRule = SplitRule()

    @property
    def fingerprint(self) -> str:
        """32 hex characters over what decides stored bytes and splits; `paper_like` is only a way of reading them."""
        return fingerprint(self.model_dump(mode="json", exclude={"split": {"paper_like"}}))

    @property
    def stored(self) -> "Recipe":
        """The same recipe as data is written with it: without a way of reading."""
        return self.replace(split=self.split.replace(paper_like=False))


def paper() -> Recipe:
    """1, 2 and 4 mm, 128³ thumbnails, 90/5/5 by patient: the paper's data."""
    return Recipe()


def segmented() -> Recipe:
    """The paper's data with the anatomy of every case that has no full labels by TotalSegmentator."""
    return paper().replace(name="segmented", segmenter=Segmenter())


def demo() -> Recipe:
    """4, 8 and 16 mm, 32³ thumbnails, 60/15/25 by patient: two CPU cores in minutes.

    Its salt is the first, counting up, under which 24 phantoms fill every split of every region, with lesions in each.
    """
    return Recipe(
        name="demo",
        spacing_mm=4.0,
        thumbnail_size=32,
        chunk=32,
        shard=128,
        split=SplitRule(train=0.60, val=0.15, salt="meddiff-84"),
    )


def paper_like() -> Recipe:
    """The same stored data as `paper`, read as the paper must have: duplicates of test cases stay in training."""
    return Recipe(split=SplitRule(paper_like=True))


RECIPES = {"paper": paper, "segmented": segmented, "demo": demo, "paper-like": paper_like}
