"""Tokenizer and engine of the project in a process of their own, as `peers.py` talks to a peer."""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from schemas import Review
from worker.artifact import open_artifact
from worker.errors import ReviewScorerError
from worker.scorer import Scorer
from worker.service import load_scorer
from worker.settings import load_settings


def score(scorer: Scorer, texts: list[str]) -> tuple[float, list[int]]:
    """Seconds from texts to logits, and the labels."""
    reviews = [Review.model_construct(review_id="1", text=text) for text in texts]
    begun = time.perf_counter()
    logits = scorer.collect(scorer.submit(scorer.prepare(reviews))).logits
    return time.perf_counter() - begun, logits.argmax(axis=-1).tolist()


def main() -> None:
    """Until standard input ends."""
    options = argparse.ArgumentParser()
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--reviews", type=Path, required=True)
    options.add_argument("--engine", required=True)
    options.add_argument("--precision", required=True)
    asked = options.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(**fields: Any) -> None:
        print(json.dumps(fields), file=answers)

    texts = json.loads(asked.reviews.read_text(encoding="utf-8"))
    try:
        settings = load_settings(None, {"engine": asked.engine, "precision": asked.precision})
        scorer = load_scorer(open_artifact(asked.model), settings)
    except ReviewScorerError as error:
        say(skipped=str(error))
        return
    score(scorer, texts)
    say(ready=True, versions={}, precision=scorer.engine.description.precision)
    for _ in sys.stdin:
        seconds, labels = score(scorer, texts)
        say(seconds=seconds, labels=labels)


if __name__ == "__main__":
    main()
