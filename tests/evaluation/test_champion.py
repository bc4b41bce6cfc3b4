"""The champion's place: taken once, with a reason in the lake and in MLflow, and never on data that were trained on."""

import pytest

from evaluation import champion
from evaluation.champion import (
    Champion,
    overlap,
    promote_candidate,
    promotion_key,
    read_champion,
    rivals,
    shared_cases,
    side_by_side,
)
from evaluation.config import Checkpoint
from evaluation.promotion import PromotionConfig, Rule
from evaluation.results import SweepSeal
from evaluation.table import to_parquet, validate
from infra.errors import UserError
from infra.lake import open_lake
from infra.settings import Settings
from infra.tracking import MODEL, tracked_run
from preprocessing.manifest import Manifest, ManifestRow, commit, read_manifest
from preprocessing.manifest_table import to_frame
from preprocessing.recipe import demo
from training.config import ModelConfig
from training.runs import RunSeal, seal_key

CONFIG = PromotionConfig(rules=(Rule(task="superresolution", metric="psnr"),))
ONE = Checkpoint(base=f"runs/pretrain/{'1' * 32}", controls={"superresolution": f"runs/finetune/{'a' * 32}"})
TWO = Checkpoint(base=f"runs/pretrain/{'2' * 32}", controls={"superresolution": f"runs/finetune/{'b' * 32}"})


@pytest.fixture
def lake(tmp_path):
    lake = open_lake(str(tmp_path / "lake"))
    commit_patients(lake, range(40))
    for checkpoint in (ONE, TWO):
        trained_on(lake, checkpoint, read_manifest(lake, demo()).fingerprint)
    return lake


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home", tracking_uri="")


def commit_patients(lake, numbers, **changes):
    rows = [
        ManifestRow(
            source="x", case=f"c{i}", patient=f"p{i}", status="sealed", seal=f"{i}", regions=("chest",), **changes
        )
        for i in numbers
    ]
    commit(lake, demo(), {"x": rows})


def trained_on(lake, checkpoint, fingerprint):
    for stage, key in (("pretrain", checkpoint.base), ("finetune", checkpoint.controls["superresolution"])):
        seal = RunSeal(
            stage=stage, run=key[-32:], manifest=fingerprint, config={}, model=ModelConfig(), step=1, checkpoint="c",
            sha256="", metrics={}, history=(),
        )  # fmt: skip
        lake.write(seal_key(key), seal.model_dump_json().encode())


def swept(lake, name, *checkpoints, gain=0.0):
    """A finished sweep in which each checkpoint is better than the next by a gain, give or take a tenth."""
    rows = []
    for place, checkpoint in enumerate(checkpoints):
        for i in range(8):
            value = 30 + i - (gain + 0.1 * (-1) ** i) * place
            rows.append(
                {"checkpoint": checkpoint.name, "task": "superresolution", "dataset": "x", "region": "chest",
                 "setting": "x2", "method": "ours", "case": f"c{i}", "patient": f"p{i}", "metric": "psnr", "unit": "dB",
                 "value": value}
            )  # fmt: skip
    data, key = to_parquet(validate(rows)), f"runs/evaluate/{name}"
    first, *others = checkpoints
    seal = SweepSeal(
        run=name, manifest=read_manifest(lake, demo()).fingerprint, recipe="", config={}, base=first.base,
        controls=first.controls, others=tuple(others), table="", evaluations=0,
    )  # fmt: skip
    lake.write(f"{key}/table.parquet", data)
    lake.write(seal_key(key), seal.model_dump_json().encode())
    return key


def test_the_first_becomes_champion_and_mlflow_says_why(lake, settings):
    from mlflow import MlflowClient

    with tracked_run("pretrain", "x", settings=settings) as run:
        run.log_model(lake.url_of(ONE.base))
        run.log_model(lake.url_of(ONE.controls["superresolution"]), name=f"{MODEL}-superresolution")
    key = swept(lake, "first", ONE)
    decision = promote_candidate(lake, demo(), key, CONFIG, settings)
    assert decision.promoted
    assert read_champion(lake) == Champion(checkpoint=ONE, sweep=key, reason=decision.reason)
    client = MlflowClient(settings.mlflow_uri)
    for name in (MODEL, f"{MODEL}-superresolution"):
        assert client.get_model_version_by_alias(name, "champion").tags["meddiff.champion"] == decision.reason


def test_a_better_one_takes_the_place_and_is_measured_beside_the_former_from_then_on(lake, settings):
    promote_candidate(lake, demo(), swept(lake, "first", ONE), CONFIG, settings)
    assert side_by_side(lake, TWO) == (TWO, ONE)
    decision = promote_candidate(lake, demo(), swept(lake, "second", TWO, ONE, gain=1.0), CONFIG, settings)
    assert decision.promoted
    assert decision.champion == ONE
    assert read_champion(lake).against == ONE
    assert rivals(lake, TWO) == (ONE,)
    assert rivals(lake, ONE) == (TWO,)


