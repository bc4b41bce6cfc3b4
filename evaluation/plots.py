"""Small vector plots as SVG text: curves, clouds, distributions, interval bars. Colours are the style sheet's."""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 360, 204
LEFT, RIGHT, TOP, BOTTOM = 30, 20, 8, 38
LINE = 14  # from one line of text to the next
ROW, NAMES = 20, 112  # of a distribution: height of a row, width of the names

Points = Sequence[tuple[float, float]]
Place = Callable[[float, float], tuple[float, float]]


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


def _axis(place: Place, right: float, bottom: float, top: float, x_label: str) -> str:
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


def square(series: Mapping[str, Points], x_label: str, y_label: str, *, joined: bool, reach: float) -> str:
    """Lines (`joined`) or clouds of points in a square from 0 to `reach` on both axes, with its diagonal."""
    size = WIDTH - LEFT - RIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + x / reach * size, TOP + (1 - y / reach) * size

    height = TOP + size + BOTTOM
    parts = [_square_axis(place, reach, height, x_label, y_label)]
    for index, points in enumerate(series.values()):
        placed = [place(min(x, reach), min(y, reach)) for x, y in points]
        if joined:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in placed)
            parts.append(f'<polyline class="series series-{index}" points="{path}"/>')
        else:
            parts += [f'<circle class="series series-{index}" cx="{a:.1f}" cy="{b:.1f}" r="3.4"/>' for a, b in placed]
    label = escape(f"{y_label} over {x_label}: {', '.join(series)}")
    return f'<svg class="square" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _square_axis(place: Place, reach: float, height: float, x_label: str, y_label: str) -> str:
    parts = []
    for value in ticks(0, reach, 4):
        (x, bottom), (_, up) = place(value, 0), place(0, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up:.1f}" y2="{up:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{up + 4:.1f}" text-anchor="end">{value:.3g}</text>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 15:.1f}" text-anchor="middle">{value:.3g}</text>')
    (x1, y1), (x2, y2) = place(0, 0), place(reach, reach)
    parts.append(f'<line class="even" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle:g}" y="{height - 7:g}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text class="tick" x="{LEFT + 5}" y="{TOP + 11}">{escape(y_label)}</text>')
    return "".join(parts)


def cost(points: Sequence[tuple[str, str, float, float]], y_label: str) -> str:
    """(name, kind, noise estimates, quality) as named dots; estimates on a scale of powers of two that begins at 0."""
    right = max(math.log2(1 + x) for _, _, x, _ in points) or 1.0
    low, high = min(y for *_, y in points), max(y for *_, y in points)
    low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
    margin = 0.08 * (high - low)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + 8 + math.log2(1 + x) / right * (WIDTH - LEFT - RIGHT - 84)  # room for the last one's name
        return across, TOP + (high + margin - y) / (high - low + 2 * margin) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for value in ticks(low, high):
        _, y = place(0, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for value in sorted({x for _, _, x, _ in points}):
        x, _ = place(value, low)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 7 - LINE}" text-anchor="middle">{value:g}</text>')
    for name, kind, at, value in points:
        x, y = place(at, value)
        dot = f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        text = f'<text class="name" x="{x + 8:.1f}" y="{y + 4:.1f}">{escape(name)}</text>'
        parts.append(f'<g class="{escape(kind)}">{dot}{text}</g>')
    middle, said = (LEFT + WIDTH - RIGHT) / 2, "noise estimates per voxel"
    parts.append(f'<text class="tick" x="{middle:g}" y="{HEIGHT - 7}" text-anchor="middle">{said}</text>')
    label = escape(f"{y_label} over {said}: {', '.join(name for name, *_ in points)}")
    return f'<svg class="cost" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def distribution(rows: Sequence[tuple[str, str, Sequence[float]]], x_label: str) -> str:
    """One row per (name, kind, values): a dot per patient and a bar at their mean, on a common axis."""
    values = [value for _, _, of_row in rows for value in of_row]
    low, high = min(values), max(values)
    low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
    left = NAMES

    def across(value: float) -> float:
        return left + 6 + (value - low) / (high - low) * (WIDTH - left - RIGHT - 6)

    bottom = TOP + ROW * len(rows)
    parts = [f'<line class="grid" x1="{across(v):.1f}" x2="{across(v):.1f}" y1="{TOP}" y2="{bottom}"/>'
             f'<text class="tick" x="{across(v):.1f}" y="{bottom + 14}" text-anchor="middle">{v:.3g}</text>'
             for v in ticks(low, high, 4)]  # fmt: skip
    for index, (name, kind, of_row) in enumerate(rows):
        y, mean = TOP + ROW * (index + 0.5), sum(of_row) / len(of_row)
        dots = "".join(f'<circle class="dot" cx="{across(v):.1f}" cy="{y:.1f}" r="3.2"/>' for v in of_row)
        bar = f'<line class="mean" x1="{across(mean):.1f}" x2="{across(mean):.1f}" y1="{y - 7:.1f}" y2="{y + 7:.1f}"/>'
        text = f'<text class="name" x="0" y="{y + 4:.1f}">{escape(name)}</text>'
        parts.append(f'<g class="{escape(kind)}">{text}{dots}{bar}</g>')
    height = bottom + BOTTOM
    middle = (left + WIDTH - RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle:g}" y="{height - 7:g}" text-anchor="middle">{escape(x_label)}</text>')
    label = escape(f"{x_label} of each patient: {', '.join(name for name, _, _ in rows)}")
    return f'<svg class="spread" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


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
