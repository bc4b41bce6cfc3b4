"""The model card: what a trained model is, whose data it has seen under which terms, and what it is for.

A card is Markdown with a YAML head as model hubs read it (Mitchell et al., Model Cards for Model Reporting, 2019,
10.1145/3287560.3287596). It lies beside the run's seal and goes to MLflow with it.
"""

from collections.abc import Sequence

import pandas as pd

from preprocessing.licences import terms
from preprocessing.manifest import Manifest
from training.config import SegmenterConfig, TrainedConfig
from training.runs import TrainedRun

SPLITS = ("train", "val", "test", "excluded")
READS = (
    "Research on CT: reading images that a model draws, to see whether they show the organs and lesions that were "
    "asked for. It is no medical device and must not be used for diagnosis, treatment, or contours on patients."
)
PURPOSE = (
    "Research on CT: denoising, anomaly detection, synthesis, super-resolution, and drawing or removing lesions. What "
    "it draws is made up: it is no evidence of anything in a patient. It is no medical device and must not be used for "
    "diagnosis or treatment."
)


def card_key(run_key: str) -> str:
    """Where the card of a run lies in the lake."""
    return f"{run_key}/model_card.md"


def model_card(run: TrainedRun, config: TrainedConfig, manifest: Manifest, base: str = "") -> str:
    """The card of a finished run over the cases that its manifest gave it; `base` is the run that it started from."""
    seen = manifest.sealed()
    licences = sorted(set(seen.loc[seen["split"].isin(["train", "val"]), "licence"]))
    parts = [
        _head(licences),
        f"# MedDiff {run.stage} · {config.preset}",
        _facts(run, config, manifest, base),
        "## What it is for\n\n" + (READS if isinstance(config, SegmenterConfig) else PURPOSE),
        "## Data\n\nPatients of `test` and `excluded` were not shown to the model.\n\n" + _sources(seen),
        "## Terms of the data\n\n" + _obligations(licences),
        "## Measured at the end of training\n\n" + _metrics(run),
    ]
    return "\n\n".join(parts) + "\n"


def _head(licences: Sequence[str]) -> str:
    own = licences[0] if len(licences) == 1 else "other"
    return f"---\nlibrary_name: meddiff\nlicense_name: {own!r}\ntags: [CT, 3d, diffusion, medical]\n---"


def _facts(run: TrainedRun, config: TrainedConfig, manifest: Manifest, base: str) -> str:
    facts = {
        "run": run.fingerprint,
        "data version": f"{manifest.fingerprint} (manifest {manifest.number})",
        "config": config.fingerprint,
        "iterations": config.train.iterations,
        "seed": config.train.seed,
    }
    if base:
        facts["started from"] = base.rpartition("/")[2]
    if manifest.paper_like:
        facts["split"] = "paper-like: training may have seen copies of test cases"
    return _table(("", ""), [(name, f"`{value}`") for name, value in facts.items()])


def _sources(seen: pd.DataFrame) -> str:
    lines = []
    for source, rows in seen.groupby("source"):
        counts = [str(int((rows["split"] == split).sum())) for split in SPLITS]
        citations = sorted(filter(None, set(rows["citation"])))
        lines.append((str(source), *counts, ", ".join(sorted(set(rows["licence"]))), "; ".join(citations)))
    return _table(("source", *SPLITS, "licence", "citation"), lines)


def _obligations(licences: Sequence[str]) -> str:
    """What the licences of the training data ask of whoever passes the weights on, one line a rule that applies."""
    allowed = {licence: terms(licence) for licence in licences}
    rules = {
        "commercial use is not allowed or not known to be": [n for n, t in allowed.items() if not t.commercial],
        "changed copies of the data may not be published": [n for n, t in allowed.items() if not t.derivatives],
        "adapted material must be shared alike": [n for n in licences if "-SA" in n.upper()],
        "the source must be named": [n for n in licences if n.upper().startswith(("CC BY", "CC-BY"))],
    }
    lines = [f"- {rule}: {', '.join(names)}" for rule, names in rules.items() if names]
    return "\n".join(lines) or "- no data set asks for anything"


def _metrics(run: TrainedRun) -> str:
    return _table(("metric", "value"), [(name, f"{value:.5g}") for name, value in sorted(run.metrics.items())])


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
