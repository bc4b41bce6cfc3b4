"""Small vector plots as SVG text: training curves and interval bars. Colours come from the page's style sheet."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 360, 204
LEFT, RIGHT, TOP, BOTTOM = 30, 20, 8, 38
LINE = 14  # from one line of text to the next

Points = Sequence[tuple[float, float]]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values between low and high."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= raw)
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def curves(series: Mapping[str, Points], x_label: str, y_label: str) -> str:
    """Lines over a common axis; the first series is drawn faint, as the noisy one."""
    drawn = {name: [p for p in points if math.isfinite(p[1])] for name, points in series.items()}
    everything = [point for points in drawn.values() for point in points]
    if not everything:
        return ""
    xs, ys = [x for x, _ in everything], [y for _, y in everything]
    right, top = max(xs) or 1.0, max(ys)
    bottom = 0.0 if min(ys) >= 0 and min(ys) < top / 2 else min(ys)
    top = top if top > bottom else bottom + 1

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + x / right * (WIDTH - LEFT - RIGHT)
        return across, TOP + (top - y) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    parts = [_axis(place, right, bottom, top, x_label)]
    for index, (_, points) in enumerate(drawn.items()):
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (place(*point) for point in points))
        parts.append(f'<polyline class="line line-{index}" points="{path}"/>')
    label = escape(f"{y_label} over {x_label}: {', '.join(drawn)}")
    return f'<svg class="curves" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _axis(place, right: float, bottom: float, top: float, x_label: str) -> str:  # noqa: ANN001
    parts = []
    for y in ticks(bottom, top):
        _, height = place(0, y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{y:.3g}</text>')
    for x in ticks(0, right, 5):
        across, _ = place(x, bottom)
        parts.append(f'<text class="tick" x="{across:.1f}" y="{HEIGHT - 7 - LINE}" text-anchor="middle">{x:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle:g}" y="{HEIGHT - 7}" text-anchor="middle">{escape(x_label)}</text>')
    return "".join(parts)


def interval_bar(mean: float, low: float, high: float, span: tuple[float, float]) -> str:
    """A dot for the mean and a line for its interval, on a scale shared by the column; "" without a mean."""
    if not math.isfinite(mean):
        return ""
    width = span[1] - span[0] or 1.0

    def place(value: float) -> float:
        return 4 + (value - span[0]) / width * 92

    line = ""
    if math.isfinite(low):
        line = f'<line x1="{place(low):.1f}" x2="{place(high):.1f}" y1="5" y2="5"/>'
    dot = f'<circle cx="{place(mean):.1f}" cy="5" r="2.6"/>'
    return f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="xMinYMid" aria-hidden="true">{line}{dot}</svg>'
