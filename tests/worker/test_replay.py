"""Replay without a broker: what is chosen, what goes back, and how far it is."""

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Reason, Rejection
from worker.errors import UsageError
from worker.letters import Letters
from worker.message import Headers, Message
from worker.replay import MAX_METADATA, Replayed
from worker.replay.choice import Choice, Fate, read_reasons, read_time
from worker.replay.dead_letters import group_of
from worker.replay.marks import Marks, put_back, read_marks
from worker.replay.progress import Progress
from worker.settings import KafkaSettings

TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
NOW_MS = round(NOW.timestamp() * 1000)


def buried(*headers: tuple[str, bytes | None], key: bytes | None = b"key", value: bytes | None = b"value") -> Message:
    """A dead letter as the worker writes it."""
    message = Message("reviews", 3, 4211, key, value, headers, NOW_MS)
    rejection = Rejection(reason=Reason.NOT_JSON, detail="no JSON", source=message.source)
    out = Letters("review-predictions", "reviews-dead-letters").write(message, rejection)
    return Message(out.topic, 0, 17, out.key, out.value, tuple(out.headers), NOW_MS)


def marks_of(message: Message, input_topic: str = "reviews") -> Marks | None:
    return read_marks(message.headers, input_topic)


# --- which ones are chosen ---


def test_reasons_are_known_by_their_names() -> None:
    assert read_reasons(["not_json", "empty", "empty"]) == {Reason.NOT_JSON, Reason.EMPTY}
    assert read_reasons([]) == set()


@pytest.mark.parametrize("name", ["no_json", "NOT_JSON", "", "not_json,empty"])
def test_a_reason_that_there_is_not_is_named_with_those_that_there_are(name: str) -> None:
    with pytest.raises(UsageError) as error:
        read_reasons(["empty", name])

    assert f"--reason {name}: " in str(error.value)
    assert all(reason.value in str(error.value) for reason in Reason)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-23", datetime(2026, 11, 23, tzinfo=UTC)),
        ("2026-11-23T10:00", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2026-11-23 10:00:00.250", datetime(2026, 11, 23, 10, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-11-23T10:00Z", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2026-11-23T10:00+01:00", datetime(2026, 11, 23, 9, tzinfo=UTC)),
        ("0s", NOW),
        ("90s", datetime(2026, 11, 23, 11, 58, 30, tzinfo=UTC)),
        ("30m", datetime(2026, 11, 23, 11, 30, tzinfo=UTC)),
        ("2h", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("7d", datetime(2026, 11, 16, 12, tzinfo=UTC)),
    ],
)
def test_a_time_is_iso_8601_or_a_duration_back_from_now(text: str, expected: datetime) -> None:
    assert read_time("--since", text, NOW_MS) == round(expected.timestamp() * 1000)


@pytest.mark.parametrize("text", ["", "yesterday", "2", "h", "-2h", "2 h", "2w", "1.5h", "10:00", "٣h", "9999999d"])
def test_what_is_no_time_is_named_with_examples(text: str) -> None:
    with pytest.raises(UsageError) as error:
        read_time("--until", text, NOW_MS)

    for part in (f"--until {text}: ", "2026-11-23T10:00", "2h"):
        assert part in str(error.value)


def test_without_filters_everything_is_chosen() -> None:
    assert all(Choice().takes(reason, timestamp) for reason in Reason for timestamp in (-1, 0, NOW_MS))


def test_a_filter_by_time_has_its_begin_and_not_its_end() -> None:
    choice = Choice(since_ms=100, until_ms=200)

    assert [choice.takes(Reason.EMPTY, at) for at in (99, 100, 199, 200)] == [False, True, True, False]


def test_filters_hold_together() -> None:
    choice = Choice(frozenset({Reason.EMPTY, Reason.NOT_JSON}), since_ms=100)

    assert choice.takes(Reason.EMPTY, 100)
    assert choice.takes(Reason.NOT_JSON, 100)
    assert not choice.takes(Reason.NOT_UTF8, 100)
    assert not choice.takes(Reason.EMPTY, 99)


# --- what a dead letter tells ---


def test_a_dead_letter_tells_its_reason_its_partition_and_its_hops() -> None:
    assert marks_of(buried()) == Marks(Reason.NOT_JSON, 3, 0)
    assert marks_of(buried(("replay.hops", b"2"))) == Marks(Reason.NOT_JSON, 3, 2)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_known_again(reason: Reason) -> None:
    message = Message("reviews", 0, 0, None, b"x")
    letters = Letters("review-predictions", "reviews-dead-letters")
    out = letters.write(message, Rejection(reason=reason, detail="x", source=message.source))

    marks = read_marks(tuple(out.headers), "reviews")

    assert marks is not None
    assert marks.reason is reason


