"""The report: one HTML file that explains itself, holds its pictures, and loads nothing from anywhere."""

import base64
import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from evaluation import plots
from evaluation.curves import Curve
from evaluation.pictures import panel_pngs, scale_of
from evaluation.published import SOURCE, published_of
from evaluation.report_plots import costs, distributions, task_plots
from evaluation.report_tables import cases, glance, places, reasons
from evaluation.report_texts import TASK_TEXTS
from evaluation.slices import slices_of, start_of, strip_of_slices
from evaluation.verdict import number

if TYPE_CHECKING:
    from evaluation.tasks.context import Picture

NARROWEST = {1: "20rem", 2: "30rem"}  # a card's least width by the number of its metrics
CURVES = ("loss", "val/loss")

History = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class ReportInput:
    """Everything the report tells: the table, pictures by task, training curves by name, and facts in order."""

    table: pd.DataFrame
    aggregated: pd.DataFrame
    pictures: Mapping[str, Sequence["Picture"]]
    trainings: Mapping[str, History] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    demo: bool = False
    curves: Mapping[str, Sequence[Curve]] = field(default_factory=dict)


def render(given: ReportInput, now: datetime.datetime | None = None) -> str:
    """The whole page as HTML; equal input and time give equal text."""
    tasks = [_task(task, given) for task in dict.fromkeys(given.table["task"])]
    of_cases = given.table[given.table["case"] != ""]
    return _template().render(
        tasks=tasks,
        glance=glance(given.aggregated),
        trainings=[_training(name, history) for name, history in given.trainings.items()],
        facts=given.facts,
        published_in=SOURCE,
        demo=given.demo,
        num_cases=of_cases.groupby("dataset")["case"].nunique().sum(),
        num_patients=of_cases.groupby("dataset")["patient"].nunique().sum(),
        datasets=sorted(set(of_cases["dataset"])),
        made=(now or datetime.datetime.now(datetime.UTC)).strftime("%-d %B %Y, %H:%M UTC"),
    )


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(files("evaluation").joinpath("report.html.j2").read_text("utf-8"))


def _task(task: str, given: ReportInput) -> dict[str, Any]:
    title, asked, conclude = TASK_TEXTS.get(task, (task.capitalize(), "", ""))
    aggregated = given.aggregated[given.aggregated["task"] == task]
    rows, shown = given.table[given.table["task"] == task], places(aggregated)
    return {
        "id": task,
        "title": title,
        "asked": asked,
        "conclude": conclude,
        "pictures": [_picture(picture) for picture in given.pictures.get(task, ())],
        "plots": [*costs(task, aggregated), *task_plots(given.curves.get(task, ()))],
        "spreads": distributions(task, rows),
        "published": published_of(task),
        "places": shown,
        "narrowest": NARROWEST.get(max((len(place["columns"]) for place in shown), default=1), "100%"),
        "reasons": reasons(rows),
        "cases": cases(rows),
    }


def _picture(picture: "Picture") -> dict[str, Any]:
    panels, slices = [], slices_of(picture)
    for panel in picture.panels:
        scale = scale_of(panel)
        images = [{"plane": name, "uri": data_uri(data)} for name, data in panel_pngs(panel, picture.centre_zyx)]
        strip = data_uri(strip_of_slices(panel, [one.index for one in slices]), "webp") if slices else ""
        shades = {"gradient": scale.gradient, "ticks": scale.ticks}
        panels.append({"caption": panel.caption, "images": images, "strip": strip, **shades})
    start = [one.index for one in slices].index(start_of(picture)) if slices else 0
    shown = [(one.label, round(one.share, 4)) for one in slices]
    return {"title": picture.title, "panels": panels, "slices": shown, "start": start}


def data_uri(image: bytes, kind: str = "png") -> str:
    """A picture inside the page."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _training(name: str, history: History) -> dict[str, Any]:
    series = {key: points for key in CURVES if (points := _points(history, key))}
    return {
        "name": name,
        "steps": int(max((record["step"] for record in history), default=0)),
        "series": list(series),
        "svg": Markup(plots.curves(series, "iteration", "loss")),
        "final": {key: number(points[-1][1]) for key, points in series.items()},
    }


def _points(history: History, key: str) -> list[tuple[float, float]]:
    return [(record["step"], record[key]) for record in history if math.isfinite(record.get(key, math.nan))]
