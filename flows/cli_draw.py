"""Verbs that draw CTs which nobody has, from a map of their anatomy; what they write says that it is synthetic."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows import terminal
from flows.cli_apply import (
    GuidanceOption,
    ModelOption,
    Options,
    OutputArgument,
    OverwriteOption,
    RadiusOption,
    opened,
    require_one_place,
)
from flows.cli_data import LakeOption
from flows.progress import tell
from infra.errors import UserError
from preprocessing.case import RegionName
from training.config import SamplerName

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.applications.anatomy_map import AnatomyMap
    from training.applications.synthesize import SynthesizeConfig

MapArgument = Annotated[
    Path, typer.Argument(metavar="MAP", help="A file of class ids: TotalSegmentator's 1-117, 118 = rest of the body.")
]
StepsOption = Annotated[int, typer.Option(min=1, help="Noise levels; more is slower and finer.")]
SamplerOption = Annotated[
    SamplerName, typer.Option("--sampler", help="dpm-solver++ and ddim: few steps do; ddpm: wants hundreds.")
]
DrawnRegionOption = Annotated[RegionName, typer.Option("--region", help="What the map shows.")]


def synthesize(
    anatomy: MapArgument,
    output: OutputArgument,
    region: DrawnRegionOption,
    model: ModelOption = "",
    steps: StepsOption = 20,
    sampler: SamplerOption = "dpm-solver++",
    guidance: GuidanceOption = 1.0,
    level: Annotated[
        Literal["patch", "image"], typer.Option(help="image: a quick look, the whole map as one patch.")
    ] = "patch",
    seed: Annotated[int, typer.Option(help="Another seed, another person of this anatomy.")] = 0,
    overwrite: OverwriteOption = False,
    lake: LakeOption = "",
) -> None:
    """Draw a CT that nobody has, from a map of its anatomy."""
    from training.applications.synthesize import SynthesizeConfig

    _draw(
        "synthesize",
        anatomy,
        output,
        Options(model, "", region, lake, True, overwrite),
        SynthesizeConfig(steps=steps, sampler=sampler, guidance=guidance, level=level, seed=seed),
    )


def generate_lesion(
    anatomy: MapArgument,
    output: OutputArgument,
    region: DrawnRegionOption,
    organ: Annotated[
        str,
        typer.Option(
            "--organ", help="Where the lesion lies: a class, lung, mediastinal_lymph_node or abdominal_lymph_node."
        ),
    ] = "",
    mask: Annotated[
        Path | None, typer.Option("--mask", help="The lesion itself, in the map's frame, instead of --organ.")
    ] = None,
    radius: RadiusOption = 8.0,
    model: ModelOption = "",
    steps: StepsOption = 20,
    sampler: SamplerOption = "dpm-solver++",
    guidance: GuidanceOption = 1.0,
    seed: Annotated[int, typer.Option(help="Decides the place in the organ and the image.")] = 0,
    overwrite: OverwriteOption = False,
    lake: LakeOption = "",
) -> None:
    """Draw a CT with a lesion where you say or somewhere in an organ, and its mask as OUTPUT's name with `_lesion`."""
    from training.applications.lesion_site import lesion_within, read_lesion
    from training.applications.synthesize import SynthesizeConfig

    require_one_place(organ, mask)

    def lesion(given: "AnatomyMap") -> "NDArray":
        return read_lesion(given, mask) if mask else lesion_within(given, organ, radius, seed)

    config = SynthesizeConfig(steps=steps, sampler=sampler, guidance=guidance, seed=seed)
    _draw(
        "generate-lesion",
        anatomy,
        output,
        Options(model, "lesion", region, lake, True, overwrite),
        config,
        lesion,
    )


def _draw(
    verb: str,
    anatomy: Path,
    output: Path,
    options: Options,
    config: "SynthesizeConfig",
    lesion: Callable[["AnatomyMap"], "NDArray"] | None = None,
) -> None:
    """A CT of a map in a file, a picture of it, and the mask of the lesion."""
    from evaluation.pictures import centre_of_interest, png, strip
    from evaluation.tasks.context import Panel, Picture
    from preprocessing.encoding.write import write_image, write_mask
    from preprocessing.regions import WINDOWS
    from preprocessing.resample import resample_onto
    from training.applications.anatomy_map import read_map
    from training.applications.scan import require_result
    from training.applications.synthesize import synthesize as draw

    for path in (output, *([lesion_path(output)] if lesion else [])):
        require_result(None, path, overwrite=options.overwrite)
    model = opened(options)
    assert options.region is not None
    if options.region not in model.seal.seen:
        raise UserError(f"this model has never seen a {options.region}; it knows {', '.join(model.seal.seen)}")
    given = read_map(anatomy, options.region, model.recipe.spacing_mm)
    mask = lesion(given) if lesion else None
    with terminal.bars():
        drawn = draw(given, model, config, lambda n, total: tell(verb, n, total, "network evaluations"), mask)
    derivation = f"synthetic, {verb} from {anatomy.name}; model {model.url}"
    grid, overwrite = drawn.geometry, options.overwrite
    write_image(None, drawn.hu_zyx, output, derivation, geometry=grid, overwrite=overwrite)
    ids, centre = resample_onto(given.ids_ZYX, given.geometry, grid, nearest=True), None
    if mask is not None:
        own = resample_onto(mask.astype("uint8"), given.geometry, grid, nearest=True)
        write_mask(None, {"lesion": own}, lesion_path(output), geometry=grid, overwrite=overwrite)
        ids, centre = ids * (own == 0), centre_of_interest(own)
    panels = [Panel("anatomy map", ids.astype("float32")), Panel("drawn", drawn.hu_zyx, WINDOWS[options.region])]
    picture = png(strip(Picture(f"{verb}, synthetic", panels, centre)))
    output.with_name(f"{output.name}.png").write_bytes(picture)
    size = " x ".join(str(n) for n in drawn.hu_zyx.shape)
    spacing = " x ".join(f"{mm:.3g}" for mm in dict.fromkeys(grid.spacing_mm))
    terminal.out().print(f"{output}: {size} voxels of {spacing} mm, synthetic", markup=False)


def lesion_path(output: Path) -> Path:
    """Where the mask of a drawn lesion lies beside its image."""
    ending = "".join(output.suffixes[-2:]) if output.name.endswith(".gz") else output.suffix
    return output.with_name(f"{output.name.removesuffix(ending)}_lesion{ending}")


VERBS = (synthesize, generate_lesion)