def test_one_that_is_no_better_leaves_the_champion_where_it_is(lake, settings):
    promote_candidate(lake, demo(), swept(lake, "first", ONE), CONFIG, settings)
    before = read_champion(lake)
    decision = promote_candidate(lake, demo(), swept(lake, "second", TWO, ONE, gain=0.0), CONFIG, settings)
    assert not decision.promoted
    assert read_champion(lake) == before
    assert "no difference beyond noise" in decision.reason


def test_a_decision_is_taken_once(lake, settings):
    key = swept(lake, "first", ONE)
    first = promote_candidate(lake, demo(), key, CONFIG, settings)
    lake.delete("champion.json")
    assert promote_candidate(lake, demo(), key, CONFIG, settings) == first
    assert read_champion(lake) is None
    assert promotion_key(key, CONFIG) != promotion_key(key, CONFIG.replace(min_patients=6))


def test_a_promotion_that_was_killed_before_its_seal_is_finished_the_same(lake, settings, monkeypatch):
    promote_candidate(lake, demo(), swept(lake, "first", ONE), CONFIG, settings)
    key = swept(lake, "second", TWO, ONE, gain=1.0)
    with monkeypatch.context() as killed:
        killed.setattr(champion, "move_alias", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            promote_candidate(lake, demo(), key, CONFIG, settings)
    moved = []
    monkeypatch.setattr(champion, "move_alias", lambda checkpoint, *_: moved.append(checkpoint))
    decision = promote_candidate(lake, demo(), key, CONFIG, settings)
    assert (decision.promoted, decision.champion) == (True, ONE)
    assert moved == [TWO]
    assert read_champion(lake).against == ONE


def test_a_sweep_without_the_champion_is_sent_back_with_the_option_that_helps(lake, settings):
    promote_candidate(lake, demo(), swept(lake, "first", ONE), CONFIG, settings)
    with pytest.raises(UserError, match=rf"--beside {ONE.base},{ONE.controls['superresolution']}"):
        promote_candidate(lake, demo(), swept(lake, "second", TWO), CONFIG, settings)


def test_a_champion_whose_runs_are_gone_is_no_rival_and_loses_its_place(lake, settings):
    promote_candidate(lake, demo(), swept(lake, "first", ONE), CONFIG, settings)
    lake.delete(seal_key(ONE.base))
    assert rivals(lake, TWO) == ()
    assert promote_candidate(lake, demo(), swept(lake, "second", TWO), CONFIG, settings).promoted


def test_one_that_was_trained_on_test_cases_of_these_data_is_refused(lake, settings):
    """In another version of the data their source declares all patients for training."""
    now = read_manifest(lake, demo())
    test, train = (now.sealed(split=split)["case"].tolist() for split in ("test", "train"))
    commit_patients(lake, range(40), declared="train")
    then = read_manifest(lake, demo())
    assert set(test) <= set(then.sealed(split="train")["case"])
    trained_on(lake, ONE, then.fingerprint)
    reason = overlap(lake, demo(), ONE, now.fingerprint)
    assert f"was trained on {len(test)} test cases or copies of them (x {test[0]}" in reason
    assert overlap(lake, demo(), TWO, now.fingerprint) == ""
    assert train


def test_a_copy_of_a_test_case_counts_as_that_case():
    """Trained on as another patient's; that it is a copy was found later."""
    copy = ManifestRow(source="y", case="copy", patient="other", status="sealed", split="train")
    test = ManifestRow(source="x", case="c1", patient="p1", status="sealed", split="test", cluster="k")
    then = Manifest(to_frame([copy]), 1)
    now = Manifest(to_frame([copy.model_copy(update={"split": "excluded", "cluster": "k"}), test]), 2)
    assert shared_cases(then, now) == ["x c1"]
    apart = Manifest(to_frame([copy, test]), 2)
    assert shared_cases(then, apart) == []


def test_data_that_are_gone_or_unchecked_make_no_champion(lake):
    trained_on(lake, ONE, "0" * 32)
    now = read_manifest(lake, demo()).fingerprint
    assert "cannot be told: data " + "0" * 32 in overlap(lake, demo(), ONE, now)
    unchecked = demo().replace(split=demo().split.replace(paper_like=True))
    data = read_manifest(lake, unchecked).fingerprint
    assert "may be copies of training cases" in overlap(lake, unchecked, TWO, data)


def test_a_newer_or_damaged_champion_is_refused_by_name(lake):
    lake.write("champion.json", b"{}")
    with pytest.raises(UserError, match=r"champion.json cannot be read"):
        read_champion(lake)
    lake.write("champion.json", b'{"format": 2, "something": "new"}')
    with pytest.raises(UserError, match="format 2"):
        read_champion(lake)
