"""Intake: whatever a publisher sends, one review or one rejection, and nothing of it in the reason."""

import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas import Reason, Rejection, Review
from worker.intake import read_review
from worker.letters import IN_SCORING
from worker.message import Message

LIMIT = 1 << 20
GOOD = b'{"review_id": "tt0111161-17", "text": "A slow start."}'


def read(value: bytes | None, max_bytes: int = LIMIT) -> Review | Rejection:
    return read_review(Message("reviews", 3, 4211, b"key", value), max_bytes)


def rejection(value: bytes | None, max_bytes: int = LIMIT) -> Rejection:
    outcome = read(value, max_bytes)
    assert isinstance(outcome, Rejection), "was accepted"
    return outcome


def review(value: bytes) -> Review:
    outcome = read(value)
    assert isinstance(outcome, Review), outcome
    return outcome


def with_fields(**fields: object) -> bytes:
    return json.dumps({"review_id": "tt0111161-17", "text": "A slow start."} | fields).encode()


def with_raw(field: str, content: bytes) -> bytes:
    """A review whose `field` has this value, written as it stands."""
    return GOOD[:-1] + b', "' + field.encode() + b'": ' + content + b"}"


# --- what is taken ---


@pytest.mark.parametrize(
    "value",
    [
        GOOD,
        b"\n\t " + GOOD + b"\r\n",
        with_fields(rating=5, tags=["a"], nested={"text": 3}, nothing=None),
        with_raw("deep", b"[" * 100 + b"]" * 100),
        with_raw("long", b"9" * 4_000),
        b'{"\\u0072eview_id": "tt0111161-17", "\\u0074ext": "A slow start."}',
    ],
    ids=["plain", "spaces around", "unknown fields", "nested", "long number", "escaped names"],
)
def test_a_review_is_read(value: bytes) -> None:
    assert review(value) == Review(review_id="tt0111161-17", text="A slow start.")


@pytest.mark.parametrize(
    "text",
    ['<br /> "quoted" \\ /', "Ça va très bien", "\U0001f3ac", "\u202eevil\u202c", "a\x00b\x1b[2J", "[SEP] [MASK]"],
)
def test_a_text_comes_through_unchanged(text: str) -> None:
    assert review(with_fields(text=text)).text == text
    assert review(json.dumps({"review_id": "a", "text": text}, ensure_ascii=False).encode()).text == text


def test_a_text_is_measured_in_characters_and_not_in_bytes() -> None:
    value = json.dumps({"review_id": "a", "text": "\U0001f3ac" * 100_000}, ensure_ascii=False).encode()

    assert len(review(value).text) == 100_000


def test_a_value_of_exactly_the_limit_is_read() -> None:
    assert isinstance(read(GOOD, max_bytes=len(GOOD)), Review)


def test_of_a_name_that_comes_twice_the_last_value_counts() -> None:
    """As every JSON parser of note has it."""
    assert review(with_raw("text", b'"second"')).text == "second"


def test_numbers_that_are_none_may_stand_where_nobody_reads_them() -> None:
    assert review(with_raw("rating", b"NaN")).text == "A slow start."


