"""A whole case in the scanner's grid: all that a conversion reads, before it audits and resamples."""

from dataclasses import replace

from preprocessing.case import Case
from preprocessing.decoding.decode import decode_labels, read_companion, read_image
from preprocessing.volume import Volume


def read_volume(case: Case) -> Volume:
    """Image, labels and companions of a case."""
    volume = read_image(case)
    anatomy, lesion, findings = decode_labels(case, volume.geometry)
    return replace(
        volume,
        anatomy=anatomy,
        anatomy_kind=case.anatomy if anatomy is not None else "none",
        lesion=lesion,
        companions={name: read_companion(path, volume.geometry) for name, path in case.companions},
        findings=(*volume.findings, *findings),
    )
