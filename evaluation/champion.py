"""The champion of a lake: who it is, whom a new checkpoint has to be measured beside, and how its place is taken.

`champion.json` says who is champion; `runs/promote/<sweep>/seal.json` what was decided after a sweep. The alias
`champion` in MLflow follows, with the reason on the model's version.
"""

import json
from collections.abc import Sequence

import pandas as pd
from pydantic import Field

from evaluation.config import Checkpoint
from evaluation.promotion import PromotionConfig, decide
from evaluation.results import SweepSeal, read_seal
from evaluation.table import from_parquet
from infra.config import Config
from infra.errors import UserError
from infra.fingerprint import fingerprint
from infra.lake import Lake
from infra.settings import Settings
from infra.tracking import promote
from preprocessing.manifest import Manifest, manifest_numbers, read_fingerprint, read_manifest
from preprocessing.recipe import Recipe
from training.runs import read_run, read_seal_as, run_exists, seal_key, take_run

FORMAT = 1
CHAMPION = "champion.json"
TRAINED_ON = ("train", "val")


class Champion(Config):
    """`champion.json`."""

    format: int = FORMAT
    checkpoint: Checkpoint
    against: Checkpoint | None = Field(None, description="the champion before it")
    sweep: str = Field(description="key of the sweep that decided")
    reason: str


class Decision(Config):
    """`seal.json` of a promotion: what was decided of a candidate."""

    format: int = FORMAT
    stage: str = "promote"
    run: str = ""
    sweep: str
    candidate: Checkpoint
    champion: Checkpoint | None = Field(None, description="who was champion before")
    promoted: bool
    reason: str

    @property
    def said(self) -> str:
        """For people."""
        became = "is champion now" if self.promoted else "does not become champion"
        return f"{self.candidate.short} {became}: {self.reason}"


def read_champion(lake: Lake) -> Champion | None:
    """The champion of a lake; None where there is none yet.

    Raises:
        UserError: it was written by a newer meddiff, or cannot be read.
    """
    try:
        data = lake.read(CHAMPION)
    except FileNotFoundError:
        return None
    place = lake.url_of(CHAMPION)
    try:
        values = json.loads(data)
        if values["format"] > FORMAT:
            raise UserError(f"{place} is of format {values['format']}; this meddiff reads up to {FORMAT}")
        return Champion.model_validate(values)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{place} cannot be read ({error}); remove it and promote again") from None


def rivals(lake: Lake, candidate: Checkpoint) -> tuple[Checkpoint, ...]:
    """Whom a candidate has to be measured beside: the champion, or for the champion itself the one before it.

    Nobody where that one's runs are no longer in the lake.
    """
    champion = read_champion(lake)
    if champion is None:
        return ()
    rival = champion.against if champion.checkpoint == candidate else champion.checkpoint
    if rival is None or rival == candidate or not _is_there(lake, rival):
        return ()
    return (rival,)


def side_by_side(lake: Lake, judged: Checkpoint, others: Sequence[Checkpoint] = ()) -> tuple[Checkpoint, ...]:
    """A checkpoint, those that are asked for beside it, and whom it has to be measured beside; each once."""
    found = [judged]
    found += [one for one in (*others, *rivals(lake, judged)) if one not in found]
    return tuple(found)


def _is_there(lake: Lake, checkpoint: Checkpoint) -> bool:
    return all(run_exists(lake, key) for key in (checkpoint.base, *checkpoint.controls.values()))


def promotion_key(sweep_key: str, config: PromotionConfig) -> str:
    """Where the decision after a sweep lies."""
    return f"runs/promote/{fingerprint([sweep_key, config.model_dump(mode='json')])}"


def promote_candidate(
    lake: Lake, recipe: Recipe, sweep_key: str, config: PromotionConfig, settings: Settings | None = None
) -> Decision:
    """Decides of the first checkpoint of a finished sweep, once, and moves the champion where it is better.

    Raises:
        UserError: the sweep is not finished, or did not measure the champion.
    """
    key = promotion_key(sweep_key, config)
    if run_exists(lake, key):
        return read_seal_as(
            Decision, lake, key, kind="promotion", if_missing="promote again", if_damaged="promote again"
        )
    decision = _decision(lake, recipe, sweep_key, config).replace(run=key.rsplit("/", 1)[-1])
    if decision.promoted:
        champion = Champion(
            checkpoint=decision.candidate, against=decision.champion, sweep=sweep_key, reason=decision.reason
        )
        for run in (sweep_key, *decision.candidate.models.values()):
            take_run(lake, run)
        lake.write(CHAMPION, champion.model_dump_json(indent=1).encode())
        move_alias(decision.candidate, decision.reason, settings)
    lake.write(seal_key(key), decision.model_dump_json(indent=1).encode())
    return decision


