"""Verbs that use a model on one's own CTs; results lie in the CT's own grid, marked as derived."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from flows import terminal
from flows.cli_data import LakeOption
from flows.progress import tell
from flows.session import open_session
from infra.errors import UserError
from preprocessing.case import RegionName
from preprocessing.geometry import Geometry
from training.config import Profile

if TYPE_CHECKING:
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
RadiusOption = Annotated[float, typer.Option("--radius", min=0.5, help="Of a lesion in an organ, in mm.")]
GuidanceOption = Annotated[
    float, typer.Option("--guidance", min=0, help="Above 1: closer to map and region, at twice the time.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace a result that is there already.")]
ScanArgument = Annotated[Path, typer.Argument(metavar="INPUT", help="A CT file, or the folder of one DICOM series.")]
OutputArgument = Annotated[
    Path, typer.Argument(metavar="OUTPUT", help=".nii.gz, .nrrd, .mha; no ending for a DICOM series.")
]


class Outcome(NamedTuple):
    """What came of a scan: an array (int16 HU, or a float map of it), and a sentence of what was done.

    It lies on the scan's grid unless it has a `geometry` of its own.
    """

    array: "NDArray"
    said: str
    geometry: Geometry | None = None

    @property
    def is_map(self) -> bool:
        """Whether the array is no image."""
        return self.array.dtype.kind == "f"


Apply = Callable[["Scan", "Model", "OnEvaluation"], Outcome]


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
    overwrite: OverwriteOption = False,
    lake: LakeOption = "",
) -> None:
    """Remove noise from your own CTs; the model is told nothing but the region."""
    from training.applications.denoise import DenoiseConfig
    from training.applications.denoise import denoise as remove_noise

    config = DenoiseConfig(estimate=estimate, sigma_hu=sigma, steps=steps, seed=seed)

    def apply(scan: "Scan", model: "Model", on_evaluation: "OnEvaluation") -> Outcome:
        done = remove_noise(scan, model, config, on_evaluation)
        levels = ", ".join(f"{name} {hu:.1f} HU" for name, hu in done.sigma_hu.items())
        return Outcome(done.hu_zyx, f"noise {'given' if sigma else 'estimated'} as {levels}; estimate: {estimate}")

    _on_each("denoise", _inputs_and_outputs(paths), Options(model, "", region, lake, preview, overwrite), apply)


def detect(
    scan: ScanArgument,
    output: OutputArgument,
    mask: Annotated[Path, typer.Option("--mask", help="The organ, healthy and ill, on the CT's own grid.")],
    model: ModelOption = "",
    region: RegionOption = None,
    noise_t: Annotated[int, typer.Option(min=1, max=999, help="t to which the organ is noised.")] = 950,
    steps: Annotated[int, typer.Option(min=1, help="Of each reconstruction.")] = 50,
    repeats: Annotated[int, typer.Option(min=1, help="Reconstructions that are averaged.")] = 4,
    segmentation: Annotated[
        Path | None, typer.Option(help="Also a mask of what is above --threshold: a file, or .dcm for a DICOM SEG.")
    ] = None,
    threshold: Annotated[float, typer.Option(min=0, help="In HU of the map, of --segmentation.")] = 40.0,
    seed: Annotated[int, typer.Option()] = 0,
    preview: PreviewOption = True,
    overwrite: OverwriteOption = False,
    lake: LakeOption = "",
) -> None:
    """Map what in an organ of your own CT is not as the model would draw it, in HU; needs no training on lesions."""
    from training.applications.detect import DetectConfig
    from training.applications.detect import detect as find_anomalies
    from training.applications.mask import read_mask
    from training.applications.scan import find_case, require_result, write_masks

    if segmentation:
        require_result(find_case(scan), segmentation, overwrite=overwrite, masks=True)
    config = DetectConfig(noise_t=noise_t, steps=steps, repeats=repeats, seed=seed)

    def apply(scan: "Scan", model: "Model", on_evaluation: "OnEvaluation") -> Outcome:
        found = find_anomalies(scan, read_mask(scan, mask), model, config, on_evaluation)
        if segmentation:
            write_masks(scan, {"lesion": found.map_zyx > threshold}, segmentation, overwrite=overwrite)
        return Outcome(
            found.map_zyx, f"score {found.score_hu:.0f} HU ({config.percentile:g}th percentile in {mask.name})"
        )

    _on_each("detect", [(scan, output)], Options(model, "", region, lake, preview, overwrite), apply)


def inpaint(
    scan: ScanArgument,
    output: OutputArgument,
    mask: Annotated[
        Path | None, typer.Option("--mask", help="Where the lesion is to be, on the CT's own grid.")
    ] = None,
    organ: Annotated[
        str,
        typer.Option("--organ", help="Or somewhere in an organ that labels of the CT name."),
    ] = "",
    radius: RadiusOption = 8.0,
    model: ModelOption = "",
    region: RegionOption = None,
    steps: Annotated[int, typer.Option(min=1, help="Noise levels of the walk.")] = 100,
    guidance: GuidanceOption = 1.0,
    seed: Annotated[int, typer.Option(help="Another seed, another lesion, and with --organ another place.")] = 0,
    preview: PreviewOption = True,
    overwrite: OverwriteOption = False,
    lake: LakeOption = "",
) -> None:
    """Draw a lesion into your own CT where a mask says or in an organ; all other voxels stay as they are."""
    from training.applications.inpaint import InpaintConfig
    from training.applications.inpaint import inpaint as draw_lesion
    from training.applications.lesion_site import lesion_in_scan
    from training.applications.mask import read_mask

    require_one_place(organ, mask)
    config = InpaintConfig(steps=steps, guidance=guidance, seed=seed)

    def apply(scan: "Scan", model: "Model", on_evaluation: "OnEvaluation") -> Outcome:
        place = read_mask(scan, mask) if mask else lesion_in_scan(scan, organ, radius, seed)
        done = draw_lesion(scan, place, model, config, on_evaluation)
        where = mask.name if mask else f"the {organ}, {radius:g} mm in radius"
        return Outcome(done.hu_zyx, f"a lesion was drawn in {where}, {int(done.zone_zyx.sum())} voxels were unknown")

    _on_each("inpaint", [(scan, output)], Options(model, "lesion", region, lake, preview, overwrite), apply)


def superresolve(
    scan: ScanArgument,
    output: OutputArgument,
    model: ModelOption = "",
    region: RegionOption = None,
    factor: Annotated[
        int | None, typer.Option(min=2, help="Slices for one; default: to the model's spacing, as near as can be.")
    ] = None,
    profile: Annotated[
        Profile, typer.Option(help="How the thick slices came about: a plain mean, or a Gaussian as on many scanners.")
    ] = "mean",
    steps: Annotated[int, typer.Option(min=1, help="Noise levels.")] = 100,
    seed: Annotated[int, typer.Option(help="Another seed, other details.")] = 0,
    preview: PreviewOption = True,
    overwrite: OverwriteOption = False,
    lake: LakeOption = "",
) -> None:
    """Thinner slices for your own CT, two or more for one."""
    from training.applications.superresolve import SuperresolveConfig
    from training.applications.superresolve import superresolve as draw_slices

    config = SuperresolveConfig(factor=factor, profile=profile, steps=steps, seed=seed)

    def apply(scan: "Scan", model: "Model", on_evaluation: "OnEvaluation") -> Outcome:
        done = draw_slices(scan, model, config, on_evaluation)
        said = f"slices of {done.geometry.spacing_mm[0]:.3g} mm drawn, {done.factor} for one"
        if done.factor != model.factor:
            said += f" by a network that learnt {model.factor} for one: look twice"
        return Outcome(done.hu_zyx, said, done.geometry)

    _on_each(
        "superresolve", [(scan, output)], Options(model, "superresolution", region, lake, preview, overwrite), apply
    )


def require_one_place(organ: str, mask: Path | None) -> None:
    """Refuses a lesion without a place, or with two.

    Raises:
        typer.BadParameter: neither organ nor mask is given, or both.
    """
    if bool(organ) == bool(mask):
        raise typer.BadParameter("say where the lesion is to be: either --organ or --mask")


class Options(NamedTuple):
    """What all verbs have in common; `task` is the fine-tuning that the model must be of."""

    model: str
    task: str
    region: RegionName | None
    lake: str
    preview: bool
    overwrite: bool


def _on_each(verb: str, pairs: Sequence[tuple[Path, Path]], options: Options, apply: Apply) -> None:
    """Does it for every input; one that cannot be used is a sentence, and the others go on."""
    model, failed = opened(options), []
    with terminal.bars():
        for source, output in pairs:
            try:
                said = _on_one(verb, source, output, model, options, apply)
            except UserError as error:
                if len(pairs) == 1:
                    raise
                failed.append(source)
                terminal.err().print(f"meddiff: {source}: {error}", markup=False)
            else:
                terminal.out().print(f"{output}: {said}", markup=False)
    if len(failed) == len(pairs):
        raise UserError(f"none of {len(pairs)} CTs could be used")


def opened(options: Options) -> "Model":
    """The model that is asked for, with a warning where it is a demonstration."""
    from training.models import open_model

    model = open_model(options.model, task=options.task, settings=open_session(options.lake))
    if model.is_demonstration:
        terminal.err().print(f"{model.url} is a demonstration, trained in minutes: try the command, trust no result")
    return model


def _on_one(verb: str, source: Path, output: Path, model: "Model", options: Options, apply: Apply) -> str:
    from training.applications.guards import require_seen
    from training.applications.scan import find_case, open_scan, require_result, write_result

    stage = f"{verb} {source.name}"
    case = find_case(source, options.region)
    require_result(case, output, overwrite=options.overwrite)
    tell(stage, 0, 1, "reading")
    with open_scan(case, model.recipe) as scan:
        for warning in require_seen(scan, model):
            terminal.err().print(warning, markup=False)
        done = apply(scan, model, lambda n, total: tell(stage, n, total + 1, "network evaluations"))
        derivation = f"{verb}: {done.said}; model {model.url}"
        overwrite = options.overwrite
        findings = write_result(scan, done.array, output, derivation, geometry=done.geometry, overwrite=overwrite)
        for finding in findings:
            terminal.err().print(f"{output}: {finding}", markup=False)
        if options.preview:
            _picture(scan, done, output.with_name(f"{output.name}.png"))
    tell(stage, 1, 1, "")
    return done.said


def _picture(scan: "Scan", done: Outcome, path: Path) -> None:
    """Before and after, or image and map, on the model's grid, in the window of the largest region."""
    from evaluation.pictures import centre_of_interest, png, strip
    from evaluation.tasks.context import Panel, Picture
    from preprocessing.regions import WINDOWS
    from training.applications.scan import onto

    window = WINDOWS[max(scan.regions, key=lambda extent: extent.z_stop - extent.z_start).name]
    before = scan.stored.read_all("image")
    result = onto(done.array, done.geometry or scan.volume.geometry, scan.stored.geometry(0))
    if done.is_map:
        panels, shown = [Panel("image", before, window), Panel("anomaly map, HU", result)], result
    else:
        shown = result - before
        panels = [
            Panel("before", before, window),
            Panel("after", result, window),
            Panel("after − before", shown, window.of_differences),
        ]
    path.write_bytes(png(strip(Picture(f"{scan.case.id}: {done.said}", panels, centre_of_interest(shown)))))


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
    return [(path, output / (path.name.replace(".", "_") if path.is_dir() else path.name)) for path in inputs]


VERBS = (denoise, detect, superresolve, inpaint)
