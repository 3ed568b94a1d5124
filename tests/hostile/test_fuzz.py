"""What nobody thought of: whatever the bytes, keys and headers, each message has one answer that can be sent, and each
accepted text one row that can be scored."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hostile.records import GOOD, LIMIT, MARK, OURS, PIECES, TRACE, fuzzed
from hostile.stations import CUT, concluded, require_a_fit_answer
from schemas import Prediction, Rejection, Review
from worker.intake import read_review
from worker.message import Headers, Message
from worker.tokens import ReviewTokenizer

# --- what may come ---

text = st.text(st.characters(codec="utf-8"), max_size=40)
"""Of all planes; what UTF-8 cannot hold no client can send."""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=8,
)
near_reviews = st.fixed_dictionaries(
    {},
    optional={
        "review_id": st.text(min_size=120, max_size=130) | json_values,
        "text": json_values,
        "texT": json_values,
        "note": json_values,
    },
)
written = (near_reviews | json_values).flatmap(
    lambda content: st.builds(
        lambda ascii_only, indent: json.dumps(content, ensure_ascii=ascii_only, indent=indent).encode(),
        st.booleans(),
        st.sampled_from([None, 1]),
    )
)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """JSON after up to four accidents: bits turned, pieces lost, doubled, put in or taken from another value."""
    value = draw(st.just(GOOD) | written)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(value)))
        end = draw(st.integers(start, len(value)))
        piece = draw(st.sampled_from([b"", value[start:end] * 2, *PIECES]) | st.binary(max_size=4) | written)
        value = value[:start] + piece + value[end:]
        if value:
            place, bit = draw(st.integers(0, len(value) - 1)), draw(st.integers(0, 8))
            value = value[:place] + bytes([(value[place] ^ 1 << bit) & 0xFF]) + value[place + 1 :]
    return value


@st.composite
def repeated(draw: st.DrawFn) -> bytes:
    """A review whose names come more than once, in any order."""
    names = st.sampled_from(["review_id", "text", "note"])
    more = draw(st.lists(st.tuples(names, text | json_values), max_size=3))
    pairs = draw(st.permutations([("review_id", MARK), ("text", draw(text)), *more]))
    ascii_only = draw(st.booleans())
    written_pairs = (f'"{name}": {json.dumps(content, ensure_ascii=ascii_only)}' for name, content in pairs)
    return f"{{{', '.join(written_pairs)}}}".encode()


values = st.none() | st.binary(max_size=200) | written | broken() | repeated()
keys = st.none() | st.binary(max_size=40)
headers = st.lists(
    st.tuples(
        st.sampled_from([*OURS, "traceparent", "tracestate", ""]) | text,
        st.none() | st.binary(max_size=80) | st.just(TRACE) | st.binary(max_size=2).map(lambda end: TRACE + end),
    ),
    max_size=6,
).map(tuple)


# --- what must be so ---


@given(values, keys, headers, st.integers(-(1 << 63), (1 << 63) - 1))
@settings(max_examples=1_000, suppress_health_check=[HealthCheck.too_slow])
@example(None, None, (), -1)
@example(b"", b"", (("", None),), 0)
def test_every_message_has_one_answer_that_can_be_sent(
    value: bytes | None, key: bytes | None, headers: Headers, timestamp_ms: int
) -> None:
    message = Message("reviews", 3, 4211, key, value, headers, timestamp_ms)

    outcome = concluded(message)

    require_a_fit_answer(message, outcome)
    assert type(outcome).model_validate_json(outcome.model_dump_json()) == outcome
    if isinstance(outcome, Rejection):
        assert len(outcome.detail) <= 500
        assert outcome.detail.isascii()
        assert outcome.detail.isprintable()


@given(repeated() | broken())
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_taken_is_what_other_readers_of_json_see(value: bytes) -> None:
    """A record that two readers understand differently gets past whoever checks it with the other one."""
    read = read_review(Message("reviews", 3, 4211, None, value), LIMIT)

    if isinstance(read, Review):
        seen = json.loads(value)
        assert (seen["review_id"], seen["text"]) == (read.review_id, read.text)
        assert Review.model_validate_json(read.model_dump_json()) == read


words = st.sampled_from(["[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]", "good", "##s", "<br />", "..."])


@given(st.lists(st.lists(words | text, max_size=80).map("".join), max_size=5))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_every_text_becomes_a_row_of_words_between_two_control_tokens(
    tokenizer: ReviewTokenizer, control_ids: list[int], texts: Sequence[str]
) -> None:
    size = tokenizer.vocabulary_size

    rows = tokenizer.encode(texts)

    assert len(rows) == len(texts)
    for row in rows:
        opening, *content, closing = row.ids.tolist()
        assert row.ids.dtype == np.int32
        assert (opening, closing) == (control_ids[0], control_ids[1])
        assert not set(content) & set(control_ids)
        assert 0 <= row.ids.min() <= row.ids.max() < size
        assert len(row.ids) <= CUT.head + CUT.tail


def test_the_records_of_a_seed_are_always_the_same() -> None:
    """A failure of the route can then be looked at here."""
    assert fuzzed(50, 7) == fuzzed(50, 7)
    assert fuzzed(50, 7) != fuzzed(50, 8)


@pytest.mark.parametrize("seed", range(4))
def test_a_record_after_accidents_has_one_answer_too(seed: int) -> None:
    outcomes = []
    for hostile in fuzzed(500, seed):
        outcomes.append(concluded(hostile.message))
        require_a_fit_answer(hostile.message, outcomes[-1])
    kinds = {type(outcome) for outcome in outcomes}
    assert kinds == {Prediction, Rejection}, "the accidents are all too harmless, or all too bad"
    assert not [it.detail for it in outcomes if isinstance(it, Rejection) and MARK in it.detail]
