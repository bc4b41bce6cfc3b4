"""What an analyst loads from MLflow with the lines of the README is the table in the lake."""

import re
from pathlib import Path

from compare_samples import put_sweep, spread

from evaluation.publish import publish
from evaluation.results import finished_sweep
from infra.lake import open_lake
from infra.settings import Settings

README = Path(__file__).resolve().parents[2] / "evaluation" / "README.md"


def test_the_lines_of_the_readme_load_a_sweep(tmp_path, monkeypatch):
    lake = open_lake(str(tmp_path / "lake"))
    key = put_sweep(lake, "ab" * 16, spread([1.0, 2.0, 3.0]))
    done = finished_sweep(lake, key)
    assert publish(lake, done, Settings(home=tmp_path / ".meddiff", tracking_uri=""))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (snippet,) = re.findall(r"```python\n(import mlflow.*?)```", README.read_text(), re.DOTALL)
    assert len(list(filter(str.strip, snippet.splitlines()))) == 5
    import mlflow

    before, found = mlflow.get_tracking_uri(), {}
    try:
        exec(snippet, found)
    finally:
        mlflow.set_tracking_uri(before)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert found["table"].equals(done.table)
