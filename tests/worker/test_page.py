"""Page: figures out of readings, without a browser; `tests/browser` has the page itself."""

import base64
import hashlib
import json
import logging
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas import ModelName, Prediction, Reason, Rejection, Review, Source
from worker.engine import EngineDescription
from worker.metrics import Metrics
from worker.page import Condition, Page, Samples
from worker.page.figures import COLUMNS, EVENTS, LONG_SECONDS, STEP_SECONDS, Figures, dumps
from worker.page.reading import parts, quantile, read
from worker.page.samples import TEXT_CHARACTERS
from worker.service import State
from worker.settings import Settings
from worker.watchdog import Watchdog

READY = Condition("ready", "scoring")
MODEL = ModelName(name="tiny", version=3, digest="sha256:" + "5" * 64)
ENGINE = EngineDescription("fake", "no device", "float32", "a test")


class Story:
    """A worker's metrics over time: `story.step()` lets two seconds pass and takes a reading."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.figures = Figures()
        self.clock = 1_000.0
        self.step(0)

    def step(self, seconds: float = STEP_SECONDS, condition: Condition = READY) -> dict[str, Any]:
        return self.steps(1, seconds=seconds, condition=condition)

    def steps(
        self,
        number: int,
        event: Callable[[], object] = lambda: None,
        *,
        seconds: float = STEP_SECONDS,
        condition: Condition = READY,
    ) -> dict[str, Any]:
        for _ in range(number):
            event()
            self.clock += seconds
            self.figures.take(read(self.metrics, self.clock), condition)
        return self.document

    @property
    def document(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(dumps(self.figures.document))
        return told


@pytest.fixture
def story() -> Story:
    return Story()


# === What is computed ===


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.5, 0.1), (0.25, 0.05), (0.75, 0.15), (0.9, 0.18), (0.95, 0.19), (0.0, 0.0)],
)
def test_a_quantile_is_that_of_prometheus(share: float, expected: float) -> None:
    buckets = {"0.1": 5.0, "0.2": 10.0, "+Inf": 10.0}

    assert quantile(buckets, share) == pytest.approx(expected)


def test_a_quantile_beyond_the_last_bound_is_that_bound_and_of_nothing_is_none() -> None:
    assert quantile({"0.1": 0.0, "0.2": 0.0, "+Inf": 3.0}, 0.5) == 0.2
    assert quantile({"0.1": 0.0, "+Inf": 0.0}, 0.5) is None
    assert quantile({}, 0.5) is None


def test_buckets_come_apart_in_the_order_of_their_bounds() -> None:
    assert parts({"+Inf": 9.0, "0.1": 2.0, "0.9": 6.0}) == [(0.1, 2.0), (0.9, 4.0), (math.inf, 3.0)]


def test_a_rate_is_of_the_last_ten_seconds(story: Story) -> None:
    story.steps(10, lambda: story.metrics.consumed.inc(100))
    assert story.document["figures"]["reviews_per_second"] == 50

    assert story.steps(4)["figures"]["reviews_per_second"] == 10
    assert story.steps(1)["figures"]["reviews_per_second"] == 0
    assert story.document["reviews"] == 1000


def test_latency_is_of_the_last_minute(story: Story) -> None:
    story.metrics.end_to_end.observe(20)
    assert story.steps(30)["figures"]["latency_p50"] == pytest.approx(20)

    assert story.steps(1)["figures"]["latency_p50"] is None


def test_labels_reasons_and_confidence_are_of_the_last_quarter_of_an_hour(story: Story) -> None:
    story.metrics.predictions.labels("positive").inc(7)
    story.metrics.rejections.labels("not_json").inc(2)
    story.metrics.confidence.observe(0.97)
    told = story.steps(450)
    assert told["labels"] == [{"name": "positive", "total": 7, "recent": 7}]
    assert told["dead_letters"] == [{"name": "not_json", "total": 2, "recent": 2}]
    assert [it for it in told["confidence"] if it["recent"]] == [{"below": 0.98, "recent": 1}]

    # The readings that go so far back are half a minute apart.
    told = story.steps(30)
    assert told["labels"] == [{"name": "positive", "total": 7, "recent": 0}]
    assert told["dead_letters"] == [{"name": "not_json", "total": 2, "recent": 0}]
    assert [it for it in told["confidence"] if it["recent"]] == []


def test_batches_stages_and_device_have_their_means(story: Story) -> None:
    metrics = story.metrics
    metrics.batch_reviews.observe(10)
    metrics.batch_reviews.observe(30)
    metrics.batch_tokens.observe(300)
    metrics.stage_seconds.labels("score").observe(0.5)
    metrics.device_busy.inc(1)
    metrics.padding_ratio.set(0.25)
    told = story.step()
    assert told["figures"]["batch_reviews"] == 20
    assert told["batch_tokens"] == 300
    assert told["figures"]["device_busy"] == 0.5
    assert told["figures"]["padding"] == 0.25
    stages = {it["stage"]: it["seconds"] for it in told["stages"]}
    assert stages == {"poll": None, "intake": None, "tokenize": None, "score": 0.5, "commit": None}
    assert list(stages) == ["poll", "intake", "tokenize", "score", "commit"]


def test_a_batch_longer_than_the_window_makes_the_device_no_more_than_busy(story: Story) -> None:
    story.metrics.device_busy.inc(25)

    assert story.step()["figures"]["device_busy"] == 1


def test_lag_is_shown_by_partition_and_drain_without_an_end_is_null(story: Story) -> None:
    story.metrics.show_lag({("reviews", 1): 5, ("reviews", 0): 7}, rate=0)
    told = story.step()
    assert told["partitions"] == [{"partition": 0, "lag": 7}, {"partition": 1, "lag": 5}]
    assert told["figures"]["lag_records"] == 12
    assert told["drain_seconds"] is None

    story.metrics.show_lag({("reviews", 1): 6}, rate=3)
    told = story.step()
    assert told["partitions"] == [{"partition": 1, "lag": 6}]
    assert told["drain_seconds"] == 2


def test_numbers_are_finite_and_short() -> None:
    assert dumps(
        [math.inf, -math.inf, math.nan, 0.0, 1 / 3, 1e-9 / 3, 1795416175.26, 12, None, "x", {"a": [2 / 3]}]
    ) == ('[null,null,null,0,0.33333,3.3333e-10,1795416175.3,12,null,"x",{"a":[0.66667]}]')


# === What the worker is doing ===


def test_a_worker_without_traffic_is_idle_and_ready_again_with_it(story: Story) -> None:
    assert story.steps(4)["state"]["name"] == "ready"
    assert story.steps(1)["state"] == {"name": "idle", "detail": "nothing waits on the input topic", "since": ANY_TIME}

    story.metrics.consumed.inc()
    assert story.step()["state"]["name"] == "ready"


class _AnyTime:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and other > 1_700_000_000

    __hash__ = None  # type: ignore[assignment]


ANY_TIME = _AnyTime()


def test_a_worker_that_commits_nothing_while_records_wait_is_stuck(story: Story) -> None:
    story.metrics.show_lag({("reviews", 0): 1_200}, rate=0)
    assert story.steps(14)["state"]["name"] == "ready"
    told = story.steps(1)["state"]
    assert (told["name"], told["detail"]) == ("stuck", "1,200 records wait, and none was committed for 30 s")

    story.metrics.consumed.inc(10)
    assert story.step()["state"]["name"] == "ready"


@pytest.mark.parametrize("name", ["starting", "loading", "joining", "stopping", "stuck"])
def test_whoever_does_not_take_part_is_neither_idle_nor_stuck(story: Story, name: Any) -> None:
    story.metrics.show_lag({("reviews", 0): 5}, rate=0)
    for _ in range(40):
        told = story.step(condition=Condition(name, "why"))["state"]
        assert (told["name"], told["detail"]) == (name, "why")
    # Who has just come has not been idle before.
    assert story.step()["state"]["name"] == "ready"


def test_what_happens_is_told_once_and_the_newest_first(story: Story) -> None:
    story.metrics.rebalances.inc()
    story.steps(3)
    story.metrics.reloads.labels("refused").inc()
    story.metrics.transactions.labels("aborted").inc()
    story.steps(3)
    assert [it["text"] for it in story.document["events"]] == [
        "State: idle",
        "A transaction was aborted, and its batch is read again",
        "A newer model was refused; the log says why",
        "The group shared out its partitions",
        "State: ready",
    ]


def test_committed_transactions_are_no_news(story: Story) -> None:
    before = len(story.document["events"])
    story.metrics.transactions.labels("committed").inc()
    story.metrics.consumed.inc()

    assert len(story.step()["events"]) == before


def test_it_keeps_no_more_however_long_it_runs(story: Story) -> None:
    story.steps(1_000, story.metrics.rebalances.inc)
    rows = story.figures.rows
    assert [number for number, _ in rows] == list(range(552, 1_002))
    assert len(rows) * STEP_SECONDS == LONG_SECONDS
    assert len(story.document["events"]) == EVENTS
    kept = [len(it) for it in vars(story.figures).values() if hasattr(it, "maxlen")]
    assert max(kept) == len(rows)
    assert sum(kept) < 550


# === State, as the service has it ===


class FakeSource:
    def __init__(self, joined: bool) -> None:
        self.joined = joined


def state(stage: str | None, age: float = 1, joined: bool | None = None, stopping: bool = False) -> Condition:
    made = State()
    if stage is not None:
        made.watchdog = Watchdog(60)
        made.watchdog.stage = stage
        made.watchdog._since -= age
    if joined is not None:
        made.source = FakeSource(joined)  # type: ignore[assignment]
    if stopping:
        made.stopping.set()
    return made.condition()


@pytest.mark.parametrize(
    ("condition", "name"),
    [
        (state(None), "starting"),
        (state("find topics"), "starting"),
        (state("load model"), "loading"),
        (state("load model", age=300), "loading"),
        (state("connect"), "starting"),
        (state("poll", joined=False), "joining"),
        (state("poll", joined=True), "ready"),
        (state("commit", age=31, joined=True), "stuck"),
        (state("connect", age=31), "stuck"),
        (state("commit", joined=True, stopping=True), "stopping"),
        (state("close", joined=False, stopping=True), "stopping"),
        (state("close", age=31, joined=False, stopping=True), "stuck"),
    ],
)
def test_the_state_follows_stage_group_and_signal(condition: Condition, name: str) -> None:
    assert condition.name == name


def test_a_stage_that_takes_long_is_named() -> None:
    assert state("commit", age=31.2, joined=True).detail == "in the stage commit for 31 s"


# === The document and the page ===


def page(metrics: Metrics | None = None, samples: Samples | None = None) -> Page:
    made = Page(metrics or Metrics(), lambda: READY, Settings(), samples)
    made.refresh()
    return made


def test_every_field_is_documented_and_everything_documented_is_there() -> None:
    told = json.loads(page().status())
    lines = re.findall(r"^ {12}([a-z][a-z_, ]*?)(?: {2,}|$)", Page.status.__doc__ or "", re.MULTILINE)
    documented = [name for line in lines for name in line.split(", ")]
    assert sorted(documented) == sorted(told)
    assert told["format"] == 1


def test_the_model_and_the_shadow_are_named_once_they_are_known() -> None:
    metrics = Metrics()
    made = page(metrics)
    assert json.loads(made.status())["model"] is None
    assert json.loads(made.status())["shadow"] is None

    metrics.show_model(MODEL, ENGINE, ["negative", "positive"])
    made.shadow = MODEL
    made.refresh()
    told = json.loads(made.status())
    assert told["model"] == {
        "name": "tiny",
        "version": "3",
        "digest": MODEL.digest,
        "engine": "fake",
        "device": "no device",
        "precision": "float32",
    }
    assert told["shadow"] == {"name": "tiny", "version": 3}
    assert [it["name"] for it in told["labels"]] == ["negative", "positive"]


def test_who_has_a_row_is_not_sent_it_again() -> None:
    made = page()
    for _ in range(4):
        made.refresh()
    rows = json.loads(made.status())["history"]["rows"]
    assert json.loads(made.status())["history"]["columns"] == list(COLUMNS)
    assert [dict(zip(COLUMNS, row, strict=True))["number"] for row in rows] == [1, 2, 3, 4, 5]

    assert json.loads(made.status(after=3))["history"]["rows"] == rows[3:]
    assert json.loads(made.status(after=9))["history"]["rows"] == []


def test_the_figures_are_refreshed_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.page.STEP_SECONDS", 0.01)
    metrics = Metrics()
    with Page(metrics, lambda: READY, Settings()) as made:
        metrics.consumed.inc(5)
        while json.loads(made.status())["reviews"] != 5:
            pass


def test_a_reading_that_fails_is_logged_and_the_next_one_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("worker.page.STEP_SECONDS", 0.01)
    answers = iter([READY, None, None])

    def condition() -> Condition:
        return next(answers, READY) or fail()

    def fail() -> Condition:
        raise RuntimeError

    with caplog.at_level(logging.WARNING), Page(Metrics(), condition, Settings()) as made:
        while len(json.loads(made.status())["history"]["rows"]) < 3:
            pass
    assert [record.message for record in caplog.records] == ["the page's figures could not be refreshed"] * 2


def test_the_page_asks_nobody_else() -> None:
    """One file, without a font, script or picture from elsewhere: it works where there is no other network."""
    html = page().html.decode()
    without_names = html.replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", without_names) == []
    assert not re.search(r"@import|url\(|<link(?! rel=\"icon\" href=\"data:)|<(script|img|iframe)[^>]*src", html)
    # Below a proxy's path it is still its own server that it asks.
    assert set(re.findall(r'href="(?!data:)([^"]*)"', html)) == {"status.json", "metrics"}


def test_only_the_pages_own_script_and_style_are_allowed() -> None:
    made = page()
    rules = dict(rule.split(" ", 1) for rule in made.headers["Content-Security-Policy"].split("; "))
    html = made.html.decode()
    for tag in ("script", "style"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert rules["connect-src"] == "'self'"
    # A policy without 'unsafe-inline' would ignore these, and the page would be without its bars.
    assert not re.search(r"<[^>]+ (style|on\w+)=", html.partition("<script>")[0])


# === Samples ===


def pairs(texts: Sequence[str]) -> tuple[list[Review | Rejection], list[Prediction | Rejection]]:
    """What was read and what became of it; an empty text is a dead letter."""
    read_: list[Review | Rejection] = []
    outcomes: list[Prediction | Rejection] = []
    for offset, text in enumerate(texts):
        source = Source(topic="reviews", partition=0, offset=offset)
        if not text:
            rejection = Rejection(reason=Reason.EMPTY, detail="no bytes", source=source)
            read_.append(rejection)
            outcomes.append(rejection)
            continue
        read_.append(Review(review_id="r", text=text))
        outcomes.append(
            Prediction.model_validate(
                {
                    "review_id": "r",
                    "label": "positive",
                    "label_id": 1,
                    "confidence": 0.75,
                    "probabilities": {"negative": 0.25, "positive": 0.75},
                    "model": MODEL,
                    "source": source,
                    "tokens": 3,
                    "truncated": False,
                    "scored_at": datetime(2026, 11, 23, 9, tzinfo=UTC),
                }
            )
        )
    return read_, outcomes


def test_the_last_predictions_are_kept_the_newest_first() -> None:
    samples = Samples(3)
    samples.follow(*pairs(["first", "second"]))
    samples.follow(*pairs(["third", "", "fourth", ""]))
    assert [it.text for it in samples.last] == ["fourth", "third", "second"]
    assert {(it.label, it.confidence) for it in samples.last} == {("positive", 0.75)}

    samples.follow(*pairs([""]))
    assert [it.text for it in samples.last] == ["fourth", "third", "second"]


@pytest.mark.parametrize("text", ["x" * 100_000, "many words " * 9_000, "a" * TEXT_CHARACTERS + "b"])
def test_no_more_of_a_text_is_kept_than_is_shown(text: str) -> None:
    samples = Samples(1)
    samples.follow(*pairs([text]))
    (sample,) = samples.last
    assert len(sample.text) <= TEXT_CHARACTERS
    assert sample.text.endswith("…")
    assert text.startswith(sample.text[:-1])


def test_a_text_of_many_lines_is_shown_on_one() -> None:
    samples = Samples(1)
    samples.follow(*pairs(["one\n\n two\tthree "]))
    assert samples.last[0].text == "one two three"


def test_samples_are_in_the_document_only_where_they_are_asked_for() -> None:
    samples = Samples(2)
    assert json.loads(page(samples=samples).status())["samples"] == []
    samples.follow(*pairs(["<b>bold</b>"]))
    assert json.loads(page(samples=samples).status())["samples"] == [
        {"text": "<b>bold</b>", "label": "positive", "confidence": 0.75}
    ]
    assert json.loads(page().status())["samples"] is None
