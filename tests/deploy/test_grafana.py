"""The dashboard, by the rules of Grafana's dashboard linter and some of our own, and the provisioning around it."""

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.monitoring import (
    DASHBOARD,
    GRAFANA,
    PROMETHEUS,
    RATE_INTERVAL,
    Panel,
    dashboard,
    exposed,
    filled_in,
    metrics_of,
    misnamed,
    panels,
    promtool,
    read_yaml,
    selectors,
    variable,
    without_strings,
)

ROWS = [
    "Health",
    "Throughput and lag",
    "Latency by stage",
    "Batches and padding",
    "Predictions",
    "Dead letters",
    "Device",
    "Models",
]
UNITS = {"none", "short", "percentunit", "s", "cps", "ops", "bytes"}
"""Those of Grafana's list that fit what is shown; a unit that is not on its list is shown as a suffix."""

COUNTER = re.compile(r"_(total|bucket|sum|count)$")
WIDTH = 24
PROVISIONED = Path("/var/lib/grafana/dashboards")

every_panel = pytest.mark.parametrize("panel", [pytest.param(panel, id=panel.name) for panel in panels()])


def faults(query: str) -> Iterator[str]:
    """What the linter would say of a query: the job and the instance of every series are those that were chosen, and a
    counter is only looked at through its rate, over an interval that Grafana chooses."""
    bare = re.sub(r"\{[^}]*\}", "{}", without_strings(query))
    for name in metrics_of(query):
        if len(re.findall(rf"(?<!\w){name}(?!\w)", bare)) != bare.count(f"{name}{{}}"):
            yield f"{name} has no matchers"
        if COUNTER.search(name):
            rates = re.findall(rf"\b(?:rate|irate|increase)\({name}\{{\}}\[", bare)
            if len(rates) != bare.count(f"{name}{{}}"):
                yield f"{name} is a counter without rate"
    for name, matchers in selectors(query):
        yield from (
            f"{name} is of any {label}" for label in ("job", "instance") if matchers.get(label) != ("=~", f"${label}")
        )
    yield from (f"an interval of {it}" for it in re.findall(r"\[([^\]]*)\]", query) if it != RATE_INTERVAL)


# === The dashboard ===


def test_the_dashboard_keeps_its_address_and_is_changed_in_its_file() -> None:
    model = dashboard()
    assert model["uid"] == "review-worker"
    assert model["title"] == "Review worker"
    assert model["editable"] is False
    assert "id" not in model, "it is the database's"


def test_the_rows_follow_the_route() -> None:
    assert [model["title"] for model in dashboard()["panels"] if model["type"] == "row"] == ROWS
    assert {panel.row for panel in panels()} == set(ROWS), "a row is empty"


