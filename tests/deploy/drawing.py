"""The dashboard as a page without Grafana: HTML and SVG out of its JSON and what Prometheus answered.

Grid, titles, units, legends, colours and kinds of panels are the JSON's; the look is near Grafana's dark theme. What
the dashboard does not use is not drawn: a panel, unit or override that is unknown here is a ValueError and never left
out in silence.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any

WIDTH = 1400
COLUMNS = 24
"""Of Grafana's grid."""
UNIT = 30
"""Pixels of one unit of height, gap included. Grafana's are 38; a picture is looked at whole."""
GAP = 8
MARGIN = 12
HEADER = 62
FOOTER = 40
TITLE = 34
LINE = 20
"""Of a legend."""
CHARACTER = 7.4
"""Pixels of one, on average: the page is laid out before there is a browser."""
TICKS = 5
"""Distances between the lines of an axis, at most."""

PALETTE = (
    "#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a",
)  # fmt: skip
"""Grafana's classic one, in its order."""
COLOURS = {"text": "#ccccdc", "green": "#73bf69", "red": "#f2495c", "yellow": "#fade2a", "orange": "#ff9830"}


@dataclass(frozen=True)
class Window:
    """What is looked at, in seconds since 1970."""

    start: float
    end: float
    step: float


@dataclass(frozen=True)
class Series:
    """One line: its name, its labels, and (seconds since 1970, value)."""

    name: str
    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Box:
    """Pixels on the page."""

    left: float
    top: float
    width: float
    height: float


# === Figures ===


def figure(value: float) -> str:
    """Three digits that count, without zeros behind them."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞" if value < 0 else "NaN"
    places = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


SCALES: dict[str, tuple[tuple[float, str], ...]] = {
    "none": ((1, ""),),
    "percentunit": ((0.01, "%"),),
    "short": ((1, ""), (1e3, " K"), (1e6, " Mil"), (1e9, " Bil")),
    "cps": ((1, " c/s"), (1e3, "K c/s"), (1e6, "M c/s")),
    "ops": ((1, " ops/s"), (1e3, "K ops/s"), (1e6, "M ops/s")),
    "s": ((1e-6, " µs"), (1e-3, " ms"), (1, " s"), (60, " mins"), (3600, " hours"), (86_400, " days")),
    "bytes": ((1, " B"), (2**10, " KiB"), (2**20, " MiB"), (2**30, " GiB"), (2**40, " TiB")),
}
"""By Grafana's name of a unit, what one of each is and how it is written, from the smallest."""


def formatted(value: float, unit: str) -> str:
    """The value as Grafana writes it: 0.0831 is `83.1 ms` in the unit `s`, and `8.31%` as `percentunit`."""
    if unit not in SCALES:
        raise ValueError(f"the preview knows no unit {unit!r}; give it one in SCALES")
    scale = SCALES[unit]
    fitting = [it for it in scale if it[0] <= abs(value)]
    if not value and unit == "s":
        fitting = [(1, " s")]
    size, suffix = (fitting or scale)[-1 if fitting else 0]
    return figure(value / size) + suffix


def _steps(unit: str) -> Iterator[float]:
    """Distances of ticks that are round figures in the unit, from the smallest."""
    if unit == "bytes":
        yield from (2.0**power for power in range(60))
        return
    for power in range(-6, 16):
        for digit in (1, 2, 5):
            step = digit * 10.0**power
            if unit == "s" and step > 20:
                yield from (30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 43_200)
                yield from (86_400.0 * days for days in range(1, 10_000))
                return
            yield step


def ticks(values: Sequence[float], unit: str, low: float | None, high: float | None) -> list[float]:
    """Where an axis has its lines, lowest and highest included: `low` and `high` are the panel's own bounds. Ends that
    have none are at the next round figure around the values."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    bottom, top = min(finite) if low is None else low, max(finite) if high is None else high
    if top <= bottom:
        bottom, top = min(bottom, 0.0), max(top, 0.0) or 1.0
    step = next(step for step in _steps(unit) if step * TICKS >= (top - bottom) * 0.999)
    first = bottom if low is not None else math.floor(bottom / step + 1e-9) * step
    count = math.ceil((top - first) / step - 1e-9)
    places = [first + step * number for number in range(count + 1)]
    if high is not None:
        places = [place for place in places if place <= high + 1e-9]
    return [round(place, 12) for place in places]


def colour(steps: Sequence[Mapping[str, Any]], value: float) -> str:
    """Of the last threshold that the value reaches; the first one has no value and holds from the bottom."""
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return COLOURS[reached[-1]]


def named(legend: str, labels: Mapping[str, str]) -> str:
    """A legend such as `{{topic}}/{{partition}}` with a series' labels in it."""
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), legend)