def _decision(lake: Lake, recipe: Recipe, sweep_key: str, config: PromotionConfig) -> Decision:
    """What is to be done after a sweep; the same again where that was done and not sealed."""
    seal, before = read_seal(lake, sweep_key), read_champion(lake)
    candidate = seal.checkpoints[0]
    if before and before.sweep == sweep_key and before.checkpoint == candidate:
        return Decision(
            sweep=sweep_key, candidate=candidate, champion=before.against, promoted=True, reason=before.reason
        )
    held = before.checkpoint if before and _is_there(lake, before.checkpoint) else None
    table = from_parquet(lake.read(f"{sweep_key}/table.parquet"))
    promoted, reason = _decided(lake, recipe, table, seal, held, config)
    return Decision(sweep=sweep_key, candidate=candidate, champion=held, promoted=promoted, reason=reason)


def _decided(
    lake: Lake, recipe: Recipe, table: pd.DataFrame, seal: SweepSeal, held: Checkpoint | None, config: PromotionConfig
) -> tuple[bool, str]:
    candidate, *others = seal.checkpoints
    if candidate == held:
        return False, "it is the champion already"
    if held and held not in others:
        raise UserError(
            f"the sweep did not measure the champion {held.short}; evaluate with "
            f"--beside {','.join([held.base, *held.controls.values()])} first"
        )
    for checkpoint in filter(None, (candidate, held)):
        if reason := overlap(lake, recipe, checkpoint, seal.manifest):
            return False, reason
    return decide(table, candidate, held, config)


def overlap(lake: Lake, recipe: Recipe, checkpoint: Checkpoint, judged_on: str) -> str:
    """Why a checkpoint cannot be judged on a version of the data: it was trained on test cases of it; "" if it can.

    Test cases are those of the version's split; patients and duplicate clusters count as one case.
    """
    versions = {read_run(lake, key).manifest for key in (checkpoint.base, *checkpoint.controls.values())}
    now = version_of(lake, recipe, judged_on)
    if now is None or now.paper_like:
        return f"the test cases of data {judged_on} may be copies of training cases: no champion is made on them"
    for version in sorted(versions - {judged_on}):
        then = version_of(lake, recipe, version)
        if then is None or then.paper_like:
            return f"whether {checkpoint.short} was trained on test cases cannot be told: data {version} are not there"
        if shared := shared_cases(then, now):
            some = ", ".join(shared[:3])
            return f"{checkpoint.short} was trained on {len(shared)} test cases or copies of them ({some})"
    return ""


def version_of(lake: Lake, recipe: Recipe, wanted: str) -> Manifest | None:
    """The manifest of a fingerprint; None where there is none of this recipe."""
    for number in sorted(manifest_numbers(lake, recipe), reverse=True):
        if recipe.split.paper_like or read_fingerprint(lake, recipe, number) == wanted:
            found = read_manifest(lake, recipe, number)
            if found.fingerprint == wanted:
                return found
    return None


def shared_cases(then: Manifest, now: Manifest) -> list[str]:
    """Test cases of one version whose patient, or a copy of which, was trained on in another."""
    trained = then.rows[(then.rows["status"] == "sealed") & then.rows["split"].isin(TRAINED_ON)]
    patients, cases = set(_pairs(trained, "patient")), set(_pairs(trained, "case"))
    known = now.rows[[pair in cases for pair in _pairs(now.rows, "case")]]
    clusters = set(known.loc[known["cluster"] != "", "cluster"])
    test = now.sealed(split="test")
    return [
        f"{row['source']} {row['case']}"
        for row in test.to_dict("records")
        if (row["source"], row["patient"]) in patients or row["cluster"] in clusters
    ]


def _pairs(rows: pd.DataFrame, column: str) -> list[tuple[str, str]]:
    return list(zip(rows["source"], rows[column], strict=True))


def move_alias(checkpoint: Checkpoint, reason: str, settings: Settings | None = None) -> None:
    """MLflow's alias `champion`, of the pre-trained model and of each ControlNet."""
    for name, key in checkpoint.models.items():
        promote(key.rsplit("/", 1)[-1], reason=reason, name=name, settings=settings)
