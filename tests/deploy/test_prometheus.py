"""Prometheus' configuration, rules and alerts, by Debian's promtool: are they right, does each alert fire when it is to
and only then, and does its entry in the runbook exist."""

import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.monitoring import (
    PROMETHEUS,
    RUNBOOK,
    exposed,
    groups,
    metrics_of,
    misnamed,
    promtool,
    read_yaml,
    rules,
    selectors,
    tool,
)
from worker.settings import Settings, known_settings, variable

CONFIGURATION = PROMETHEUS / "prometheus.yml"
RECORDING, ALERTS = "recording.yml", "alerts.yml"
CASES = sorted((PROMETHEUS / "tests").glob("*.yml"))

SEVERITIES = {"critical", "warning", "info"}
MINUTES = {"5m": 5, "30m": 30, "1h": 60, "6h": 360, "3d": 4320}

every_rule = pytest.mark.parametrize(
    "rule", [pytest.param(rule, id=rule.get("alert") or rule["record"]) for rule in rules(RECORDING, ALERTS)]
)
every_alert = pytest.mark.parametrize("alert", [pytest.param(rule, id=rule["alert"]) for rule in rules(ALERTS)])


def runbook() -> dict[str, str]:
    """The runbook's sections by the anchors that GitHub gives their headings."""
    parts = re.split(r"^#+ (.+)$", RUNBOOK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"): text
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }


# === promtool ===


def test_a_tool_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AssertionError, match="apt-get install prometheus"):
        tool("promtool")


def test_prometheus_takes_the_configuration() -> None:
    done = promtool("check", "config", "--lint=all", "--lint-fatal", CONFIGURATION)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rule files found" in done.stdout


def test_prometheus_takes_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", *sorted((PROMETHEUS / "rules").glob("*.yml")))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_are_to(cases: Any) -> None:
    done = promtool("test", "rules", cases)
    assert done.returncode == 0, done.stdout + done.stderr


# === The cases ===


@every_alert
def test_an_alert_has_a_case_that_fires_and_one_that_does_not(alert: dict[str, Any]) -> None:
    cases = [
        case
        for file in CASES
        for test in read_yaml(file)["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == alert["alert"]
    ]
    assert [case for case in cases if case.get("exp_alerts")], "none fires"
    assert [case for case in cases if not case.get("exp_alerts")], "none is quiet"


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_what_is_recorded_is_evaluated_before_the_alerts_that_ask_for_it(cases: Any) -> None:
    """promtool takes the groups that it is not told the order of in any."""
    assert read_yaml(cases)["group_eval_order"] == [group["name"] for group in groups(RECORDING, ALERTS)]


def test_a_groups_name_is_its_own() -> None:
    names = [group["name"] for group in groups(RECORDING, ALERTS)]
    assert len(names) == len(set(names))


# === The rules ===


@every_rule
def test_a_rule_asks_for_what_the_worker_exposes(rule: dict[str, Any]) -> None:
    assert list(misnamed(rule["expr"])) == []


@every_rule
def test_a_rule_asks_for_what_another_one_records(rule: dict[str, Any]) -> None:
    recorded = {it["record"] for it in rules(RECORDING)}
    assert set(re.findall(r"\b\w+:\w+:\w+\b", rule["expr"])) <= recorded


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule["record"]) for rule in rules(RECORDING)])
def test_what_is_recorded_is_named_by_level_metric_and_operation(rule: dict[str, Any]) -> None:
    assert re.fullmatch(
        r"(job|instance|job_label):review_worker_[a-z_]+:(sum|rate|ratio|ratio_(rate|avg))\w*", rule["record"]
    )


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("rate(review_worker_rejections_total[5m])", []),
        ("rate(review_worker_rejection_total[5m])", ["no metric review_worker_rejection_total"]),
        (
            'review_worker_model_reloads_total{outcome="rejected"}',
            ["review_worker_model_reloads_total has no outcome=rejected"],
        ),
        (
            'review_worker_shadow_reviews_total{agreement=~"same|other"}',
            ["review_worker_shadow_reviews_total has no agreement=other"],
        ),
        (
            'review_worker_end_to_end_seconds_bucket{le="45.0"}',
            ["review_worker_end_to_end_seconds_bucket has no le=45.0"],
        ),
        ("job:review_worker_lag_records:sum", []),
        ('up{job="review-worker"}', []),
    ],
)
def test_a_query_that_can_only_be_empty_would_be_found(query: str, found: list[str]) -> None:
    assert list(misnamed(query)) == found


def test_the_rules_and_the_scrape_name_the_same_job() -> None:
    (scrape,) = read_yaml(CONFIGURATION)["scrape_configs"]
    named = {
        matchers["job"]
        for rule in rules(RECORDING, ALERTS)
        for _, matchers in selectors(rule["expr"])
        if "job" in matchers
    }
    assert named == {("=", scrape["job_name"])}