def without(name: str, *instead: tuple[str, bytes | None]) -> Headers:
    return (*(header for header in buried().headers if header[0] != name), *instead)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        without("rejection.reason"),
        without("rejection.reason", ("rejection.reason", None)),
        without("rejection.reason", ("rejection.reason", b"bad weather")),
        without("__connect.errors.topic"),
        without("__connect.errors.topic", ("__connect.errors.topic", b"orders")),
        without("__connect.errors.partition"),
        without("__connect.errors.partition", ("__connect.errors.partition", b"-1")),
        without("__connect.errors.partition", ("__connect.errors.partition", b"9" * 5000)),
    ],
)
def test_what_no_worker_on_this_topic_wrote_is_not_ours(headers: Headers) -> None:
    assert read_marks(headers, "reviews") is None


# --- what goes back ---


@pytest.mark.parametrize(
    ("key", "value"), [(b"key", b"value"), (b"key", None), (None, b"\xff\x00"), (b"", b""), (b"\xff", b"\x00" * 99)]
)
def test_the_record_goes_back_byte_for_byte(key: bytes | None, value: bytes | None) -> None:
    out = put_back(buried(key=key, value=value), Marks(Reason.EMPTY, 3, 0), "reviews")

    assert (out.topic, out.source_partition, out.key, out.value) == ("reviews", 3, key, value)


def test_a_record_without_key_and_value_goes_back_with_an_empty_one() -> None:
    """kafka-python refuses a record that has neither."""
    out = put_back(Message("reviews-dead-letters", 0, 0, None, None), Marks(Reason.EMPTY, 3, 0), "reviews")

    assert (out.key, out.value) == (None, b"")


@pytest.mark.parametrize(("before", "after"), [(0, b"1"), (1, b"2"), (9, b"10"), (998, b"999")])
def test_it_has_one_hop_more(before: int, after: bytes) -> None:
    assert put_back(buried(), Marks(Reason.EMPTY, 3, before), "reviews").headers == [("replay.hops", after)]


def test_of_its_headers_only_the_trace_goes_with_it() -> None:
    message = buried(("traceparent", TRACEPARENT), ("authorization", b"secret"), ("nothing", None))

    out = put_back(message, Marks(Reason.EMPTY, 3, 0), "reviews")

    assert out.headers == [("replay.hops", b"1"), ("traceparent", TRACEPARENT)]


def test_a_record_that_fails_again_is_counted_on() -> None:
    out = put_back(buried(), Marks(Reason.NOT_JSON, 3, 0), "reviews")

    again = marks_of(buried(*out.headers))

    assert again == Marks(Reason.NOT_JSON, 3, 1)


# --- how far it is ---


@st.composite
def topics(draw: st.DrawFn) -> tuple[list[int], int]:
    """Offsets of a partition's dead letters, with gaps between, and its end."""
    gaps = draw(st.lists(st.integers(0, 3), min_size=1, max_size=60))
    at, offsets = draw(st.integers(0, 5)), []
    for gap in gaps:
        at += gap
        offsets.append(at)
        at += 1
    return offsets, at + draw(st.integers(0, 3))


def read_on(
    progress: Progress, offsets: list[int], end: int, chosen: set[int], most: int | None = None
) -> tuple[Progress, list[int]]:
    """One replay that puts `chosen` back and stops after `most` steps; what the next one begins with, and what it put
    back."""
    done = []
    for offset in [offset for offset in offsets if offset >= progress.first][:most]:
        new = offset in chosen and offset not in progress
        done += [offset] if new else []
        progress.step(offset, done=new or offset in progress)
    if most is None:
        progress.finish(end)
    return Progress.decode(progress.first, progress.encode()), done


def of(offsets: list[int]) -> st.SearchStrategy[set[int]]:
    return st.sets(st.sampled_from(offsets))


