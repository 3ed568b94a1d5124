"""Every record of the catalogue, station by station: its outcome, in no time, and nothing of it in what the worker
says."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import generate_latest
from tokenizers import Tokenizer

from hostile.records import CATALOGUE, GOOD, LIMIT, MARK, Hostile, grown
from hostile.stations import CUT, LETTERS, concluded, require_a_fit_answer
from schemas import Reason, Rejection, Review
from worker.intake import read_review
from worker.letters import IN_SCORING
from worker.message import Message
from worker.metrics import Metrics
from worker.rescue import Collected
from worker.tokens import CHARACTERS_AT_ONCE, ReviewTokenizer, TokenRow

SECONDS = 1.0
"""Of processor time, for what takes a few milliseconds: a bound between slow and stuck."""


def seconds_of(call: Callable[[], Any]) -> float:
    """Processor time, so that a busy machine is no failure."""
    start = time.process_time()
    call()
    return time.process_time() - start


# --- intake and letters ---


@pytest.mark.parametrize("hostile", CATALOGUE.values(), ids=CATALOGUE)
def test_a_record_has_the_outcome_that_it_must_have(hostile: Hostile) -> None:
    outcome = concluded(hostile.message)

    assert (outcome.reason if isinstance(outcome, Rejection) else "scored") == hostile.expected
    require_a_fit_answer(hostile.message, outcome)


def test_every_record_is_read_in_no_time() -> None:
    slow = [name for name, it in CATALOGUE.items() if seconds_of(lambda it=it: concluded(it.message)) > SECONDS]

    assert not slow


def rejections() -> list[Rejection]:
    outcomes = [concluded(hostile.message) for hostile in CATALOGUE.values()]
    return [outcome for outcome in outcomes if isinstance(outcome, Rejection)]


def test_a_detail_is_one_short_line_that_holds_nothing_of_the_record() -> None:
    for rejection in rejections():
        assert 0 < len(rejection.detail) <= 500
        assert rejection.detail.isascii(), "a letter of the record's"
        assert rejection.detail.isprintable()
        assert MARK not in rejection.model_dump_json()


def test_the_catalogue_meets_every_reason_of_the_intake() -> None:
    assert {rejection.reason for rejection in rejections()} == set(Reason) - IN_SCORING


def test_no_header_of_an_answer_holds_the_mark() -> None:
    for name, hostile in CATALOGUE.items():
        headers = LETTERS.write(hostile.message, concluded(hostile.message)).headers
        assert MARK not in repr(headers), name


def test_no_log_line_and_no_metric_holds_the_mark(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    metrics = Metrics()
    messages = [hostile.message for hostile in CATALOGUE.values()]
    outcomes = [concluded(message) for message in messages]
    none = Collected(np.zeros((0, 3), dtype=np.float32), 0.0, 0, {})

    metrics.count_batch(messages, outcomes, none)

    shown = generate_latest(metrics.registry).decode()
    assert f"review_worker_reviews_consumed_total {len(CATALOGUE)}.0" in shown
    assert MARK not in shown
    assert not [line for line in caplog.messages if MARK in line]
    assert not [message for message in messages if MARK in repr(message)]


def test_of_a_name_that_comes_twice_the_last_one_counts() -> None:
    """Also over a first one that is at fault, and whatever way it is written: one text is never checked and another
    scored."""
    read = read_review(CATALOGUE["text twice"].message, LIMIT)

    assert isinstance(read, Review)
    assert read.text == "the last one counts"


def test_control_characters_of_a_text_are_data() -> None:
    read = read_review(CATALOGUE["control characters in the text"].message, LIMIT)

    assert isinstance(read, Review)
    assert {chr(number) for number in range(0x20)} < set(read.text)


def test_a_value_over_the_limit_is_never_parsed() -> None:
    """It would take seconds, and megabytes for every one."""
    costly = json.dumps({f"{MARK}{number}": [number] for number in range(100_000)}).encode()
    message = Message("reviews", 3, 4211, None, costly)

    parsed = seconds_of(lambda: read_review(message, len(costly)))
    refused = seconds_of(lambda: read_review(message, len(costly) - 1))

    assert parsed > 0.05, "too cheap to tell anything"
    assert refused < parsed / 20


@pytest.mark.parametrize("room", [0, 1])
def test_the_limit_itself_is_taken_and_a_byte_more_is_not(room: int) -> None:
    read = read_review(Message("reviews", 3, 4211, None, GOOD), len(GOOD) - room)

    assert isinstance(read, Rejection if room else Review)


# --- tokens ---

ACCEPTED = {
    name: read.text
    for name, hostile in CATALOGUE.items()
    if hostile.expected == "scored" and isinstance(read := read_review(hostile.message, LIMIT), Review)
}


@pytest.mark.parametrize("text", ACCEPTED.values(), ids=ACCEPTED)
def test_a_text_becomes_a_row_that_the_model_can_read(
    tokenizer: ReviewTokenizer, control_ids: list[int], text: str
) -> None:
    """In seconds and not in hours, which WordPiece takes for a long word without its cap."""
    size, rows = tokenizer.vocabulary_size, list[TokenRow]()

    assert seconds_of(lambda: rows.extend(tokenizer.encode([text]))) < 5 * SECONDS

    (row,) = rows
    opening, *content, closing = row.ids.tolist()
    assert (opening, closing) == (control_ids[0], control_ids[1])
    assert not set(content) & set(control_ids)
    assert 0 <= row.ids.min() <= row.ids.max() < size
    assert len(row.ids) <= CUT.head + CUT.tail
    assert not row.truncated or len(row.ids) == CUT.head + CUT.tail


class Counted:
    """A tokenizer that notes how many characters each call of it was given."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self.characters: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
        self.characters.append(sum(map(len, texts)))
        return self._tokenizer.encode_batch_fast(texts, **options)


def test_many_of_the_longest_texts_are_tokenized_in_portions(vocabulary: Path, tokenizer: ReviewTokenizer) -> None:
    """The library holds a hundred bytes and more for each of their characters: a batch of them would be gigabytes."""
    counted = Counted(vocabulary)
    texts = [*(["good"] * 5), *([grown("a")] * 25), "great", grown("b"), "bad"]

    rows = ReviewTokenizer(counted, CUT, ()).encode(texts)

    assert max(counted.characters) <= CHARACTERS_AT_ONCE
    assert sum(counted.characters) == sum(map(len, texts))
    assert len(counted.characters) == 3
    assert [row.ids.tolist() for row in rows] == [tokenizer.encode([text])[0].ids.tolist() for text in texts]


def test_a_text_beyond_a_portion_is_one_by_itself(vocabulary: Path) -> None:
    """Files that people score or evaluate may hold such."""
    counted = Counted(vocabulary)

    rows = ReviewTokenizer(counted, CUT, ()).encode(["a" * (CHARACTERS_AT_ONCE + 1), "good"])

    assert counted.characters == [CHARACTERS_AT_ONCE + 1, 4]
    assert len(rows) == 2


def test_a_batch_of_ordinary_texts_is_one_call(vocabulary: Path) -> None:
    counted = Counted(vocabulary)

    ReviewTokenizer(counted, CUT, ()).encode(["a film like any other"] * 500)

    assert len(counted.characters) == 1