# === The kinds of panels ===


def spans(points: Sequence[tuple[float, float]], step: float) -> Iterator[list[tuple[float, float]]]:
    """Points without a gap between them; what is no number, or infinite, is a gap too, as in Grafana."""
    span: list[tuple[float, float]] = []
    for moment, value in points:
        if not math.isfinite(value):
            continue
        if span and moment - span[-1][0] > 1.5 * step:
            yield span
            span = []
        span.append((moment, value))
    if span:
        yield span


def stacked(series: Sequence[Series]) -> list[list[tuple[float, float, float]]]:
    """Of each series (moment, lower, upper), each on top of those before it."""
    heights: dict[float, float] = {}
    bands = []
    for one in series:
        band = []
        for moment, value in one.points:
            lower = heights.get(moment, 0.0)
            band.append((moment, lower, lower + value))
            if math.isfinite(value):
                heights[moment] = lower + value
        bands.append(band)
    return bands


def _across(moment: float, window: Window, left: float, right: float) -> float:
    return left + (right - left) * (moment - window.start) / (window.end - window.start)


def _clock(window: Window, left: float, right: float, bottom: float) -> Iterator[str]:
    """The times below a chart: as many as find room, at round minutes or seconds."""
    span = window.end - window.start
    steps = (10, 15, 30, 60, 120, 300, 600, 1800, 3600)
    step = next((it for it in steps if span / it * (100 if it % 60 else 70) <= right - left), 86_400)
    moment = math.ceil(window.start / step) * step
    while moment <= window.end:
        x = _across(moment, window, left, right)
        text = datetime.fromtimestamp(moment, UTC).strftime("%H:%M" if step % 60 == 0 else "%H:%M:%S")
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{bottom:.1f}"/>'
        half = CHARACTER * len(text) / 2
        if left + half / 2 < x < right - half:
            yield f'<text x="{x:.1f}" y="{bottom + 17:.1f}" text-anchor="middle">{text}</text>'
        moment += step


def timeseries(panel: Mapping[str, Any], series: Sequence[Series], window: Window, width: float, height: float) -> str:
    """Lines over time, filled down to zero or to the line that they are stacked on, and the legend below."""
    field = panel["fieldConfig"]["defaults"]
    custom, unit = field["custom"], field["unit"]
    if custom["stacking"]["mode"] == "normal":
        bands = stacked(series)
    else:
        bands = [[(moment, 0.0, value) for moment, value in one.points] for one in series]
    places = ticks([upper for band in bands for *_, upper in band], unit, field.get("min"), field.get("max"))
    texts = [formatted(place, unit) for place in places]
    legend, legend_height = _legend(series, width)
    left, right, bottom = 10 + CHARACTER * max(map(len, texts)), width - 4, height - legend_height - 24

    def up(value: float) -> float:
        share = (value - places[0]) / (places[-1] - places[0])
        return bottom - (bottom - 6) * min(1.0, max(0.0, share))

    drawn = [*_clock(window, left, right, bottom)]
    for place, text in zip(places, texts, strict=True):
        drawn.append(f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{up(place):.1f}" y2="{up(place):.1f}"/>')
        drawn.append(f'<text x="{left - 7:.1f}" y="{up(place) + 4.5:.1f}" text-anchor="end">{escape(text)}</text>')
    for number, band in enumerate(bands):
        paint = PALETTE[number % len(PALETTE)]
        floors = {moment: lower for moment, lower, _ in band}
        for span in spans([(moment, upper) for moment, _, upper in band], window.step):
            line = [f"{_across(moment, window, left, right):.1f},{up(value):.1f}" for moment, value in span]
            floor = [
                f"{_across(moment, window, left, right):.1f},{up(floors[moment]):.1f}" for moment, _ in reversed(span)
            ]
            opacity = custom["fillOpacity"] / 100
            drawn.append(
                f'<polygon fill="{paint}" fill-opacity="{opacity}" points="{" ".join(line + floor)}"/>'
                f'<polyline fill="none" stroke="{paint}" stroke-width="{1.4 * custom["lineWidth"]:g}"'
                f' points="{" ".join(line)}"/>'
            )
    return _svg(drawn, width, height - legend_height) + legend


def _legend(series: Sequence[Series], width: float) -> tuple[str, float]:
    """The names below a chart, and how high they stand."""
    lines, used = 1, 0.0
    keys = []
    for number, one in enumerate(series):
        length = 34 + CHARACTER * len(one.name)
        if used and used + length > width:
            lines, used = lines + 1, 0.0
        used += length
        keys.append(f'<span><i style="background:{PALETTE[number % len(PALETTE)]}"></i>{escape(one.name)}</span>')
    return f'<div class="legend">{"".join(keys)}</div>', lines * LINE + 4


def state_timeline(
    panel: Mapping[str, Any], series: Sequence[Series], window: Window, width: float, height: float
) -> str:
    """One bar a series, in the colour of what its value is called at the time."""
    mappings = panel["fieldConfig"]["defaults"]["mappings"]
    colours = {float(value): COLOURS[it["color"]] for one in mappings for value, it in one["options"].items()}
    left = 14 + CHARACTER * max((len(one.name) for one in series), default=0)
    right, bottom = width - 4, height - 24
    drawn = [*_clock(window, left, right, bottom)]
    row = bottom / max(1, len(series))
    for number, one in enumerate(series):
        top = number * row
        drawn.append(
            f'<text x="{left - 8:.1f}" y="{top + row / 2 + 4.5:.1f}" text-anchor="end">{escape(one.name)}</text>'
        )
        # Each stretch of one value is one rectangle: seams between hundreds of them would show.
        stretches: list[tuple[float, float, float]] = []
        for moment, value in one.points:
            end = min(moment + window.step, window.end)
            if stretches and stretches[-1][1] >= moment and stretches[-1][2] == value:
                stretches[-1] = (stretches[-1][0], end, value)
            else:
                stretches.append((moment, end, value))
        for start, end, value in stretches:
            x, y = _across(start, window, left, right), top + row * 0.08
            drawn.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{_across(end, window, left, right) - x:.1f}"'
                f' height="{row * 0.84:.1f}" fill="{colours[value]}" fill-opacity="0.7"/>'
            )
    return _svg(drawn, width, height)


