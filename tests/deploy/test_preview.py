"""The picture of the dashboard: figures, grid and lines out of made-up answers, without a browser or a broker."""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import pytest

from deploy import preview
from deploy.drawing import (
    COLOURS,
    DRAWN,
    MARGIN,
    SCALES,
    WIDTH,
    Series,
    Window,
    chosen,
    colour,
    drawn_panel,
    formatted,
    named,
    page,
    placed,
    spans,
    stacked,
    ticks,
)
from deploy.monitoring import Panel, dashboard, panels

WINDOW = Window(start=1_000.0, end=1_100.0, step=10.0)
MOMENTS = [1_000.0 + 10 * number for number in range(11)]
HOSTILE = "<script>alert('x')</script>&\""

every_panel = pytest.mark.parametrize("panel", [pytest.param(panel, id=panel.name) for panel in panels()])


def series(name: str = "one", values: Sequence[float] = (1.0,) * 11, **labels: str) -> Series:
    return Series(name, labels, list(zip(MOMENTS, values, strict=True)))


def drawn(panel: Mapping[str, Any], *several: Series) -> ElementTree.Element:
    """The panel as a tree: what is not escaped is no XML."""
    return ElementTree.fromstring(drawn_panel(panel, several, WINDOW))  # noqa: S314 - our own


def of_type(kind: str) -> dict[str, Any]:
    """The dashboard's first panel of this type."""
    return next(panel.model for panel in panels() if panel.model["type"] == kind)


# --- figures ---


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "s", "0 s"),
        (0.0000042, "s", "4.2 µs"),
        (0.0831, "s", "83.1 ms"),
        (1.5, "s", "1.5 s"),
        (150, "s", "2.5 mins"),
        (7200, "s", "2 hours"),
        (0.8349, "percentunit", "83.5%"),
        (1, "percentunit", "100%"),
        (0, "percentunit", "0%"),
        (12.04, "cps", "12 c/s"),
        (1500, "cps", "1.5K c/s"),
        (0.25, "ops", "0.25 ops/s"),
        (999, "short", "999"),
        (1234, "short", "1.23 K"),
        (2_500_000, "short", "2.5 Mil"),
        (1234, "none", "1234"),
        (512 * 2**20, "bytes", "512 MiB"),
        (100, "bytes", "100 B"),
        (-3, "short", "-3"),
        (math.inf, "none", "∞"),
        (math.nan, "none", "NaN"),
    ],
)
def test_a_value_is_written_as_grafana_does(value: float, unit: str, text: str) -> None:
    assert formatted(value, unit) == text


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="no unit 'furlong'"):
        formatted(1, "furlong")


@every_panel
def test_every_type_and_unit_of_the_dashboard_is_known(panel: Panel) -> None:
    assert panel.model["type"] in DRAWN
    assert panel.model["fieldConfig"]["defaults"]["unit"] in SCALES


