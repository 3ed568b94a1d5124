"""The live page in a real browser, before a real worker on a real broker."""

import json
import re
import socket
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browser.pieces import LABELS, LEFT, PATIENCE_SECONDS, TAB, Tab, metric, started_workers, tool
from contract.pieces import StubWorker, review, wait_for
from running import Stage, free_ports

pytestmark = pytest.mark.kafka

CHARTS = [
    "Reviews per second",
    "Records that wait",
    "Latency",
    "Device",
    "Reviews per batch",
    "Dead letters per minute",
]
SCHEMES = ["light", "dark"]
WIDTHS = [360, 768, 1280, 1920, 3840]


@pytest.fixture
def page(tab: Tab, worker: StubWorker) -> Tab:
    """The page of the worker that scores, once it has its first figures."""
    tab.open(f"{worker.url}/")
    tab.shows("state", "ready")
    wait_for(lambda: metric(worker, "review_worker_predictions_total") and tab.rows("reasons"), "figures", 60)
    return tab


def number(text: str) -> float:
    """The first number of a text."""
    found = re.search(r"[\d,]+(\.\d+)?", text)
    assert found, text
    return float(found[0].replace(",", ""))


@pytest.mark.parametrize("name", ["chromium", "chromedriver"])
def test_a_tool_that_is_missing_is_named_with_its_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AssertionError, match="apt-get install chromium chromium-driver"):
        tool(name)


# === Figures ===


def test_figures_move_while_reviews_flow(page: Tab, worker: StubWorker) -> None:
    seen: list[float] = []
    drawn: set[str] = set()

    def moved() -> bool:
        seen.append(number(page.text("reviews")))
        drawn.add(page.run("return document.querySelector('#c-rate .line.one').getAttribute('d')"))
        return len(set(seen)) > 3 and len(drawn) > 3

    wait_for(moved, "figures and chart move", PATIENCE_SECONDS)
    wait_for(lambda: number(page.text("rate")) > 0, "reviews are scored each second", PATIENCE_SECONDS)
    assert seen == sorted(seen)


def test_the_figures_are_those_that_prometheus_gets(page: Tab, worker: StubWorker) -> None:
    shown = number(page.text("reviews"))
    assert shown <= metric(worker, "review_worker_reviews_consumed_total")
    told = metric(worker, "review_worker_reviews_consumed_total")
    wait_for(lambda: number(page.text("reviews")) >= told, "the page has caught up", PATIENCE_SECONDS)
    wait_for(
        lambda: number(page.text("dead-total")) <= metric(worker, "review_worker_rejections_total"), "dead letters"
    )


def test_the_shares_of_the_labels_add_up(page: Tab, worker: StubWorker) -> None:
    wait_for(lambda: all(re.search("[1-9]", row[2]) for row in page.rows("labels")), "every label", PATIENCE_SECONDS)
    rows = page.rows("labels")
    assert [row[0] for row in rows] == LABELS
    assert sum(number(row[2]) for row in rows) == pytest.approx(100, abs=0.2)
    assert sum(number(row[3]) for row in rows) <= metric(worker, "review_worker_predictions_total")


def test_dead_letters_are_shown_by_reason_the_most_frequent_first(page: Tab) -> None:
    rows = page.rows("reasons")
    assert {row[0] for row in rows} == {"not_json", "missing_field"}
    counts = [number(row[3]) for row in rows]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] > 0
    assert page.text("no-reasons") == ""


def test_every_figure_has_a_value(page: Tab) -> None:
    """Also latency, batch, device, confidence, stages and the second model."""
    names = ("rate", "lag", "p50", "p95", "p99", "busy", "padding", "batch", "dead")
    for name in names:
        wait_for(lambda name=name: re.search(r"\d", page.text(name)), f"{name} has a value", PATIENCE_SECONDS)
    assert {row[0] for row in page.rows("stages") if re.search(r"\d", row[2])} == {
        "poll",
        "intake",
        "tokenize",
        "score",
        "commit",
    }
    assert "up to" in page.attribute("confidence", "aria-label")
    assert page.text("padding") == "50 %"
    page.shows("facts", "100 % of")
    assert "tiny 1" in page.text("facts")
    assert "tiny 1 on stub" in page.text("model")
    assert "State: ready" in page.text("events")


# === What a browser does with it ===