def test_panels_stand_side_by_side() -> None:
    models = dashboard()["panels"]
    assert len({model["id"] for model in models}) == len(models)
    places = [model["gridPos"] for model in models]
    for place in places:
        assert place["x"] + place["w"] <= WIDTH
    for one, other in combinations(places, 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart or below, (one, other)


def test_everything_that_the_worker_counts_is_shown() -> None:
    shown = {name for panel in panels() for query in panel.queries for name in metrics_of(query)}
    families = {COUNTER.sub("", name) for name in shown}
    counted = {COUNTER.sub("", name) for name in exposed() if name.startswith("review_worker_")}
    assert counted <= families


# === Variables ===


def test_the_data_source_can_be_chosen() -> None:
    it = variable("datasource")
    assert (it["type"], it["query"], it["label"]) == ("datasource", "prometheus", "Data source")


@pytest.mark.parametrize("name", ["job", "instance"])
def test_jobs_and_instances_can_be_chosen(name: str) -> None:
    it = variable(name)
    assert it["type"] == "query"
    assert it["label"] == name.title()
    assert it["datasource"]["uid"] == "${datasource}"
    assert it["multi"]
    assert it["includeAll"]
    assert it["allValue"] == ".+"
    on_time_change = 2
    assert it["refresh"] == on_time_change
    (found,) = re.findall(rf"^label_values\((.+), {name}\)$", it["definition"])
    assert it["query"]["query"] == it["definition"]
    assert list(misnamed(found)) == []


def test_only_instances_of_the_chosen_jobs_can_be_chosen() -> None:
    assert 'job=~"$job"' in variable("instance")["definition"]


# === Panels ===


@every_panel
def test_a_panel_says_what_it_shows_and_in_what_unit(panel: Panel) -> None:
    assert panel.model["title"]
    assert panel.model["description"].endswith(".")
    assert panel.model["fieldConfig"]["defaults"]["unit"] in UNITS


@every_panel
def test_a_panel_asks_the_chosen_data_source(panel: Panel) -> None:
    assert panel.model["targets"]
    for asked in (panel.model, *panel.model["targets"]):
        assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@every_panel
def test_a_panels_queries_follow_the_linters_rules(panel: Panel) -> None:
    for query in panel.queries:
        assert metrics_of(query)
        assert list(faults(query)) == []


@every_panel
def test_a_panels_queries_ask_for_what_the_worker_exposes(panel: Panel) -> None:
    for query in panel.queries:
        assert list(misnamed(query)) == []


@every_panel
def test_lines_of_a_panel_have_names(panel: Panel) -> None:
    legends = [target["legendFormat"] for target in panel.model["targets"]]
    if panel.model["type"] != "table":
        assert all(legends)
    assert len(set(legends)) == len(legends)
    for query, legend in zip(panel.queries, legends, strict=True):
        grouped = {label for labels in re.findall(r"by \(([^)]*)\)", query) for label in labels.split(", ")}
        kept = grouped or ({"instance"} if not re.search(r"\b(sum|avg|count)\(", query) else set())
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= kept


def test_every_query_is_promql(tmp_path: Path) -> None:
    queries = [filled_in(query) for panel in panels() for query in panel.queries]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not [query for query in queries if "$" in query], "a variable that nothing fills in"


CHOSEN = 'job=~"$job", instance=~"$instance"'


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (f"rate(review_worker_rebalances_total{{{CHOSEN}}}[$__rate_interval])", []),
        (f"sum(review_worker_ready{{{CHOSEN}}})", []),
        ("sum(review_worker_ready)", ["review_worker_ready has no matchers"]),
        ('review_worker_ready{job=~"$job"}', ["review_worker_ready is of any instance"]),
        ('review_worker_ready{job="$job", instance=~"$instance"}', ["review_worker_ready is of any job"]),
        (
            f"rate(review_worker_rebalances_total{{{CHOSEN}}}[5m])",
            ["an interval of 5m"],
        ),
        (
            f"sum(review_worker_rebalances_total{{{CHOSEN}}})",
            ["review_worker_rebalances_total is a counter without rate"],
        ),
        (
            f"delta(review_worker_batch_tokens_sum{{{CHOSEN}}}[$__rate_interval])",
            ["review_worker_batch_tokens_sum is a counter without rate"],
        ),
    ],
)
def test_a_query_that_breaks_a_rule_would_be_found(query: str, found: list[str]) -> None:
    assert list(faults(query)) == found


# === Provisioning ===


def provisioned(kind: str) -> list[dict[str, Any]]:
    """What the one file of that kind provides."""
    (file,) = (GRAFANA / "provisioning" / kind).iterdir()
    content = read_yaml(file)
    assert content.pop("apiVersion") == 1
    ((_, things),) = content.items()
    return list(things)


def test_grafana_finds_the_dashboard_and_lets_nobody_change_it() -> None:
    (provider,) = provisioned("dashboards")
    assert provider["type"] == "file"
    assert Path(provider["options"]["path"]) == PROVISIONED
    assert provider["allowUiUpdates"] is False
    assert [path.name for path in DASHBOARD.parent.iterdir()] == [DASHBOARD.name]


def test_grafana_asks_prometheus_as_often_as_it_scrapes() -> None:
    (source,) = provisioned("datasources")
    assert (source["type"], source["uid"], source["isDefault"]) == ("prometheus", "prometheus", True)
    assert source["jsonData"]["timeInterval"] == read_yaml(PROMETHEUS / "prometheus.yml")["global"]["scrape_interval"]