@given(topic=topics(), data=st.data())
def test_whatever_is_chosen_in_whatever_order_is_put_back_once(
    topic: tuple[list[int], int], data: st.DataObject
) -> None:
    offsets, end = topic
    progress, put, wanted = Progress(data.draw(st.integers(0, offsets[0]))), [], set()

    for _ in range(data.draw(st.integers(1, 4))):
        chosen, most = data.draw(of(offsets)), data.draw(st.none() | st.integers(0, len(offsets)))
        before = progress.first
        progress, done = read_on(progress, offsets, end, chosen, most)
        put += done
        reached = [offset for offset in offsets if offset >= before][:most]
        wanted |= chosen & set(reached)
        assert sorted(put) == sorted(wanted)
        assert [offset for offset in offsets if offset in progress] == sorted(put)
        assert progress.first <= min(set(offsets) - wanted, default=end)
    progress, done = read_on(progress, offsets, end, set(offsets))
    assert sorted(put + done) == offsets
    assert (progress.first, progress.encode()) == (end, "")


@given(topic=topics(), data=st.data())
def test_what_is_committed_is_the_first_that_was_left(topic: tuple[list[int], int], data: st.DataObject) -> None:
    offsets, end = topic
    chosen = data.draw(of(offsets))

    progress, _ = read_on(Progress(0), offsets, end, chosen)

    assert progress.first == min(set(offsets) - chosen, default=end)


@given(topic=topics(), data=st.data())
def test_gaps_cut_no_run_in_two(topic: tuple[list[int], int], data: st.DataObject) -> None:
    """Else every transaction's marker would take room."""
    offsets, end = topic
    chosen = data.draw(of(offsets))
    progress = Progress(0)

    read_on(progress, offsets, end, chosen)

    flags = [offset in chosen for offset in offsets]
    begun = sum(done and not before for before, done in zip([False, *flags], flags, strict=False))
    assert len(progress._runs) == begun - flags[0]


@given(st.lists(st.tuples(st.integers(1, 10**12), st.integers(1, 10**12)), max_size=50), st.integers(0, 10**12))
def test_progress_reads_what_it_wrote(lengths: list[tuple[int, int]], first: int) -> None:
    runs, at = [], first
    for skipped, done in lengths:
        runs.append((at + skipped, at + skipped + done))
        at = runs[-1][1]

    text = Progress(first, runs).encode()

    assert text.isascii()
    assert Progress.decode(first, text)._runs == runs
    assert (text == "") is (runs == [])


@given(st.text(max_size=40))
def test_what_somebody_else_wrote_is_no_progress(text: str) -> None:
    """And nothing but ValueError is raised."""
    try:
        progress = Progress.decode(7, text)
    except ValueError:
        return
    assert progress.encode() == text == ""


@pytest.mark.parametrize("lengths", [b"", b"1", b"1,2,3", b"0,1", b"1,0", b"-1,5", b"1,x", b"1,,2", b"9" * 5000])
def test_lengths_that_make_no_runs_are_refused(lengths: bytes) -> None:
    from base64 import b85encode
    from zlib import compress

    with pytest.raises(ValueError):  # noqa: PT011 - whichever of its kinds
        Progress.decode(0, b85encode(compress(lengths)).decode())


def test_records_that_were_deleted_meanwhile_hold_nothing_up() -> None:
    """Compaction and retention: the first one left may be gone when it is looked for."""
    progress = Progress(5, [(8, 10)])

    progress.step(12, done=False)

    assert progress.first == 12
    assert progress.encode() == ""


@pytest.mark.parametrize(("letters", "share"), [(20_000, 0.1), (10_000, 0.5), (100_000, 0.005)])
def test_what_was_put_back_out_of_order_fits_beside_the_offset(letters: int, share: float) -> None:
    """Every letter in a transaction of its own: there is a marker behind each."""
    choose = random.Random(7)  # noqa: S311 - the same every time is the point
    progress = Progress(0)
    for number in range(letters):
        progress.step(2 * number, done=number > 0 and choose.random() < share)

    assert len(progress.encode()) < MAX_METADATA


# --- what it was ---


def test_the_group_is_the_workers_own_with_a_name_behind() -> None:
    assert group_of(KafkaSettings(group_id="mine")) == "mine-replay"


def test_the_document_has_totals_and_those_of_each_reason() -> None:
    done = Replayed(seconds=1.23456)
    done.counts.update(
        {(Reason.EMPTY, Fate.PUT_BACK): 2, (Reason.NOT_JSON, Fate.PUT_BACK): 1, (None, Fate.NOT_OURS): 4}
    )

    document = done.document()

    assert document["put_back"] == 3
    assert document["not_ours"] == 4
    assert document["seconds"] == 1.235
    assert document["limited"] is False
    assert {reason: counts["put_back"] for reason, counts in document["reasons"].items()} == {"empty": 2, "not_json": 1}