def test_nothing_is_asked_for_elsewhere_and_the_console_stays_empty(page: Tab, worker: StubWorker) -> None:
    asked: list[str] = []

    def some() -> bool:
        asked.extend(page.requests)
        return sum("status.json" in url for url in asked) >= 3

    wait_for(some, "the page has asked three times", PATIENCE_SECONDS)
    assert [url for url in asked if not url.startswith((f"{worker.url}/", "data:"))] == []
    assert {url.partition("?")[0] for url in asked if url.startswith("http")} == {
        f"{worker.url}/",
        f"{worker.url}/status.json",
    }
    assert page.complaints == []


def test_only_what_is_new_is_sent_again(page: Tab) -> None:
    """A quarter of an hour of history for each viewer, each two seconds, would be for nothing."""
    asked: list[int] = []

    def some() -> bool:
        asked.extend(int(url.rpartition("=")[2]) for url in page.requests if "after=" in url)
        return len(asked) >= 3

    wait_for(some, "the page has asked three times", PATIENCE_SECONDS)
    assert asked[0] == 0
    assert 0 < asked[1] < asked[-1]


def test_a_name_out_of_the_model_is_text_and_never_markup(page: Tab) -> None:
    assert LABELS[1] in [row[0] for row in page.rows("labels")]
    assert "<b>no device</b>" in page.text("model")
    assert page.run("return document.querySelectorAll('main img, main b:not([id])').length") == 0
    assert page.run("return window.hacked") is None


