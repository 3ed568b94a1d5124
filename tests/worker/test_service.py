"""Service: what holds for the whole process while it serves."""

import sys
from collections.abc import Iterator

import pytest

from worker import service
from worker.settings import Settings


@pytest.fixture(autouse=True)
def interval() -> Iterator[None]:
    """As it was, afterwards."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


def test_a_thread_waits_for_its_turn_a_fifth_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit is a dozen wake-ups, one after the other: beside a batch that is prepared each would wait for 5 ms."""
    sys.setswitchinterval(0.005)
    seen: list[float] = []
    monkeypatch.setattr(service, "start_logging", lambda _: None)
    monkeypatch.setattr(service, "_serve", lambda *_: seen.append(sys.getswitchinterval()))

    service.run(Settings(model="models/none"))

    assert seen == [pytest.approx(0.001)]
