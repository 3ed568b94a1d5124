"""The demo's processes: commands that it shows and runs, a broker and a worker that are gone afterwards."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from prometheus_client.parser import text_string_to_metric_families

from console import HOME, ROOT, DemoError, console

BIN = Path(sys.executable).parent
BROKER = ROOT / "deploy" / "kafka" / "broker"
READY_SECONDS = 120


@dataclass(frozen=True)
class Kafka:
    """Where the demo's topics are: its own ones, so that it can run on anybody's broker."""

    address: str
    name: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "WORKER_KAFKA__BOOTSTRAP_SERVERS": self.address,
            "WORKER_KAFKA__GROUP_ID": self.name,
            "WORKER_KAFKA__INPUT_TOPIC": f"{self.name}-reviews",
            "WORKER_KAFKA__OUTPUT_TOPIC": f"{self.name}-predictions",
            "WORKER_KAFKA__DEAD_LETTER_TOPIC": f"{self.name}-dead-letters",
            "WORKER_MODEL": str(HOME / "models" / "demo"),
            "WORKER_HTTP__PORT": "0",
            # The page is on loopback, and the reviews are the demo's.
            "WORKER_PAGE__SAMPLES": "5",
        }


def arguments(line: str) -> list[str]:
    """A command line of this virtual environment."""
    program, *rest = shlex.split(line)
    return [str(BIN / program), *rest]


def command(line: str, environment: dict[str, str] | None = None) -> None:
    """Show a command and run it to its end."""
    console.print(f"\n[bold cyan]$ {line}[/]")
    if subprocess.run(arguments(line), env=os.environ | (environment or {}), check=False).returncode:
        raise DemoError(f"`{' '.join(line.split()[:2])}` failed; its own line above says why")


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process that may have ended already."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def own_broker() -> Iterator[str]:
    """A broker on this machine, gone afterwards with its data."""
    data = HOME / "kafka"
    subprocess.run([sys.executable, str(BROKER), "stop", "--data", str(data)], capture_output=True, check=False)
    shutil.rmtree(data, ignore_errors=True)
    started = subprocess.run(
        [sys.executable, str(BROKER), "start", "--data", str(data)], stdout=subprocess.PIPE, text=True, check=False
    )
    if started.returncode:
        raise DemoError("the broker did not start; its own line above says why")
    try:
        yield started.stdout.strip()
    finally:
        subprocess.run([sys.executable, str(BROKER), "stop", "--data", str(data)], capture_output=True, check=False)
        shutil.rmtree(data, ignore_errors=True)


@contextmanager
def own_worker(kafka: Kafka, log: TextIO) -> Iterator["WorkerPage"]:
    """A worker, ready, and gone afterwards."""
    console.print(f"\n[bold cyan]$ review-worker run[/] [dim](log in {log.name})[/]")
    process = subprocess.Popen(arguments("review-worker run"), env=os.environ | kafka.environment, stderr=log)
    try:
        page = WorkerPage(process, Path(log.name))
        page.wait_until_ready()
        console.print(f"its page: [bold]{page.address}[/]")
        yield page
    finally:
        end(process)


class WorkerPage:
    """What the worker tells over HTTP."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def address(self) -> str:
        """Where people look at it; empty before it has started."""
        first = next((line for line in self._log.read_text().splitlines() if '"starting"' in line), None)
        return json.loads(first)["page"] if first else ""

    def require_running(self) -> None:
        """Raises where it has ended."""
        if self._process.poll() is not None:
            raise DemoError(f"the worker ended; the last line of its log: {self._log.read_text().splitlines()[-1:]}")

    def wait_until_ready(self) -> None:
        """Until it takes part in the group with a warm model."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            self.require_running()
            try:
                if self._sample("review_worker_ready") == 1:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise DemoError(f"the worker was not ready within {READY_SECONDS} s; see {self._log}")

    def wait_for(self, records: int) -> None:
        """Until it has committed so many records."""
        deadline = time.monotonic() + READY_SECONDS
        while self._sample("review_worker_reviews_consumed_total") < records:
            if time.monotonic() > deadline:
                raise DemoError(f"not all of {records:,} records were scored within {READY_SECONDS} s")
            time.sleep(0.1)

    def latencies(self) -> dict[float, float]:
        """Cumulated count by upper bound in seconds, of the time from publication to commit."""
        return {
            float(sample.labels["le"]): sample.value
            for family in text_string_to_metric_families(self._metrics())
            for sample in family.samples
            if sample.name == "review_worker_end_to_end_seconds_bucket"
        }

    def _sample(self, name: str) -> float:
        for family in text_string_to_metric_families(self._metrics()):
            for sample in family.samples:
                if sample.name == name:
                    return sample.value
        return 0.0

    def _metrics(self) -> str:
        if not self.address:
            return ""
        with urllib.request.urlopen(f"{self.address}metrics", timeout=5) as answer:  # noqa: S310 - loopback
            return str(answer.read().decode())


def publish_until_interrupted(kafka: Kafka, worker: WorkerPage, file: Path, rate: float) -> None:
    """Publish a file again and again, at `rate` records per second, until Ctrl-C.

    Raises:
        DemoError: the worker or the publication ended by itself.
    """
    line = f"review-worker publish {file} --rate {rate} --unchecked"
    while True:
        process = subprocess.Popen(
            arguments(line), env=os.environ | kafka.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while process.poll() is None:
                worker.require_running()
                time.sleep(0.2)
        except KeyboardInterrupt:
            return
        finally:
            end(process)
        if process.returncode:
            raise DemoError(f"`{line}` failed; is the broker still there?")


def delete_topics(kafka: Kafka) -> None:
    """Leave a broker as it was found."""
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    topics = [value for name, value in kafka.environment.items() if name.endswith("_TOPIC")]
    try:
        client = KafkaAdminClient(bootstrap_servers=kafka.address, bootstrap_timeout_ms=5_000)
    except KafkaError:
        return
    try:
        client.delete_topics(topics)
    except KafkaError:
        console.print(f"the topics {', '.join(topics)} are left on {kafka.address}")
    finally:
        client.close()