@pytest.mark.parametrize(
    ("values", "unit", "bounds", "expected"),
    [
        ([0, 83], "short", (0, None), [0, 20, 40, 60, 80, 100]),
        ([0.3], "percentunit", (0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ([0, 290], "s", (0, None), [0, 60, 120, 180, 240, 300]),
        ([0, 700 * 2**20], "bytes", (0, None), [0, 2**28, 2**29, 3 * 2**28]),
        ([0, 0], "cps", (0, None), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ([math.nan, math.inf], "s", (0, None), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ([7.3, 8.9], "short", (None, None), [7, 7.5, 8, 8.5, 9]),
    ],
)
def test_an_axis_has_round_figures_around_its_values(
    values: list[float], unit: str, bounds: tuple[float | None, float | None], expected: list[float]
) -> None:
    assert ticks(values, unit, *bounds) == pytest.approx(expected)


def test_a_threshold_colours_what_reaches_it() -> None:
    steps = [{"color": "red", "value": None}, {"color": "green", "value": 2}]
    assert [colour(steps, value) for value in (1, 2, 3)] == [COLOURS["red"], COLOURS["green"], COLOURS["green"]]


def test_a_legend_has_the_labels_in_it() -> None:
    assert named("{{topic}}/{{ partition }} {{none}}", {"topic": "reviews", "partition": "0"}) == "reviews/0 "


# --- lines ---


def test_what_is_no_number_is_a_gap() -> None:
    points = [(0, 1.0), (10, math.nan), (20, 2.0), (30, 3.0), (40, math.inf), (70, 4.0), (100, 5.0)]
    assert list(spans(points, 10)) == [[(0, 1.0)], [(20, 2.0), (30, 3.0)], [(70, 4.0)], [(100, 5.0)]]


def test_a_stack_stands_on_what_is_below() -> None:
    low = Series("low", {}, [(0, 1.0), (10, math.nan)])
    high = Series("high", {}, [(0, 2.0), (10, 5.0)])
    assert stacked([low, high])[1] == [(0, 1.0, 3.0), (10, 0.0, 5.0)]


def test_a_larger_value_is_higher_up() -> None:
    tree = drawn(of_type("timeseries"), series(values=[float(number) for number in range(11)]))
    (line,) = tree.iter("polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert len(points) == 11
    assert points == sorted(points, key=lambda point: (point[0], -point[1]))
    assert points[0][1] > points[-1][1]


def test_each_stretch_of_a_state_is_one_bar_in_its_colour() -> None:
    tree = drawn(of_type("state-timeline"), series(values=[0.0] * 4 + [1.0] * 7))
    assert [bar.attrib["fill"] for bar in tree.iter("rect")] == [COLOURS["red"], COLOURS["green"]]


def test_a_stat_shows_the_last_value() -> None:
    tree = drawn(of_type("stat"), series("ready", [1.0] * 9 + [2.0, math.nan]))
    assert [it.text for it in tree.iter("b")] == ["2"]


def test_a_table_leaves_out_what_its_panel_does() -> None:
    tree = drawn(of_type("table"), series(name="tiny", __name__="review_worker_model_info", version="2"))
    assert [it.text for it in tree.iter("th")] == ["version"]
    assert [it.text for it in tree.iter("td")] == ["2"]


# --- the page ---


@every_panel
def test_every_panel_is_drawn(panel: Panel) -> None:
    text = "".join(drawn(panel.model, series("first", zone="here"), series("second", zone="there")).itertext())
    assert panel.model["title"] in text
    assert "No data" not in text
    for word in ("here", "there") if panel.model["type"] == "table" else ("first", "second"):
        assert word in text


def test_a_panel_without_an_answer_says_so() -> None:
    assert "No data" in "".join(drawn(of_type("timeseries")).itertext())


@pytest.mark.parametrize("rows", [(), ("Health", "Models"), ("Device",)])
def test_no_panel_covers_another_or_leaves_the_page(rows: tuple[str, ...]) -> None:
    boxes = [placed(panel["gridPos"]) for panel in chosen(dashboard(), rows)]
    _, height = page(dashboard(), {}, WINDOW, "", rows)
    for box in boxes:
        assert box.left >= MARGIN
        assert box.left + box.width <= WIDTH - MARGIN + 0.01
        assert box.top + box.height <= height
    for one, two in combinations(boxes, 2):
        beside = one.left + one.width <= two.left or two.left + two.width <= one.left
        assert beside or one.top + one.height <= two.top or two.top + two.height <= one.top


def test_rows_that_are_chosen_close_up() -> None:
    whole = chosen(dashboard(), ())
    some = chosen(dashboard(), ("Throughput and lag", "Models"))
    assert whole == dashboard()["panels"]
    assert [panel["title"] for panel in some if panel["type"] == "row"] == ["Throughput and lag", "Models"]
    assert some[0]["gridPos"]["y"] == 0
    ends = [panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in some]
    assert {panel["gridPos"]["y"] for panel in some} - {0} <= set(ends)


def test_a_row_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no row Wealth; it has Health"):
        chosen(dashboard(), ("Wealth",))


def test_what_cannot_be_drawn_is_refused() -> None:
    panel = of_type("timeseries")
    with pytest.raises(ValueError, match="'gauge'"):
        drawn_panel(panel | {"type": "gauge"}, (), WINDOW)
    with pytest.raises(ValueError, match="no overrides"):
        drawn_panel(panel | {"fieldConfig": panel["fieldConfig"] | {"overrides": [{}]}}, (), WINDOW)


@pytest.mark.parametrize("kind", DRAWN)
def test_hostile_text_is_text(kind: str) -> None:
    tree = drawn(of_type(kind) | {"title": HOSTILE}, series(HOSTILE, zone=HOSTILE))
    assert not list(tree.iter("script"))
    assert "".join(tree.itertext()).count(HOSTILE) == 2


def test_the_caption_is_in_the_picture_and_is_text() -> None:
    html, _ = page(dashboard(), {}, WINDOW, HOSTILE)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "not a Grafana screenshot" in preview.CAPTION


# --- what is asked, and of what ---


class Asked:
    """A Prometheus that remembers what it is asked."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, dict[str, str]]] = []

    def get(self, path: str, **parameters: str) -> Any:
        self.questions.append((path, parameters))
        metric = {"instance": "a", "stage": "score"}
        if path == "query":
            return {"result": [{"metric": metric, "value": [1_100, "1"]}]}
        return {"result": [{"metric": metric, "values": [[1_000, "0.5"], [1_010, "NaN"]]}]}


@every_panel
def test_every_query_of_a_panel_is_asked_with_nothing_left_to_fill_in(panel: Panel) -> None:
    asked = Asked()
    answers = list(preview.asked(asked, panel.model, WINDOW))  # type: ignore[arg-type]
    assert len(answers) == len(asked.questions) == len(panel.queries)
    for path, parameters in asked.questions:
        assert not re.search(r"\$", parameters["query"])
        assert path == ("query" if panel.model["type"] == "table" else "query_range")
        assert parameters.keys() == ({"query", "time"} if path == "query" else {"query", "start", "end", "step"})


def test_the_story_is_told_to_its_end() -> None:
    assert sum(phase.share for phase in preview.STORY) == pytest.approx(1)
    assert 0 < preview.SECOND_STARTS < preview.NEWER_MODEL < preview.SECOND_STOPS < 1
    assert preview.pace(0) == (preview.STORY[0].start, preview.STORY[0].broken)
    assert preview.pace(0.18)[0] == pytest.approx(24)
    assert preview.pace(0.9999999999)[0] == pytest.approx(preview.STORY[-1].end)
