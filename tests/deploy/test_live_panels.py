"""A real Prometheus on a real worker under load: no panel is empty, and every rule can be evaluated."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contract.pieces import StubWorker, flowing, review, started_stubs, wait_for
from deploy.live import PATIENCE_SECONDS, RATE_INTERVAL, Prometheus, prometheus
from deploy.monitoring import Panel, filled_in, panels, promtool, rules, variable
from running import Broker, Stage

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def mostly_reviews(number: int) -> list[bytes]:
    """Forty-nine reviews, and a record that is none."""
    return [*(review(number + one) for one in range(49)), b"no review"]


@dataclass(frozen=True)
class Watched:
    """A worker that scores, and the Prometheus that looks at it."""

    worker: StubWorker
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(
    kafka: Broker, tiny_artifact: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """Under load, with a second model, for all tests of this file."""
    folder = tmp_path_factory.mktemp("watched")
    stage = Stage(kafka.address, partitions=2)
    stage.make_topics()
    model = tiny_artifact(folder / "models" / "tiny").parent
    shadow = tiny_artifact(folder / "shadow", 2)
    with ExitStack() as stack:
        start = stack.enter_context(started_stubs(stage, model, folder))
        worker = start(STUB_SECONDS="0.02", WORKER_SHADOW__MODEL=str(shadow), WORKER_SHADOW__SHARE="1")
        worker.wait_until_ready()
        stack.enter_context(flowing(stage, mostly_reviews, 1))
        looking = stack.enter_context(prometheus(folder, worker.url.removeprefix("http://")))
        yield Watched(worker, looking)


@pytest.mark.parametrize("panel", [pytest.param(panel, id=panel.name) for panel in panels()])
def test_no_panel_is_empty(watched: Watched, panel: Panel) -> None:
    for query in panel.queries:
        sent = filled_in(query, RATE_INTERVAL)
        wait_for(lambda sent=sent: watched.prometheus.query(sent), sent, PATIENCE_SECONDS)


@pytest.mark.parametrize("name", ["job", "instance"])
def test_there_is_something_to_choose(watched: Watched, name: str) -> None:
    selector, label = re.findall(r"^label_values\((.+), (\w+)\)$", filled_in(variable(name)["definition"]))[0]
    wait_for(lambda: watched.prometheus.get(f"label/{label}/values", **{"match[]": selector}), selector)


def test_every_rule_can_be_evaluated(watched: Watched) -> None:
    def loaded() -> list[dict[str, Any]]:
        return [rule for group in watched.prometheus.get("rules")["groups"] for rule in group["rules"]]

    wait_for(lambda: all(rule["health"] != "unknown" for rule in loaded()), "every rule was evaluated")
    found = loaded()
    assert len(found) == len(rules("recording.yml", "alerts.yml"))
    assert [rule for rule in found if rule["health"] != "ok" or rule.get("lastError")] == []


@pytest.mark.parametrize("name", [rule["record"] for rule in rules("recording.yml") if "offset" not in rule["expr"]])
def test_what_is_recorded_has_values(watched: Watched, name: str) -> None:
    wait_for(lambda: watched.prometheus.query(name), name, PATIENCE_SECONDS)


def test_a_worker_that_is_well_rings_no_bell(watched: Watched) -> None:
    """Not in all the time that the other tests took; pending is what waits for longer."""
    wait_for(lambda: watched.prometheus.query("job:review_worker_late:ratio_rate1h"), "alerts have what they compare")
    assert watched.prometheus.query('count_over_time(ALERTS{alertstate="firing"}[5m])') == []


def test_the_worker_is_asked_and_answers(watched: Watched) -> None:
    wait_for(lambda: watched.prometheus.query('up{job="review-worker"}') == [1.0], "the scrape works")
    (target,) = watched.prometheus.get("targets")["activeTargets"]
    assert target["scrapeUrl"] == f"{watched.worker.url}/metrics"


def test_promtool_finds_nothing_wrong_with_what_a_worker_exposes(watched: Watched) -> None:
    status, text = watched.worker.get("/metrics")
    assert status == 200
    done = promtool("check", "metrics", text=text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
