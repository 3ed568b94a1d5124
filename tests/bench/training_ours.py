"""Our side of `training.py`: the trainer's own plan, network and step, and the batches written down for the other.

In: a job as JSON in the file that the first argument names, then `begin end` in a line for each turn. Out: JSON lines.
"""

import csv
import gzip
import json
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from trainer.job import Job, build_network, plan_job
from trainer.labels import DEFAULT_SPEC, parse_labels
from trainer.prepare import Sampling, read_splits, write_folder
from trainer.progress import Reporter
from trainer.settings import settings_from

VALIDATED = 8
"""Reviews that are not trained on: prepared data always has some."""


def planned(told: dict[str, object], folder: Path) -> Job:
    """The job of `review-trainer train` on the first reviews of a CSV."""
    source, reviews = Path(str(told["data"])), int(str(told["reviews"]))
    with gzip.open(source, "rt", newline="") if source.suffix == ".gz" else source.open(newline="") as file:
        rows = list(islice(csv.DictReader(file), reviews + VALIDATED))
    path = folder / "reviews.csv"
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerows([("text", "sentiment"), *((row["text"], row["sentiment"]) for row in rows)])
    labels, sampling = parse_labels(DEFAULT_SPEC), Sampling(1.0, reviews / len(rows), 0)
    splits, sources = read_splits(path, path, labels, sampling, lambda *_: None)
    write_folder(folder / "data", splits, sources, labels, sampling, force=False)
    settings = settings_from(
        base=told["base"],
        epochs=1,
        batch_size=told["batch"],
        max_tokens=told["max_tokens"],
        precision=told["precision"],
    )
    return plan_job(settings, folder / "data", Reporter())


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory() as folder:
        job = planned(told, Path(folder))
    [plan], [reviews] = job.plans, job.training
    np.savez(
        told["batches"],
        ids=reviews.ids,
        lengths=reviews.lengths,
        labels=reviews.labels,
        rows=np.concatenate(plan),
        sizes=[len(rows) for rows in plan],
    )
    network, _ = build_network(job)
    network.make_train_function()
    facts = {"batches": len(plan), "tokens": float(reviews.lengths.mean()), "padding": job.padding}
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        begin, end = map(int, line.split())
        start = time.perf_counter()
        batches = job.training_batches(network, plan[begin:end])
        for _ in range(begin, end):
            logs = network.train_function(batches)
        loss = float(logs["loss"])  # waits for the last step
        seconds = time.perf_counter() - start
        print(json.dumps({"reviews": sum(map(len, plan[begin:end])), "seconds": seconds, "loss": loss}), flush=True)


if __name__ == "__main__":
    main()