def stat(panel: Mapping[str, Any], series: Sequence[Series], _: Window, width: float, height: float) -> str:
    """The last value of each series, large."""
    field = panel["fieldConfig"]["defaults"]
    figures = []
    for one in series:
        last = next((value for _, value in reversed(one.points) if not math.isnan(value)), math.nan)
        paint = colour(field["thresholds"]["steps"], last)
        text = formatted(last, field["unit"])
        figures.append(f'<div><span>{escape(one.name)}</span><b style="color:{paint}">{escape(text)}</b></div>')
    return f'<div class="stat" style="width:{width:.0f}px;height:{height:.0f}px">{"".join(figures)}</div>'


def table(panel: Mapping[str, Any], series: Sequence[Series], _: Window, width: float, __: float) -> str:
    """The labels of each series, a row each."""
    hidden = {
        name for change in panel["transformations"] for name, is_hidden in change["options"]["excludeByName"].items()
        if is_hidden
    }  # fmt: skip
    columns = sorted({label for one in series for label in one.labels} - hidden)
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    rows = ["".join(f"<td>{escape(one.labels.get(column, ''))}</td>" for column in columns) for one in series]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<table style="width:{width:.0f}px"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


DRAWN = {"timeseries": timeseries, "state-timeline": state_timeline, "stat": stat, "table": table}


def _svg(drawn: Sequence[str], width: float, height: float) -> str:
    return f'<svg width="{width:.0f}" height="{height:.0f}">{"".join(drawn)}</svg>'


# === The page ===


def placed(grid: Mapping[str, int]) -> Box:
    """Where a panel stands."""
    column = (WIDTH - 2 * MARGIN + GAP) / COLUMNS
    return Box(
        MARGIN + grid["x"] * column,
        HEADER + grid["y"] * UNIT,
        grid["w"] * column - GAP,
        grid["h"] * UNIT - GAP,
    )


def chosen(dashboard: Mapping[str, Any], rows: Sequence[str]) -> list[dict[str, Any]]:
    """The panels of these rows, which stand below each other as if there were no others; all of them without `rows`."""
    titles = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    if unknown := set(rows) - set(titles):
        raise ValueError(f"the dashboard has no row {', '.join(sorted(unknown))}; it has {', '.join(titles)}")
    wanted: list[dict[str, Any]] = []
    skipped, start, taken = 0, 0, True
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            top = panel["gridPos"]["y"]
            skipped += 0 if taken else top - start
            start, taken = top, not rows or panel["title"] in rows
        if taken:
            grid = panel["gridPos"]
            wanted.append(panel | {"gridPos": grid | {"y": grid["y"] - skipped}})
    return wanted