# --- what is not ---


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (None, Reason.TOMBSTONE, "the value is null"),
        (b"", Reason.EMPTY, "the value is empty"),
        (b" \r\n\t", Reason.EMPTY, "the value is empty"),
        (b"\x00\x00\x00\x00\x07" + GOOD, Reason.CONFLUENT_FRAMED, "registry"),
        (b"\x00", Reason.CONFLUENT_FRAMED, "registry"),
        (b"\x01" + bytes(range(0xF0, 0x100)) + GOOD, Reason.CONFLUENT_FRAMED, "registry"),
        (b"\xef\xbb\xbf" + GOOD, Reason.NOT_JSON, "line 1 column 1"),
        (GOOD.decode().encode("utf-16"), Reason.NOT_UTF8, "byte 0"),
        (GOOD.decode().encode("utf-16-le"), Reason.NOT_JSON, "line 1 column 2"),
        (b"\x1f\x8b\x08\x00" + GOOD, Reason.NOT_UTF8, "byte 1"),
        (b'{"review_id": "a", "text": "caf\xe9"}', Reason.NOT_UTF8, "byte 31"),
        (with_raw("note", b'"\xff"'), Reason.NOT_UTF8, "is not UTF-8"),
        (b'{"review_id": "a", "text": "\xed\xa0\x80"}', Reason.NOT_UTF8, "byte 28"),
        (b'{"review_id": "a", "text": "\xc0\xaf"}', Reason.NOT_UTF8, "byte 28"),
        (b'{"review_id": "a", "text": "\\ud800"}', Reason.NOT_JSON, "Invalid JSON"),
        (b'{"review_id": "a", "text": "\\udc00x"}', Reason.NOT_JSON, "Invalid JSON"),
        (with_raw("note", b'"\\ud800"'), Reason.NOT_JSON, "Invalid JSON"),
        (with_raw("deep", b"[" * 300 + b"]" * 300), Reason.NOT_JSON, "recursion limit"),
        (b"[" * 500_000, Reason.NOT_JSON, "recursion limit"),
        (b'{"text":' * 100_000, Reason.NOT_JSON, "recursion limit"),
        (with_raw("long", b"9" * 10_000), Reason.NOT_JSON, "number out of range"),
        (GOOD + b"x", Reason.NOT_JSON, "trailing characters"),
        (GOOD + GOOD, Reason.NOT_JSON, "trailing characters"),
        (GOOD + b"\x00", Reason.NOT_JSON, "trailing characters"),
        (GOOD[:-1], Reason.NOT_JSON, "Invalid JSON"),
        (GOOD[:-10], Reason.NOT_JSON, "Invalid JSON"),
        (GOOD.replace(b'"', b"'"), Reason.NOT_JSON, "Invalid JSON"),
        (GOOD[:-1] + b",}", Reason.NOT_JSON, "Invalid JSON"),
        (b"// note\n" + GOOD, Reason.NOT_JSON, "Invalid JSON"),
        (b'{"review_id": "a", "text": "one\ntwo"}', Reason.NOT_JSON, "control character"),
        (b'{"review_id": "a", "text": "one\x00two"}', Reason.NOT_JSON, "control character"),
        (b'{"review_id": "a", "text": "\\x41"}', Reason.NOT_JSON, "invalid escape"),
        (b"tt0111161-17,A slow start.", Reason.NOT_JSON, "Invalid JSON"),
        (b"<review/>", Reason.NOT_JSON, "Invalid JSON"),
        (b"[]", Reason.NOT_AN_OBJECT, "object"),
        (b"[" + GOOD + b"]", Reason.NOT_AN_OBJECT, "object"),
        (b"17", Reason.NOT_AN_OBJECT, "object"),
        (b"NaN", Reason.NOT_AN_OBJECT, "object"),
        (b"null", Reason.NOT_AN_OBJECT, "object"),
        (b"true", Reason.NOT_AN_OBJECT, "object"),
        (json.dumps(GOOD.decode()).encode(), Reason.NOT_AN_OBJECT, "object"),
        (b"{}", Reason.MISSING_FIELD, "review_id: Field required"),
        (b'{"text": "A slow start."}', Reason.MISSING_FIELD, "review_id: Field required"),
        (b'{"review_id": "tt0111161-17"}', Reason.MISSING_FIELD, "text: Field required"),
        (b'{"Review_ID": "a", "text": "b"}', Reason.MISSING_FIELD, "review_id: Field required"),
        (with_fields(review_id=17), Reason.WRONG_TYPE, "review_id: Input should be a valid string"),
        (with_fields(review_id=None), Reason.WRONG_TYPE, "review_id: Input should be a valid string"),
        (with_fields(text=True), Reason.WRONG_TYPE, "text: Input should be a valid string"),
        (with_fields(text=["A slow start."]), Reason.WRONG_TYPE, "text: Input should be a valid string"),
        (with_fields(text={"en": "A slow start."}), Reason.WRONG_TYPE, "text: Input should be a valid string"),
        (with_raw("text", b"NaN"), Reason.WRONG_TYPE, "text: Input should be a valid string"),
        (with_raw("text", b"1e400"), Reason.WRONG_TYPE, "text: Input should be a valid string"),
        (with_fields(review_id=""), Reason.OUT_OF_BOUNDS, "review_id: String should have at least 1 character"),
        (with_fields(review_id="a" * 129), Reason.OUT_OF_BOUNDS, "review_id: String should have at most 128"),
        (with_fields(review_id="a\x00b"), Reason.OUT_OF_BOUNDS, "review_id: holds a control character"),
        (with_fields(review_id="a\nb"), Reason.OUT_OF_BOUNDS, "review_id: holds a control character"),
        (with_fields(review_id="a\x7f"), Reason.OUT_OF_BOUNDS, "review_id: holds a control character"),
        (with_fields(review_id="a\x9bb"), Reason.OUT_OF_BOUNDS, "review_id: holds a control character"),
        (with_fields(text=""), Reason.OUT_OF_BOUNDS, "text: String should have at least 1 character"),
        (with_fields(text=" \n\u00a0"), Reason.OUT_OF_BOUNDS, "text: has no visible character"),
        (with_fields(text="\x00"), Reason.OUT_OF_BOUNDS, "text: has no visible character"),
        (with_fields(text="a" * 100_001), Reason.OUT_OF_BOUNDS, "text: String should have at most 100000"),
        (with_fields(text="a" * 200_000), Reason.OUT_OF_BOUNDS, "text: String should have at most 100000"),
    ],
    ids=lambda part: repr(part)[:40] if isinstance(part, bytes | None) else "",
)
def test_a_record_at_fault_is_rejected_with_its_reason(value: bytes | None, reason: Reason, detail: str) -> None:
    refused = rejection(value)

    assert refused.reason is reason
    assert detail in refused.detail


