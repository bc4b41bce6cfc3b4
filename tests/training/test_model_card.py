"""The card that a trained model carries: whose data, under which terms, for what."""

from infra.lake import open_lake
from preprocessing.manifest import Manifest, ManifestRow, commit
from preprocessing.recipe import demo
from training.config import tiny, tiny_finetune
from training.model_card import card_key, model_card
from training.runs import TrainedRun

RUN = TrainedRun(stage="pretrain", fingerprint="f" * 32, key="runs/pretrain/" + "f" * 32, metrics={"val/loss": 0.25})


def manifest(lake) -> Manifest:
    def row(source, n, licence, citation="", **changes):
        values = {"source": source, "case": f"c{n}", "patient": f"p{n}", "status": "sealed", "licence": licence}
        return ManifestRow(**values, citation=citation, input=f"{n}", key=f"k{source}{n}", seal="s", **changes)

    rows = {
        "ct-rate": [row("ct-rate", n, "CC BY-NC-SA 4.0", "Hamamci | 2024", declared="train") for n in range(3)],
        "msd-lung": [row("msd-lung", 9, "CC BY-SA 4.0", "Antonelli 2022", declared="test")],
        "amos22": [row("amos22", 4, "CC BY 4.0", declared="val").replace(status="quarantined", reason="MR")],
    }
    return commit(lake, demo(), rows)


def test_a_card_names_every_source_with_its_counts_licence_and_citation(tmp_path):
    made = manifest(open_lake(str(tmp_path)))
    card = model_card(RUN, tiny(), made)
    assert "| ct-rate | 3 | 0 | 0 | 0 | CC BY-NC-SA 4.0 | Hamamci \\| 2024 |" in card
    assert "| msd-lung | 0 | 0 | 1 | 0 | CC BY-SA 4.0 | Antonelli 2022 |" in card
    assert "amos22" not in card, "what was refused was not seen"
    assert made.fingerprint in card
    assert "| val/loss | 0.25 |" in card
    assert "must not be used for diagnosis" in card
    assert card_key(RUN.key) == f"runs/pretrain/{'f' * 32}/model_card.md"


def test_terms_are_those_of_the_data_the_model_was_trained_on(tmp_path):
    made = manifest(open_lake(str(tmp_path)))
    terms = model_card(RUN, tiny(), made).partition("## Terms")[2].partition("##")[0]
    assert "- commercial use is not allowed or not known to be: CC BY-NC-SA 4.0" in terms
    assert "shared alike: CC BY-NC-SA 4.0\n" in terms
    assert "changed copies" not in terms
    assert "license_name: 'CC BY-NC-SA 4.0'" in model_card(RUN, tiny(), made)


def test_a_fine_tuned_model_names_what_it_started_from(tmp_path):
    card = model_card(
        RUN, tiny_finetune("lesion"), manifest(open_lake(str(tmp_path))), base="runs/pretrain/" + "a" * 32
    )
    assert f"| started from | `{'a' * 32}` |" in card