def drawn_panel(panel: Mapping[str, Any], series: Sequence[Series], window: Window) -> str:
    """The panel where it stands, with its title."""
    box = placed(panel["gridPos"])
    place = f"left:{box.left:.1f}px;top:{box.top:.1f}px;width:{box.width:.1f}px;height:{box.height:.1f}px"
    title = escape(panel["title"])
    if panel["type"] == "row":
        return f'<h2 style="{place}">{title}</h2>'
    if panel["type"] not in DRAWN:
        raise ValueError(f"the preview can't draw a panel of the type {panel['type']!r}; give it one in DRAWN")
    if panel["fieldConfig"]["overrides"]:
        raise ValueError(f"the preview draws no overrides; panel {panel['title']!r} has some")
    inside = '<p class="empty">No data</p>'
    if series:
        inside = DRAWN[panel["type"]](panel, series, window, box.width - 20, box.height - TITLE - 6)
    return f'<section style="{place}"><h3>{title}</h3>{inside}</section>'


def page(
    dashboard: Mapping[str, Any],
    answers: Mapping[int, Sequence[Series]],
    window: Window,
    caption: str,
    rows: Sequence[str] = (),
) -> tuple[str, int]:
    """The HTML of the dashboard, or of some of its rows, and its height in pixels.

    Args:
        answers: By a panel's id, what Prometheus answered to its queries.
        caption: What the picture is. It stands below the panels.
    """
    panels = chosen(dashboard, rows)
    lowest = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    height = HEADER + lowest * UNIT + FOOTER
    choices = "".join(
        f"<li>{escape(it['label'])} <b>{'Prometheus' if it['type'] == 'datasource' else 'All'}</b></li>"
        for it in dashboard["templating"]["list"]
    )
    minutes = round((window.end - window.start) / 60)
    drawn = "\n".join(drawn_panel(panel, answers.get(panel["id"], ()), window) for panel in panels)
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(dashboard["title"])}</title>'
        f"<style>{STYLE}</style></head><body style='height:{height}px'>"
        f"<header><h1>{escape(dashboard['title'])}</h1><ul>{choices}<li>Last {minutes} minutes</li></ul></header>"
        f"{drawn}<footer>{escape(caption)}</footer></body></html>"
    )
    return html, height


STYLE = f"""
* {{ box-sizing: border-box; margin: 0; }}
body {{ position: relative; width: {WIDTH}px; background: #111217; color: #ccccdc; overflow: hidden;
  font: 13px/1.3 Inter, Roboto, "DejaVu Sans", sans-serif; font-variant-numeric: tabular-nums; }}
header {{ display: flex; align-items: center; justify-content: space-between; height: {HEADER - 6}px;
  padding: 0 {MARGIN + 4}px; }}
h1 {{ font-size: 21px; font-weight: 500; }}
ul {{ display: flex; gap: 10px; padding: 0; list-style: none; }}
li {{ padding: 6px 12px; border: 1px solid #2f3138; border-radius: 4px; background: #181b1f; color: #9fa1ad; }}
li b {{ margin-left: 6px; font-weight: 500; color: #6e9fff; }}
h2, section {{ position: absolute; }}
h2 {{ padding-left: 6px; font-size: 15px; font-weight: 600; line-height: {UNIT - GAP}px; }}
h2::before {{ content: "⌄"; display: inline-block; margin-right: 8px; transform: translateY(-3px); }}
section {{ padding: 0 10px; overflow: hidden; background: #181b1f; border: 1px solid #25272e; border-radius: 4px; }}
h3 {{ height: {TITLE}px; font-size: 14px; font-weight: 500; line-height: {TITLE}px; white-space: nowrap; }}
svg {{ display: block; font-size: 12px; }}
svg text {{ fill: #a9abb8; }}
.grid {{ stroke: #ccccdc; stroke-opacity: .08; }}
.legend {{ display: flex; flex-wrap: wrap; gap: 0 14px; overflow: hidden; line-height: {LINE}px; }}
.legend i {{ display: inline-block; width: 14px; height: 4px; margin: 0 6px 3px 0; border-radius: 2px; }}
.legend span {{ white-space: nowrap; }}
.stat {{ display: flex; align-items: center; justify-content: space-around; text-align: center; }}
.stat span {{ display: block; font-size: 17px; }}
.stat b {{ font-size: 54px; font-weight: 500; line-height: 1.1; }}
table {{ border-collapse: collapse; table-layout: fixed; }}
th, td {{ padding: 6px 8px; overflow: hidden; border-bottom: 1px solid #25272e; text-align: left;
  text-overflow: ellipsis; white-space: nowrap; }}
th {{ color: #6e9fff; font-weight: 500; }}
.empty {{ padding-top: 40px; color: #9fa1ad; text-align: center; }}
footer {{ position: absolute; bottom: 0; left: {MARGIN + 4}px; line-height: {FOOTER}px; color: #9fa1ad; }}
"""
