"""The report: what it says, what it draws, and that it needs nothing from anywhere."""

import base64
import datetime
import io
import re
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest
from report_example import Panel, example, pictures

from evaluation.config import TASKS
from evaluation.pictures import centre_of_interest, nice, panel_pngs, plane, png, scale_of, strip
from evaluation.plots import curves, interval_bar, ticks
from evaluation.published import PUBLISHED
from evaluation.report import render
from preprocessing.regions import WINDOWS, Window

NOON = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def html():
    return render(example(), NOON)


def test_the_page_is_well_formed(html):
    class Balance(HTMLParser):
        stack: list = []  # noqa: RUF012

        def handle_starttag(self, tag, attrs):
            if tag not in {"meta", "link", "img", "line", "circle", "polyline", "br", "input"}:
                self.stack.append(tag)

        def handle_endtag(self, tag):
            if tag in {"line", "circle", "polyline"}:
                return
            assert self.stack.pop() == tag

    parser = Balance()
    parser.feed(html)
    assert parser.stack == []


def test_the_page_loads_nothing_from_anywhere(html):
    sources = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "@import" not in html
    assert "url(" not in html


def test_numbers_stand_beside_baselines_with_count_and_interval(html):
    text = re.sub(r"<[^>]+>", " ", html)
    assert re.search(r"ours-mean\s+5&nbsp;/&nbsp;5\s+1\.00\s+31\.20\s+\[31\.08, 31\.32\]", text)
    assert re.search(r"tv\s+5&nbsp;/&nbsp;5\s+0\.000\s+29\.20", text)
    assert "range 1800 HU, against noise free" in text


def test_a_missing_number_says_why_and_text_is_escaped(html):
    assert "no test case has a lesion &lt;yet&gt;" in html


def test_the_page_says_what_its_numbers_prove(html):
    assert "say nothing about quality" in html
    assert "not for diagnosis" in html
    assert "say nothing about quality" not in render(example(demo=False), NOON)


def test_provenance_names_data_and_model(html):
    assert "a" * 32 in html
    assert f"runs/pretrain/{'f' * 32}" in html
    assert "1 March 2026, 12:00 UTC" in html


def test_equal_input_gives_an_equal_page(html):
    assert render(example(), NOON) == html


def test_pictures_beyond_the_third_are_folded_away():
    html = render(example(pictures=pictures(5)), NOON)
    assert "2 more pictures" in html
    assert html.count('<figure class="film"') == 5


def test_a_report_of_nothing_is_still_a_page():
    table = example().table.iloc[:0]
    html = render(example(table=table, aggregated=example().aggregated.iloc[:0], pictures={}, trainings={}), NOON)
    assert "Nothing was measured." in html


def test_planes_show_the_head_up_and_the_patients_right_on_the_left():
    volume = np.zeros((4, 5, 6))
    volume[3, 0, 0] = 1  # the topmost, frontmost, rightmost voxel
    assert plane(volume, "axial", (3, 0, 0))[0, 0] == 1
    assert plane(volume, "coronal", (3, 0, 0))[0, 0] == 1
    assert plane(volume, "sagittal", (3, 0, 0))[0, 0] == 1
    assert plane(volume, "coronal").shape == (4, 6)


def test_a_window_is_grey_and_a_difference_is_black_at_zero():
    hu = np.full((2, 2, 2), -500.0)
    grey = scale_of(Panel("ct", hu, WINDOWS["chest"]))
    assert grey.ticks == ("−1400", "−500", "400")
    assert np.ptp(grey.paint(hu)) == 0
    assert abs(int(grey.paint(hu)[0, 0, 0, 0]) - 128) <= 1
    difference = scale_of(Panel("a − b", hu, Window(200, 0)))
    assert difference.ticks == ("−100", "0", "100")
    assert difference.paint(np.zeros(1)).max() < 40


