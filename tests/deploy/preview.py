"""A picture of the dashboard without a Grafana: its own JSON, and a real Prometheus that looked at real workers.

    PYTHONPATH=tests .venv/bin/python tests/deploy/preview.py --out deploy/pictures/dashboard.png \\
        --rows Health "Throughput and lag" "Latency by stage" "Batches and padding"

Starts a broker, a worker with the demo's model and Prometheus, publishes the demo's reviews at a rate that changes,
starts a second worker on the way and stops it again, puts a newer version of the model down, asks Prometheus every
query of the dashboard, and has Chromium take the picture. Nothing is left running. Needs what `make demo` has made.
"""

import argparse
import base64
import csv
import io
import itertools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import Any

from browser.pieces import opened
from contract.pieces import review
from deploy.drawing import WIDTH, Series, Window, named, page
from deploy.live import RATE_INTERVAL, Prometheus, prometheus
from deploy.monitoring import dashboard, filled_in
from running import HOST, ROOT, Stage, Worker, broker, free_ports, worker

DEMO = ROOT / ".demo"
POINTS = 150
"""Of a line: one every two seconds of five minutes."""
SHADES = 128
"""Colours of the picture."""
CAPTION = (
    "Drawn from the dashboard's JSON and a real Prometheus, which looked at workers with the demo's model for"
    " {minutes:g} minutes; not a Grafana screenshot."
)
BROKEN = (
    b"five stars, no JSON",
    b'{"review_id": "1"}',
    b'{"review_id": "2", "text": 5}',
    b'{"review_id": "3", "text": ""}',
)


@dataclass(frozen=True)
class Phase:
    """A part of the time: reviews per second at its start and at its end, and broken records per second."""

    share: float
    start: float
    end: float
    broken: float = 0


STORY = (
    Phase(0.12, 8, 8, 0.2),
    Phase(0.12, 8, 40, 0.5),
    Phase(0.10, 40, 40, 0.5),
    Phase(0.01, 400, 400),
    Phase(0.14, 15, 5, 4),
    Phase(0.08, 0, 0),
    Phase(0.20, 5, 35, 0.3),
    Phase(0.01, 300, 300),
    Phase(0.22, 25, 10, 0.5),
)
"""A day in a few minutes: calm, a wave, a backlog at once, a sender with a fault, silence, and all of it again."""
SECOND_STARTS, NEWER_MODEL, SECOND_STOPS = 0.2, 0.62, 0.85
"""Shares of the time."""


def main() -> int:
    """Take the picture; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", metavar="PNG", type=Path, required=True, help="the picture")
    parser.add_argument("--minutes", type=float, default=5, help="how long the workers are looked at (default: 5)")
    parser.add_argument("--rows", nargs="*", default=(), metavar="TITLE", help="only these rows of the dashboard")
    arguments = parser.parse_args()
    for needed in (DEMO / "models" / "demo" / "1", DEMO / "stream.csv"):
        if not needed.exists():
            print(f"error: {needed} is missing; `make demo` makes it", file=sys.stderr)
            return 1
    with tempfile.TemporaryDirectory() as folder:
        answers, window = watched(arguments.minutes * 60, Path(folder))
        caption = CAPTION.format(minutes=arguments.minutes)
        html, height = page(dashboard(), answers, window, caption, arguments.rows)
        arguments.out.write_bytes(photographed(html, height, Path(folder)))
    return 0


def watched(seconds: float, folder: Path) -> tuple[dict[int, list[Series]], Window]:
    """What Prometheus knows of so many seconds, by a panel's id."""
    parent = folder / "models" / "demo"
    shutil.copytree(DEMO / "models" / "demo" / "1", parent / "1")
    newer = folder / "newer"
    shutil.copytree(parent / "1", newer)
    manifest = newer / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": 2}))
    ports = free_ports(2)
    with ExitStack() as stack:
        stage = Stage(stack.enter_context(broker(folder / "kafka")).address, partitions=3, name="reviews")
        stage.make_topics()

        def started(number: int) -> Worker:
            name = f"worker-{number}"
            settings = {
                "WORKER_HTTP__PORT": str(ports[number]),
                "WORKER_KAFKA__TRANSACTIONAL_ID": name,
                "WORKER_KAFKA__GROUP_INSTANCE_ID": name,
                "WORKER_RELOAD__SECONDS": "5",
                "WORKER_SHADOW__MODEL": str(parent / "1"),
                "WORKER_SHADOW__SHARE": "0.5",
            }
            return stack.enter_context(worker(stage, parent, folder / f"{name}.log", **settings))

        started(0).wait_until_ready()
        looking = stack.enter_context(prometheus(folder, *(f"{HOST}:{port}" for port in ports)))
        start = time.time()
        second: list[Worker] = []
        events: list[tuple[float, Callable[[], object]]] = [
            (SECOND_STARTS, lambda: second.append(started(1))),
            (NEWER_MODEL, lambda: newer.rename(parent / "2")),
            (SECOND_STOPS, lambda: second[0].signal(SIGTERM)),
        ]
        for share in played(stage, seconds):
            if events and share >= events[0][0]:
                events.pop(0)[1]()
        window = Window(start, time.time(), max(1, round(seconds / POINTS)))
        return {panel["id"]: list(asked(looking, panel, window)) for panel in dashboard()["panels"]}, window


