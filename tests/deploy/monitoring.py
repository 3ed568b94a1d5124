"""What the tests of Prometheus and Grafana share: the files of `deploy/`, Debian's tools, and what queries name."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from running import ROOT
from worker.metrics import Metrics

RUNBOOK = ROOT / "deploy" / "README.md"
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "review-worker.json"

RATE_INTERVAL = "$__rate_interval"

_METRIC = re.compile(r"(?<![\w:])(?:review_worker_|process_)\w+(?![\w:])|(?<![\w:])up(?![\w:])")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def tool(name: str) -> str:
    """The path of Debian's `prometheus` or `promtool`. Without them nothing here can be tested, so that it fails."""
    path = shutil.which(name)
    assert path, f"{name} is not installed; it is in Debian's package prometheus: apt-get install prometheus"
    return path


def promtool(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run `promtool <arguments>` with a text on its standard input."""
    return subprocess.run(
        [tool("promtool"), *map(str, arguments)], input=text, capture_output=True, text=True, check=False, timeout=240
    )


# === Rules ===


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def groups(*names: str) -> list[dict[str, Any]]:
    """The rule groups of `recording.yml` or `alerts.yml`, in their order."""
    return [group for name in names for group in read_yaml(PROMETHEUS / "rules" / name)["groups"]]


def rules(*names: str) -> list[dict[str, Any]]:
    """Their rules."""
    return [rule for group in groups(*names) for rule in group["rules"]]


# === The dashboard ===


@dataclass(frozen=True)
class Panel:
    """A panel as the dashboard's JSON has it, and the row it stands in."""

    row: str
    model: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.row}: {self.model['title']}"

    @property
    def queries(self) -> list[str]:
        return [target["expr"] for target in self.model["targets"]]


def dashboard() -> dict[str, Any]:
    model: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return model


def panels() -> Iterator[Panel]:
    """Every panel that shows something."""
    row = ""
    for model in dashboard()["panels"]:
        if model["type"] == "row":
            row = model["title"]
        else:
            yield Panel(row, model)


def variable(name: str) -> dict[str, Any]:
    """The variable of that name."""
    (found,) = [it for it in dashboard()["templating"]["list"] if it["name"] == name]
    return dict(found)


def filled_in(query: str, interval: str = "1m") -> str:
    """The query as Grafana sends it when everything is chosen: the variables' `allValue`, and a rate interval."""
    return query.replace(RATE_INTERVAL, interval).replace("$job", ".+").replace("$instance", ".+")


# === What a query names ===


def metrics_of(query: str) -> set[str]:
    """The worker's own and the process's metrics, without what rules have recorded."""
    return {match.group() for match in _METRIC.finditer(without_strings(query))}


def selectors(query: str) -> list[tuple[str, dict[str, tuple[str, str]]]]:
    """Each metric with matchers: its name, and operator and value by label."""
    return [
        (name, {label: (operator, value) for label, operator, value in _MATCHER.findall(matchers)})
        for name, matchers in _SELECTOR.findall(query)
    ]


def without_strings(query: str) -> str:
    """The query with every string empty: what stands in one is no metric."""
    return re.sub(r'"[^"]*"', '""', query)


def exposed(labels: Sequence[str] = ("negative", "positive")) -> dict[str, dict[str, set[str]]]:
    """Every series that a worker with these labels exposes: by name, the values of each of its labels."""
    metrics = Metrics()
    for label in labels:
        metrics.predictions.labels(label)
    metrics.show_lag({("reviews", 0): 0}, rate=0)
    metrics.model.info(dict.fromkeys(("name", "version", "digest", "engine", "device", "precision"), ""))
    found: dict[str, dict[str, set[str]]] = {"up": {}}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for sample in family.samples:
            values = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
    return found


def misnamed(query: str) -> Iterator[str]:
    """Metrics, and values of their labels, that no worker exposes: a query for them is always empty."""
    known = exposed()
    yield from (f"no metric {name}" for name in sorted(metrics_of(query) - known.keys()))
    for name, matchers in selectors(query):
        for label, (operator, value) in matchers.items():
            if label in ("job", "instance") or name not in known or operator == "!=":
                continue
            wanted = value.split("|") if operator == "=~" else [value]
            missing = set(wanted) - known[name].get(label, set())
            yield from (f"{name} has no {label}={it}" for it in sorted(missing))
