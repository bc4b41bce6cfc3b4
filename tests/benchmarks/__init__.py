"""What `meddiff bench NAME` measures: one module per benchmark, each against peers in one and the same run.

A module has `TITLE` and `run(data, quick) -> rows`: `data` is the folder of real CTs, left out where `REAL_CTS` is off;
`quick` asks for sizes so small that only the working is proved. Rows are flat and have equal keys. A new
benchmark is one file and one line here.
"""

BENCHMARKS = {
    "convert": "benchmarks.convert",
    "denoise": "benchmarks.denoise",
    "duplicates": "benchmarks.duplicates",
    "finetune": "benchmarks.finetune",
    "ingest": "benchmarks.ingest",
    "sample": "benchmarks.sample",
    "store": "benchmarks.store",
    "sweep": "benchmarks.sweep",
    "train": "benchmarks.train",
}