def test_series_that_every_process_has_are_asked_for_by_job() -> None:
    """`up` or `process_…` of another program would ring our bell."""
    for rule in rules(RECORDING, ALERTS):
        shared = {name for name in metrics_of(rule["expr"]) if not name.startswith("review_worker_")}
        by_job = [name for name, matchers in selectors(rule["expr"]) if "job" in matchers]
        for name in shared:
            assert by_job.count(name) == len(re.findall(rf"\b{name}\b", rule["expr"])), rule


def test_the_scrape_asks_where_a_worker_answers() -> None:
    (scrape,) = read_yaml(CONFIGURATION)["scrape_configs"]
    http = Settings.model_fields["http"].default
    assert scrape["static_configs"] == [{"targets": [f"{http.host}:{http.port}"]}]


# === The alerts ===


@every_alert
def test_an_alert_says_how_bad_what_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert re.fullmatch(r"ReviewWorker([A-Z][a-z]+)+", alert["alert"])
    assert alert["labels"]["severity"] in SEVERITIES
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["summary"].endswith(".")
    assert "{{" not in alert["annotations"]["summary"], "it would split a notification's group"


@every_alert
def test_an_alert_has_its_entry_in_the_runbook(alert: dict[str, Any]) -> None:
    path, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert path == "deploy/README.md"
    assert anchor == alert["alert"].lower()
    entry = runbook()[anchor]
    for part in ("**Means:**", "**Look at:**", "**Do:**"):
        assert part in entry


def test_the_runbook_has_no_entry_of_an_alert_that_is_gone() -> None:
    entries = {anchor for anchor in runbook() if anchor.startswith("reviewworker")}
    assert entries == {rule["alert"].lower() for rule in rules(ALERTS)}


def test_the_runbook_names_settings_that_exist() -> None:
    known = {variable(setting) for setting in known_settings()}
    assert set(re.findall(r"\bWORKER_\w+", RUNBOOK.read_text(encoding="utf-8"))) <= known


def test_the_runbooks_own_links_lead_somewhere() -> None:
    assert set(re.findall(r"\]\(#([\w-]+)\)", RUNBOOK.read_text(encoding="utf-8"))) <= runbook().keys()


def test_the_runbooks_queries_can_be_asked(tmp_path: Path) -> None:
    queries = re.findall(r"^\| [A-Z], .* \| `(.+)` \|$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert queries
    for query in queries:
        assert list(misnamed(query)) == []
    file = tmp_path / "queries.yml"
    asked = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": asked}]}), encoding="utf-8")
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


# === Latency ===


@pytest.mark.parametrize(
    ("name", "factor", "windows"),
    [
        ("ReviewWorkerLatencyBurnsFast", "14.4", ("1h", "5m")),
        ("ReviewWorkerLatencyBurns", "6", ("6h", "30m")),
        ("ReviewWorkerLatencyBudget", "1", ("3d", "6h")),
    ],
)
def test_a_burn_rate_is_asked_of_a_long_and_a_short_window(name: str, factor: str, windows: tuple[str, str]) -> None:
    """A twelfth of the long one: the alert ends as soon after its cause."""
    (alert,) = [rule for rule in rules(ALERTS) if rule["alert"] == name]
    asked = re.findall(r"job:review_worker_late:ratio_rate(\w+) > ([\d.]+) \* 0\.01", alert["expr"])
    assert asked == [(window, factor) for window in windows]
    assert MINUTES[windows[0]] == 12 * MINUTES[windows[1]]


def test_a_late_ratio_is_of_the_window_that_its_name_says() -> None:
    late = [rule for rule in rules(RECORDING) if ":review_worker_late:" in rule["record"]]
    assert {rule["record"].partition("ratio_rate")[2] for rule in late} == MINUTES.keys()
    for rule in late:
        assert set(re.findall(r"\[(\w+)\]", rule["expr"])) == {rule["record"].partition("ratio_rate")[2]}


def test_late_means_the_same_everywhere() -> None:
    """The rules, and the texts that speak of 30 seconds."""
    bounds = {
        matchers["le"]
        for rule in chain(rules(RECORDING), rules(ALERTS))
        for name, matchers in selectors(rule["expr"])
        if name.endswith("_bucket")
    }
    assert bounds == {("=", "30.0")}
    assert "30.0" in exposed()["review_worker_end_to_end_seconds_bucket"]["le"]
    for rule in rules(ALERTS):
        if "Latency" in rule["alert"]:
            assert "30 seconds" in rule["annotations"]["description"]
