"""Which trained runs are judged together: named by their keys, refused where they do not belong together."""

import pytest

from evaluation.config import Checkpoint
from evaluation.results import checkpoint_of
from infra.errors import UserError
from infra.lake import open_lake
from training.config import ModelConfig
from training.runs import RunSeal, seal_key

BASE, OTHER, LESION = "runs/pretrain/b", "runs/pretrain/o", "runs/finetune/l"


@pytest.fixture
def lake(tmp_path):
    lake = open_lake(str(tmp_path / "lake"))
    for key, stage, base, config in (
        (BASE, "pretrain", "", {}),
        (OTHER, "pretrain", "", {}),
        (LESION, "finetune", BASE, {"task": "lesion"}),
    ):
        seal = RunSeal(
            stage=stage, run=key[-1], manifest="", config=config, model=ModelConfig(), base=base, step=1,
            checkpoint="c", sha256="", metrics={}, history=(),
        )  # fmt: skip
        lake.write(seal_key(key), seal.model_dump_json().encode())
    return lake


def test_a_pretrained_run_and_what_was_fine_tuned_from_it_are_a_checkpoint(lake):
    assert checkpoint_of(lake, [BASE]) == Checkpoint(base=BASE)
    whole = Checkpoint(base=BASE, controls={"lesion": LESION})
    assert checkpoint_of(lake, [BASE, LESION]) == whole
    assert checkpoint_of(lake, [lake.url_of(BASE), f"{lake.url_of(LESION)}/"]) == whole


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ([LESION], "runs/finetune/l is a finetune run: name the pre-trained run first"),
        ([OTHER, LESION], "was not fine-tuned from runs/pretrain/o but from runs/pretrain/b; leave it out"),
        ([BASE, OTHER], "runs/pretrain/o was not fine-tuned from runs/pretrain/b but from nothing"),
        (["runs/pretrain/none"], "runs/pretrain/none is no finished run"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(lake, keys, sentence):
    with pytest.raises(UserError, match=sentence):
        checkpoint_of(lake, keys)
