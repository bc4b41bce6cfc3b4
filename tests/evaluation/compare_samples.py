"""Small sweeps in a lake, for the tests of what compares them."""

from evaluation.results import SweepSeal
from evaluation.table import to_parquet, validate
from infra.fingerprint import digest


def row(value, method="ours-mean", patient="P1", **more):
    base = {"task": "denoising", "dataset": "phantom", "region": "chest", "setting": "sigma=0.15", "metric": "psnr"}
    return base | {"unit": "dB", "method": method, "patient": patient, "case": patient, "value": value} | more


def spread(values, method="ours-mean", **more):
    """One row per patient."""
    return [row(value, method, f"P{index}", **more) for index, value in enumerate(values)]


def put_sweep(lake, fingerprint, rows, *, manifest="d" * 32, base="runs/pretrain/aa", **config):
    """A finished sweep in the lake; its key."""
    key, data = f"runs/evaluate/{fingerprint}", to_parquet(validate(rows))
    seal = SweepSeal(run=fingerprint, manifest=manifest, recipe="r" * 32, config={"preset": "tiny"} | config,
                     base=base, controls={}, table=digest(data), evaluations=7)  # fmt: skip
    lake.write(f"{key}/table.parquet", data)
    lake.write(f"{key}/report.html", b"<p>report</p>")
    lake.write(f"{key}/seal.json", seal.model_dump_json().encode())
    return key