def played(stage: Stage, seconds: float) -> Iterator[float]:
    """Publish the story once a second, and say each time what share of it is over."""
    with (DEMO / "stream.csv").open(encoding="utf-8", newline="") as file:
        texts = itertools.cycle([row["text"] for row in csv.DictReader(file)])
    numbers = itertools.count()
    start = last = time.monotonic()
    due = faulty = 0.0
    while (share := (time.monotonic() - start) / seconds) < 1:
        now = time.monotonic()
        rate, broken = pace(share)
        due, faulty, last = due + rate * (now - last), faulty + broken * (now - last), now
        some = [review(next(numbers), next(texts)) for _ in range(int(due))]
        some += [BROKEN[next(numbers) % len(BROKEN)] for _ in range(int(faulty))]
        due, faulty = due % 1, faulty % 1
        if some:
            stage.publish(some)
        yield share
        time.sleep(max(0.0, 1 - (time.monotonic() - now)))


def pace(share: float) -> tuple[float, float]:
    """Reviews and broken records per second when so much of the story is over."""
    over = 0.0
    for phase in STORY:
        if share < over + phase.share:
            return phase.start + (phase.end - phase.start) * (share - over) / phase.share, phase.broken
        over += phase.share
    return STORY[-1].end, STORY[-1].broken


def asked(looking: Prometheus, panel: Mapping[str, Any], window: Window) -> Iterator[Series]:
    """Every series that answers the panel's queries, under its legend."""
    for target in panel.get("targets", ()):
        query = filled_in(target["expr"], RATE_INTERVAL)
        if target["instant"]:
            found = looking.get("query", query=query, time=str(window.end))["result"]
        else:
            times = {name: str(getattr(window, name)) for name in ("start", "end", "step")}
            found = looking.get("query_range", query=query, **times)["result"]
        for one in found:
            points: Sequence[Sequence[Any]] = one["values"] if "values" in one else [one["value"]]
            legend = named(target["legendFormat"], one["metric"])
            yield Series(legend, one["metric"], [(float(moment), float(value)) for moment, value in points])


def photographed(html: str, height: int, folder: Path) -> bytes:
    """The PNG that Chromium makes of a page of this height, in so few colours that it is a third as large."""
    # Whoever only tests the drawing needs no Pillow.
    from PIL import Image

    file = folder / "page.html"
    file.write_text(html, encoding="utf-8")
    with opened(folder / "chromium") as tab:
        tab.open(file.as_uri(), WIDTH, height)
        shot = tab.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True})
    small = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(shot["data"]))) as picture:
        picture.convert("RGB").quantize(SHADES, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


if __name__ == "__main__":
    sys.exit(main())
