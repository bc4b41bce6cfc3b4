"""Verbs that use a model on one's own CTs; results lie in the CT's own grid, marked as derived."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows import terminal
from flows.cli_data import LakeOption
from flows.progress import tell
from flows.session import open_session
from infra.errors import UserError
from infra.lake import open_lake
from preprocessing.case import RegionName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from training.applications.region_field import OnEvaluation
    from training.applications.scan import Scan
    from training.models import Model

InputsArgument = Annotated[
    list[Path],
    typer.Argument(metavar="INPUT… OUTPUT", help="CT files or DICOM folders; OUTPUT is a folder for several."),
]
ModelOption = Annotated[
    str,
    typer.Option("--model", help="models:/NAME@ALIAS, or a run's folder or key; default: champion, else newest."),
]
RegionOption = Annotated[
    RegionName | None, typer.Option("--region", help="What the CT shows, where it cannot be told from the image.")
]
PreviewOption = Annotated[
    bool, typer.Option("--preview/--no-preview", help="A picture of before and after beside each result.")
]
Apply = Callable[["Scan", "Model", "OnEvaluation"], tuple["NDArray[np.int16]", str]]
"""From a scan to HU on its grid, and a sentence of what was done."""


def denoise(
    paths: InputsArgument,
    model: ModelOption = "",
    region: RegionOption = None,
    sigma: Annotated[
        float | None,
        typer.Option("--sigma", min=0.01, help="Standard deviation of the noise in HU; default: estimated."),
    ] = None,
    estimate: Annotated[
        Literal["mean", "restore", "sample"],
        typer.Option(help="mean: least squared error; restore: DiffPIR, crisper; sample: one of many."),
    ] = "mean",
    steps: Annotated[int, typer.Option(min=1, help="Of restore and sample.")] = 20,
    seed: Annotated[int, typer.Option(help="Of sample.")] = 0,
    preview: PreviewOption = True,
    lake: LakeOption = "",
) -> None:
    """Remove noise from your own CTs; the model is told nothing but the region."""
    from training.applications.denoise import DenoiseConfig
    from training.applications.denoise import denoise as remove_noise

    config = DenoiseConfig(estimate=estimate, sigma_hu=sigma, steps=steps, seed=seed)

    def apply(scan: "Scan", model: "Model", on_evaluation: "OnEvaluation") -> tuple["NDArray[np.int16]", str]:
        done = remove_noise(scan, model, config, on_evaluation)
        levels = ", ".join(f"{name} {hu:.1f} HU" for name, hu in done.sigma_hu.items())
        return done.hu_zyx, f"noise {'given' if sigma else 'estimated'} as {levels}; estimate: {estimate}"

    _on_each("denoise", paths, model, region, lake, preview, apply)


def _on_each(
    verb: str, paths: Sequence[Path], reference: str, region: RegionName | None, lake: str, preview: bool, apply: Apply
) -> None:
    """Does it for every input; one that cannot be used is a sentence, and the others go on."""
    from training.models import open_model

    settings = open_session(lake)
    pairs = _inputs_and_outputs(paths)
    model = open_model(reference, settings=settings)
    if model.is_demonstration:
        terminal.err().print(f"{model.url} is a demonstration, trained in minutes: try the command, trust no result")
    failed = []
    with terminal.bars():
        for source, output in pairs:
            try:
                said = _on_one(verb, source, output, model, region, preview, apply)
            except UserError as error:
                if len(pairs) == 1:
                    raise
                failed.append(source)
                terminal.err().print(f"meddiff: {source}: {error}", markup=False)
            else:
                terminal.out().print(f"{output}: {said}", markup=False)
    if len(failed) == len(pairs):
        raise UserError(f"none of {len(pairs)} CTs could be used")


def _on_one(
    verb: str, source: Path, output: Path, model: "Model", region: RegionName | None, preview: bool, apply: Apply
) -> str:
    from preprocessing.encoding.image import Original, write_image
    from training.applications.guards import require_seen
    from training.applications.scan import find_case, prepare

    stage = f"{verb} {source.name}"
    if output.exists():
        raise UserError(f"{output} is there already; name another output or remove it")
    with tempfile.TemporaryDirectory(prefix="meddiff-apply-") as scratch:
        tell(stage, 0, 1, "reading")
        scan = prepare(find_case(source, region), model.recipe, open_lake(scratch))
        for warning in require_seen(scan, model):
            terminal.err().print(warning, markup=False)
        hu, said = apply(scan, model, lambda done, total: tell(stage, done, total + 1, "network evaluations"))
        derivation = f"MedDiff {verb}: {said}; model {model.url}"
        write_image(Original(scan.case, scan.volume), hu, output, derivation)
        if preview:
            _picture(scan, hu, output.with_name(f"{output.name}.png"), said)
    tell(stage, 1, 1, "")
    return said


def _picture(scan: "Scan", hu: "NDArray[np.int16]", path: Path, title: str) -> None:
    """Before, after and the difference, in the window of the largest region."""
    from evaluation.pictures import png, strip
    from evaluation.tasks.context import Panel, Picture
    from preprocessing.regions import WINDOWS
    from preprocessing.resample import resample_onto

    window = WINDOWS[max(scan.regions, key=lambda extent: extent.z_stop - extent.z_start).name]
    before = scan.stored.read_all("image")
    after = resample_onto(hu, scan.volume.geometry, scan.stored.geometry(0))
    panels = [
        Panel("before", before, window),
        Panel("after", after, window),
        Panel("after − before", after.astype("float32") - before, window.of_differences),
    ]
    path.write_bytes(png(strip(Picture(f"{scan.case.id}: {title}", panels))))


def _inputs_and_outputs(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Each input with its output: the last path, or a file of the input's name in it where there are several.

    Raises:
        typer.BadParameter: there is no output.
    """
    if len(paths) < 2:
        raise typer.BadParameter("give at least one CT and the output")
    *inputs, output = paths
    if len(inputs) == 1:
        return [(inputs[0], output)]
    return [(path, output / path.name) for path in inputs]


VERBS = (denoise,)
