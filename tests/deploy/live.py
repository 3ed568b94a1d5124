"""Debian's Prometheus on real workers, with the project's own configuration and rules."""

import json
import math
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from contract.pieces import wait_for
from deploy.monitoring import PROMETHEUS, read_yaml, tool
from running import HOST, free_ports

INTERVAL = "1s"
"""Of scrapes and evaluations, so that a minute of a test is a quarter of an hour of the real configuration."""

RATE_INTERVAL = "15s"
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus on this machine."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its HTTP API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=20) as answer:  # noqa: S310 - loopback
            body = json.load(answer)
        assert body["status"] == "success"
        return body["data"]

    def query(self, query: str) -> list[float]:
        """The value of every series, now, without those that are no number."""
        series = self.get("query", query=query)["result"]
        return [value for one in series if not math.isnan(value := float(one["value"][1]))]

    def answers(self) -> bool:
        """It has started."""
        assert self.process.poll() is None, f"Prometheus ended: {self.log.read_text()[-2000:]}"
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):  # noqa: S310 - loopback
                return True
        except OSError:
            return False


@contextmanager
def prometheus(folder: Path, *targets: str) -> Iterator[Prometheus]:
    """Debian's Prometheus with our configuration and rules on `targets`, often enough for a test; gone afterwards."""
    configuration = read_yaml(PROMETHEUS / "prometheus.yml")
    configuration["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), INTERVAL)
    configuration["rule_files"] = [str(PROMETHEUS / name) for name in configuration["rule_files"]]
    (scrape,) = configuration["scrape_configs"]
    scrape["static_configs"] = [{"targets": list(targets)}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    address = f"{HOST}:{free_ports(1)[0]}"
    log = folder / "prometheus.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ],
            stdout=stream,
            stderr=stream,
            cwd=folder,
        )
    try:
        started = Prometheus(f"http://{address}", process, log)
        wait_for(started.answers, "Prometheus has started", PATIENCE_SECONDS)
        yield started
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