def test_the_page_may_run_no_other_script_and_ask_no_other_server(page: Tab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        elsewhere = f"http://127.0.0.1:{other.getsockname()[1]}/"
        script = """
            const done = arguments[1];
            const refused = [];
            document.addEventListener("securitypolicyviolation", (event) => {
                refused.push(event.effectiveDirective);
                if (refused.length === 3) done(refused.sort());
            });
            const inline = document.createElement("script");
            inline.textContent = "window.hacked = 2";
            document.body.append(inline);
            const image = document.createElement("img");
            image.src = arguments[0];
            document.body.append(image);
            fetch(arguments[0]).catch(() => {});
        """
        page.driver.set_script_timeout(PATIENCE_SECONDS)
        refused = page.driver.execute_async_script(script, elsewhere)
    assert refused == ["connect-src", "img-src", "script-src-elem"]
    assert page.run("return window.hacked") is None


def test_there_is_no_text_of_a_review_unless_a_setting_asks_for_it(page: Tab, worker: StubWorker) -> None:
    body = worker.get("/status.json")[1]
    assert "great movie" not in body
    assert json.loads(body)["samples"] is None
    assert not page.run("return document.getElementById('samples-card').checkVisibility()")


# === Everybody can use it ===


def test_everything_that_can_be_used_is_reached_by_the_keyboard_in_the_order_of_the_page(page: Tab) -> None:
    usable = page.run("""
        return [...document.querySelectorAll("a[href], button, [tabindex]")].filter((it) => it.checkVisibility()).length
    """)
    reached: list[str] = []
    for _ in range(usable):
        page.press(TAB)
        reached.append(page.focused)
    assert [name.partition(",")[0].partition(" at ")[0] for name in reached] == [
        "Pause",
        *CHARTS,
        "Events",
        "status.json",
        "metrics",
    ]


def test_a_value_of_the_past_can_be_read_by_the_keyboard(page: Tab, worker: StubWorker) -> None:
    wait_for(lambda: newest(worker) > 2, "there is a past", PATIENCE_SECONDS)
    page.press(TAB)
    page.press(TAB)
    assert "chart of the last" in page.focused
    page.press(LEFT)
    assert re.match(r"Reviews per second at \d\d:\d\d:\d\d: ", page.focused)


def tree(page: Tab) -> list[dict[str, Any]]:
    """The accessibility tree, as a screen reader gets it."""
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    return [
        {
            "role": it["role"]["value"],
            "name": it.get("name", {}).get("value", ""),
            **{extra["name"]: extra["value"].get("value") for extra in it.get("properties", ())},
        }
        for it in nodes
        if not it["ignored"]
    ]


def test_a_screen_reader_finds_its_way(page: Tab) -> None:
    found = tree(page)
    roles = [it["role"] for it in found]
    for landmark in ("banner", "main", "contentinfo"):
        assert roles.count(landmark) == 1, landmark
    headings = [it["level"] for it in found if it["role"] == "heading"]
    assert headings[0] == 1
    assert set(headings[1:]) == {2}
    regions = [it["name"] for it in found if it["role"] == "region"]
    assert len(regions) == len(set(regions)) == 12
    assert all(regions)
    assert [
        it for it in found if it["role"] in {"table", "columnheader", "rowheader", "button", "link"} if not it["name"]
    ] == []
    live = [it for it in found if it.get("live") == "polite" and it["role"] == "status"]
    assert len(live) == 1
    assert page.run("return document.querySelectorAll('[aria-live], [role=status], [role=alert]').length") == 1
    assert page.run("return document.documentElement.lang") == "en"


def test_every_chart_says_its_present_value(page: Tab) -> None:
    def says() -> list[str]:
        return [it["name"] for it in tree(page) if it["role"] == "image" and "chart of the last" in it["name"]]

    wait_for(lambda: len(says()) == len(CHARTS), "every chart has something to say", PATIENCE_SECONDS)
    for name, chart in zip(says(), CHARTS, strict=True):
        assert name.startswith(chart)
        assert re.search(r": now .*\d.*; lowest .*\d.*, highest .*\d", name), name


CONTRAST = """
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const colour = (text, over) => {
        canvas.fillStyle = over ? `rgb(${over})` : "white"; canvas.fillRect(0, 0, 1, 1);
        canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const behind = (it) => {
        const line = [];
        for (let at = it; at; at = at.parentElement) line.unshift(getComputedStyle(at).backgroundColor);
        return line.reduce((below, above) => colour(above, below), [255, 255, 255]);
    };
    const light = (rgb) => {
        const [r, g, b] = rgb.map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    for (const it of document.body.querySelectorAll("*")) {
        const own = [...it.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!own || !it.checkVisibility() || ["SCRIPT", "NOSCRIPT"].includes(it.tagName)) continue;
        const below = behind(it);
        const [one, other] = [light(colour(getComputedStyle(it).color, below)), light(below)];
        found.push([(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), it.textContent, light(below)]);
    }
    return found;
"""
"""WCAG 2's contrast of every piece of text with what is behind it, the text, and the luminance behind it."""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_stands_out_in_light_and_in_dark(tab: Tab, worker: StubWorker, scheme: str) -> None:
    tab.open(f"{worker.url}/", prefers_color_scheme=scheme)
    tab.shows("state", "ready")
    wait_for(lambda: tab.rows("reasons"), "figures", PATIENCE_SECONDS)
    found = tab.run(CONTRAST)
    assert len(found) > 60
    assert [(round(ratio, 2), text) for ratio, text, _ in found if ratio < 4.5] == []
    assert all((behind > 0.5) == (scheme == "light") for _, _, behind in found)


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_the_screen_from_a_phone_to_a_wall(tab: Tab, worker: StubWorker, width: int) -> None:
    tab.open(f"{worker.url}/", width)
    tab.shows("state", "ready")
    wait_for(lambda: tab.rows("reasons") and tab.rows("labels"), "figures", PATIENCE_SECONDS)
    assert tab.run("return [document.documentElement.scrollWidth, innerWidth]") == [width, width]
    outside = """
        return [...document.querySelectorAll(".card")].flatMap((card) => {
            const right = card.getBoundingClientRect().right;
            return [...card.querySelectorAll("*")].filter((it) => it.getBoundingClientRect().right > right + 1)
                .map((it) => it.outerHTML.slice(0, 100));
        });
    """
    assert tab.run(outside) == []


@pytest.mark.parametrize(("wish", "moves"), [("reduce", False), ("no-preference", True)])
def test_nothing_moves_for_who_wants_no_motion(tab: Tab, worker: StubWorker, wish: str, moves: bool) -> None:
    tab.open(f"{worker.url}/", prefers_reduced_motion=wish)
    tab.shows("state", "ready")
    wait_for(lambda: tab.rows("labels"), "figures", PATIENCE_SECONDS)
    beat = tab.run("return getComputedStyle(document.getElementById('state'), '::before').animationName")
    glide = tab.run("return getComputedStyle(document.querySelector('.bar i')).transitionDuration")
    assert (beat != "none", glide != "0s") == (moves, moves)


# === When it does not look, or there is nobody ===

ASKED_AT = """
    return performance.getEntriesByType("resource").filter((it) => it.name.includes("status.json"))
        .map((it) => it.startTime);
"""


def newest(worker: StubWorker) -> int:
    """The number of the worker's newest row."""
    return int(json.loads(worker.get("/status.json")[1])["history"]["rows"][-1][0])


def test_it_can_be_paused(page: Tab, worker: StubWorker) -> None:
    page.press(TAB)
    page.press(" ")
    page.shows("detail", "paused")
    assert page.attribute("pause", "aria-pressed") == "true"
    asked, began = len(page.run(ASKED_AT)), newest(worker)
    wait_for(lambda: newest(worker) > began + 3, "the worker has gone on", PATIENCE_SECONDS)
    # One may have been under way.
    assert len(page.run(ASKED_AT)) <= asked + 1
    assert page.text("state") == "ready"
    page.press(" ")
    wait_for(lambda: len(page.run(ASKED_AT)) > asked + 1, "the page asks again", PATIENCE_SECONDS)


def test_nobody_is_asked_while_nobody_looks(page: Tab, worker: StubWorker) -> None:
    page.run("""
        window.turns = [];
        // Before the page itself hears of it.
        window.addEventListener("visibilitychange", () => turns.push(performance.now()), { capture: true });
    """)
    watched = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    try:
        began = newest(worker)
        wait_for(lambda: newest(worker) > began + 3, "the worker has gone on", PATIENCE_SECONDS)
    finally:
        page.driver.close()
        page.driver.switch_to.window(watched)
    wait_for(lambda: page.run("return turns.length") == 2, "it was hidden, and is seen again", PATIENCE_SECONDS)
    hidden, seen = page.run("return turns")
    assert seen - hidden > 4_000
    wait_for(lambda: page.run(ASKED_AT)[-1] >= seen, "the page asks again", PATIENCE_SECONDS)
    # What was under way had begun before.
    assert [at for at in page.run(ASKED_AT) if hidden < at < seen] == []


@pytest.fixture
def start(stage: Stage, hostile_model: Path, tmp_path: Path) -> Iterator[Callable[..., StubWorker]]:
    """Start a worker of a test's own."""
    with started_workers(stage, hostile_model, tmp_path) as start:
        yield start


def test_a_worker_that_goes_away_is_told_and_one_that_comes_back_is_shown(
    tab: Tab, stage: Stage, start: Callable[..., StubWorker]
) -> None:
    port = str(free_ports(1)[0])
    first = start("first", WORKER_HTTP__PORT=port)
    first.wait_until_ready()
    stage.publish([review(1)])
    tab.open(f"{first.url}/")
    tab.shows("reviews", "1 since")
    first.kill()
    tab.shows("state", "no answer")
    assert re.match(r"No answer since [\d.]+ s\. These are the figures of \d\d:\d\d:\d\d\.", tab.text("alarm"))
    since = tab.text("alarm")
    wait_for(lambda: tab.text("alarm") != since, "it says for how long", PATIENCE_SECONDS)
    assert tab.driver.title.startswith("no answer")
    assert tab.requests[-1].partition("after=")[2] != "0"
    second = start("second", WORKER_HTTP__PORT=port)
    second.wait_until_ready()
    # It counts from the beginning, and so does its history, which is asked for anew.
    tab.shows("reviews", "0 since")
    assert any(url.endswith("after=0") for url in tab.requests)
    assert tab.text("alarm") == ""
    tab.shows("state", "idle")


def test_a_sample_of_texts_is_shown_where_a_setting_asks_for_it(
    tab: Tab, stage: Stage, start: Callable[..., StubWorker]
) -> None:
    worker = start("worker", WORKER_PAGE__SAMPLES="2")
    worker.wait_until_ready()
    texts = ["the first of all", "<script>window.hacked = 3</script>", "great\nmovie " * 50]
    stage.publish([review(place, text) for place, text in enumerate(texts)])
    tab.open(f"{worker.url}/")
    wait_for(lambda: len(tab.rows("samples")) == 2, "two samples", PATIENCE_SECONDS)
    shown = {row[0] for row in tab.rows("samples")}
    assert all(len(text) <= 160 for text in shown)
    assert shown < {texts[0], texts[1], ("great movie " * 50)[:159].rstrip() + "…"}
    assert tab.run("return window.hacked") is None
    (warning,) = [line for line in worker.lines if "WORKER_PAGE__SAMPLES" in str(line["event"])]
    assert warning["level"] == "warning"


def test_the_log_says_where_the_page_is(worker: StubWorker) -> None:
    (line,) = [line for line in worker.lines if line["event"] == "starting"]
    assert line["page"] == f"{worker.url}/"
    with urllib.request.urlopen(str(line["page"]), timeout=10) as answer:  # noqa: S310 - loopback
        assert b"<title>Review worker</title>" in answer.read()
