"""Logs: one JSON object a line, and nothing in it that came with a record."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.logs import JsonLines, drop_harmless

REVIEW = "the text of a review"


def line(event: str = "partitions assigned", *, error: BaseException | None = None, **extra: Any) -> str:
    """What one log call prints."""
    record = logging.getLogger("worker.source").makeRecord(
        "worker.source",
        logging.WARNING,
        __file__,
        1,
        event,
        (),
        (type(error), error, error.__traceback__) if error else None,
        extra=extra,
    )
    return JsonLines().format(record)


def raised(make: Callable[[], None]) -> BaseException:
    try:
        make()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_a_line_says_when_how_bad_who_what_and_the_rest() -> None:
    said = json.loads(line(partitions=[0, 3], generation=7))

    at = datetime.fromisoformat(said.pop("at"))
    assert timedelta() <= datetime.now(UTC) - at < timedelta(minutes=1)
    assert said == {
        "level": "warning",
        "logger": "worker.source",
        "event": "partitions assigned",
        "partitions": [0, 3],
        "generation": 7,
    }


@given(st.text(), st.text())
def test_no_value_can_forge_a_line(event: str, value: str) -> None:
    shown = line(event.replace("%", ""), value=value)

    assert len(shown.splitlines()) == 1
    assert json.loads(shown)["value"] == value


@pytest.mark.parametrize("sign", ["\n", "\r", "\x1b[2J", "\x9b", "\x85", "\u2028", "\u2029", "\u202e", "\x00", '"}'])
def test_signs_that_a_terminal_or_a_collector_obeys_are_escaped(sign: str) -> None:
    shown = line(f"a{sign}b", value=f"a{sign}b")

    assert shown.isascii()
    assert shown.isprintable()
    assert json.loads(shown)["event"] == json.loads(shown)["value"] == f"a{sign}b"


def test_an_exception_is_named_and_its_text_left_out() -> None:
    def fail() -> None:
        raise ValueError(f"cannot read {REVIEW}")

    shown = line("reading failed", error=raised(fail))

    assert REVIEW not in shown
    assert json.loads(shown)["error"] == "ValueError"


def test_the_causes_of_an_exception_are_left_out_too() -> None:
    def fail() -> None:
        try:
            {}[REVIEW]
        except KeyError as error:
            raise RuntimeError(REVIEW) from error

    assert REVIEW not in line("reading failed", error=raised(fail))


def test_the_trace_names_files_lines_and_functions_and_no_values() -> None:
    def deeper(review: str) -> None:
        raise ValueError(review)

    def fail() -> None:
        deeper(REVIEW)

    shown = line("reading failed", error=raised(fail))

    trace = json.loads(shown)["trace"]
    assert [frame.split()[-1] for frame in trace] == ["raised", "fail", "deeper"]
    assert all(__file__ in frame for frame in trace)
    assert "raise ValueError" not in shown


def test_what_is_not_json_is_shown_as_text() -> None:
    assert json.loads(line(at_least=frozenset({"READ"})))["at_least"] == "frozenset({'READ'})"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Metadata refresh loop error: weakly-referenced object no longer exists", False),
        ("Metadata refresh: failed Cancelled", False),
        ("Connection lost", True),
    ],
)
def test_the_clients_false_alarms_are_dropped(text: str, kept: bool) -> None:
    assert drop_harmless(logging.LogRecord("kafka.net", logging.ERROR, "", 0, text, (), None)) is kept


def test_the_same_words_of_anybody_else_are_kept() -> None:
    assert drop_harmless(logging.LogRecord("worker.loop", logging.ERROR, "", 0, "[Cancelled]", (), None))


SPEAKING = """
import logging, sys
from worker.logs import start_logging

start_logging(sys.argv[1])
logging.getLogger("worker.loop").debug("debug of ours")
logging.getLogger("worker.loop").info("info of ours")
logging.getLogger("kafka.consumer").debug("payload")
logging.getLogger("kafka.consumer").info("payload")
logging.getLogger("kafka.consumer").warning("warning of kafka")
logging.getLogger("kafka.net").error("weakly-referenced object no longer exists")
logging.getLogger("some.library").warning("two\\nlines of %s", "others")
try:
    raise ValueError("payload")
except ValueError:
    logging.getLogger("worker.loop").exception("failed")
print("data")
"""


def spoken(level: str) -> tuple[list[dict[str, Any]], str]:
    """What a process prints: the lines of standard error, each as JSON, and standard output."""
    ended = subprocess.run([sys.executable, "-c", SPEAKING, level], capture_output=True, text=True, check=True)
    assert "payload" not in ended.stderr
    return [json.loads(line) for line in ended.stderr.splitlines()], ended.stdout


def test_a_process_logs_json_lines_on_standard_error_and_no_payload() -> None:
    lines, output = spoken("info")

    assert [line["event"] for line in lines] == ["info of ours", "warning of kafka", "two\nlines of others", "failed"]
    assert output == "data\n"


def test_the_client_stays_quiet_even_at_debug() -> None:
    """Below warning it prints the payloads that it carries."""
    lines, _ = spoken("debug")

    assert [line["event"] for line in lines][:3] == ["debug of ours", "info of ours", "warning of kafka"]


def test_a_higher_level_leaves_out_the_lower_ones() -> None:
    lines, _ = spoken("error")

    assert [line["event"] for line in lines] == ["warning of kafka", "failed"]