def test_a_map_gets_its_own_scale_and_labels_their_own_colours():
    assert scale_of(Panel("map", np.linspace(0, 0.37, 1000).reshape(10, 10, 10))).ticks == ("0", "0.25", "0.5")
    labels = scale_of(Panel("anatomy", np.arange(120.0).reshape(2, 6, 10)))
    painted = labels.paint(np.arange(120))
    assert labels.ticks == ()
    assert len(np.unique(painted, axis=0)) > 100
    assert painted[0].max() == 0


@pytest.mark.parametrize("image", [np.zeros((2, 2, 2)), np.full((2, 2, 2), np.nan), np.ones((2, 2, 2), bool)])
def test_an_empty_map_is_drawn_too(image):
    assert len(panel_pngs(Panel("map", image))) == 3


def test_a_png_holds_the_voxels_as_they_are():
    hu = np.linspace(-1400, 400, 2 * 3 * 4).reshape(2, 3, 4)
    (_, axial), *_ = panel_pngs(Panel("ct", hu, WINDOWS["chest"]), (1, 0, 0))
    shown = matplotlib.image.imread(io.BytesIO(axial))[..., 0]
    assert shown.shape == (3, 4)
    np.testing.assert_allclose(shown, (hu[1] + 1400) / 1800, atol=0.005)
    assert png(np.zeros((2, 2, 3), np.uint8)) == png(np.zeros((2, 2, 3), np.uint8))


def test_the_strip_is_one_rgb_image_with_all_panels():
    image = strip(pictures()["denoising"][0])
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert image.shape[1] > 5 * 150
    assert image.std() > 30


def test_the_pictures_in_the_page_are_pngs(html):
    images = re.findall(r'<img src="data:image/png;base64,([^"]+)"', html)
    assert len(images) == 15
    assert all(base64.b64decode(data).startswith(b"\x89PNG") for data in images)


def test_scales_and_ticks_are_round():
    assert [nice(v) for v in (0.37, 1, 1.2, 260, 0, float("nan"))] == [0.5, 1, 2, 500, 1, 1]
    assert ticks(0, 0.95) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert ticks(3, 3) == [3]


def test_a_curve_has_a_line_for_every_series_and_skips_what_is_not_finite():
    svg = curves({"loss": [(1, 0.9), (2, float("nan")), (3, 0.5)], "val": [(3, 0.6)]}, "iteration", "loss")
    assert svg.count("<polyline") == 2
    assert "nan" not in svg
    assert curves({"loss": []}, "iteration", "loss") == ""


def test_the_name_of_an_axis_stands_below_its_numbers():
    svg = curves({"loss": [(1, 0.9), (100_000, 0.5)]}, "iteration", "loss")
    rows = {text: float(y) for y, text in re.findall(r'<text[^>]* y="([\d.]+)"[^>]*>([^<]+)</text>', svg)}
    assert rows["iteration"] - rows["100000"] >= 12
    assert rows["iteration"] < float(re.search(r'viewBox="0 0 \d+ (\d+)"', svg)[1])


def test_an_interval_bar_lies_within_its_scale():
    bar = interval_bar(5, 4, 6, (4, 8))
    assert [float(v) for v in re.findall(r'x[12]="([\d.]+)"', bar)] == [4, 50]
    assert interval_bar(float("nan"), 0, 1, (0, 1)) == ""
    assert "<line" not in interval_bar(5, float("nan"), float("nan"), (5, 5))


def test_a_picture_looks_where_something_changed():
    change = np.zeros((9, 11, 13), np.float32)
    assert centre_of_interest(change) == (4, 5, 6)
    change[2, 3:6, 10] = (-5, 1, -5)
    assert centre_of_interest(change) == (2, 4, 10)


def test_published_figures_stand_apart_and_are_in_no_table_of_ours():
    html = render(example(), NOON)
    apart = html[html.index("Published, not reproduced here") :]
    assert "Mayo 2016, quarter dose" in apart
    assert "RED-CNN" in apart
    assert "published" not in set(example().table["method"])
    assert {figure.task for figure in PUBLISHED} <= set(TASKS)