def test_a_rejection_says_where_the_record_stands() -> None:
    assert rejection(None).source == Message("reviews", 3, 4211, None, None).source


def test_a_value_over_the_limit_is_refused_before_it_is_parsed() -> None:
    """A byte more, and even a value that is no JSON at all is only too large."""
    refused = rejection(b"[" * (LIMIT + 1))

    assert refused.reason is Reason.TOO_LARGE
    assert refused.detail == "the value has 1,048,577 bytes, accepted are 1,048,576"
    assert rejection(b"[" * LIMIT).reason is Reason.NOT_JSON


def test_every_reason_of_the_list_can_be_met() -> None:
    """A reason that no record leads to would be a dead series on a dashboard. Two are found behind the intake."""
    values = [None, b"", b"\x00", b"\xff", b"[", b"[]", b"{}", with_fields(text=5), with_fields(text="")]

    met = {rejection(value).reason for value in values} | {rejection(GOOD, max_bytes=1).reason}

    assert met | IN_SCORING == set(Reason)


# --- whatever may come ---

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
almost_reviews = st.fixed_dictionaries(
    {}, optional={"review_id": st.text(max_size=140) | json_values, "text": json_values, "other": json_values}
)


@given(st.binary(max_size=200) | almost_reviews.map(lambda it: json.dumps(it).encode()))
@settings(max_examples=1_000)
@example(b'{"review_id": "\xff')
@example(b"\x00{")
def test_any_bytes_give_one_review_or_one_rejection(value: bytes) -> None:
    outcome = read(value, max_bytes=150)

    if isinstance(outcome, Rejection):
        assert "\n" not in outcome.detail
        assert outcome.detail.isprintable()
        assert Rejection.model_validate_json(outcome.model_dump_json()) == outcome
    else:
        assert Review.model_validate_json(outcome.model_dump_json()) == outcome


# Small ASCII letters are left out: the rejection's own sentences are made of them, and of nothing else eight long.
foreign = st.text(
    st.characters(codec="utf-8", exclude_characters="abcdefghijklmnopqrstuvwxyz"), min_size=8, max_size=300
)


@st.composite
def broken(draw: st.DrawFn) -> tuple[str, str, bytes]:
    """A review and its bytes, after someone has put something wrong into them or cut them short."""
    name, text = draw(foreign), draw(foreign)
    value = json.dumps({"review_id": name, "text": text}, ensure_ascii=draw(st.booleans())).encode()
    place = draw(st.integers(0, len(value)))
    return name, text, value[:place] + draw(st.binary(max_size=4)) + value[place + draw(st.integers(0, 100)) :]


@given(broken())
@settings(max_examples=500)
def test_a_rejection_never_repeats_the_review(case: tuple[str, str, bytes]) -> None:
    name, text, value = case
    outcome = read(value)

    if isinstance(outcome, Rejection):
        for written in (name, text):
            assert not any(written[at : at + 8] in outcome.detail for at in range(len(written) - 7))


@pytest.mark.parametrize("secret", ["hunter2-hunter2", "4929 1234 5678 9012"])
@pytest.mark.parametrize(
    "shape",
    [
        '{"review_id": "a", "text": "%s" %s}',
        '{"review_id": "%s\\u0000", "text": "%s"}',
        '{"review_id": 5, "text": "%s", "%s": 1}',
        '{"%s": "%s"}',
        '["%s", "%s"]',
        '"%s" "%s"',
        '{"review_id": "a", "text": "\\%s %s"}',
        "%s %s",
    ],
)
def test_a_secret_in_a_record_at_fault_stays_in_the_record(shape: str, secret: str) -> None:
    refused = rejection((shape % (secret, secret)).encode())

    assert not re.search(re.escape(secret[:8]), refused.model_dump_json())


def test_a_key_that_would_leave_no_room_for_the_prediction_is_rejected() -> None:
    def read(key: bytes) -> Review | Rejection:
        return read_review(Message("reviews", 0, 7, key, GOOD), 1 << 20)

    assert isinstance(read(b"k" * (32 << 10)), Review)
    refused = read(b"k" * ((32 << 10) + 1))
    assert isinstance(refused, Rejection)
    assert (refused.reason, refused.detail) == (Reason.TOO_LARGE, "the key has 32,769 bytes, accepted are 32,768")
