"""User and password: the right ones open the door, the wrong ones are named, and the password is shown nowhere."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.pieces import StubWorker, review
from running import Stage
from security.pieces import MECHANISMS, PASSWORD, Secured, command, documented_rights, given

pytestmark = pytest.mark.kafka

SOON = {"WORKER_KAFKA__BOOTSTRAP_TIMEOUT_SECONDS": "2"}


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_user_and_password_are_taken_from_settings_and_file(secured: Secured, closed: Stage, mechanism: str) -> None:
    login = secured.login("publisher", mechanism=mechanism)
    with given(secured, closed, documented_rights("publisher")):
        done = command("publish", "-", typed=review(1).decode(), **closed.environment | login)
    assert done.code == 0, done.err
    assert [record.value for record in closed.read(closed.input)] == [review(1)]


WRONG: dict[str, dict[str, str]] = {
    "a wrong password": {"password": "guessed"},
    "an unknown user": {"user": "nobody"},
}


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_password_is_said_to_be_wrong(secured: Secured, what: str, mechanism: str) -> None:
    """The broker does not tell which of the two was wrong, and so a stranger learns no names."""
    done = command("tail", **secured.login(**{"user": "worker", "mechanism": mechanism} | WRONG[what]), **SOON)
    assert done.code == 1
    assert done.in_time
    assert "SaslAuthenticationFailedError" in done.error
    assert "WORKER_KAFKA__SASL_PLAIN_USERNAME" in done.error
    assert "guessed" not in done.error


def test_an_empty_password_file_is_a_wrong_password(secured: Secured) -> None:
    done = command("tail", **secured.login("worker", password=""), **SOON)
    assert done.code == 1
    assert "SaslAuthenticationFailedError" in done.error


def test_a_mechanism_that_the_broker_does_not_offer_is_named(secured: Secured) -> None:
    done = command("tail", **secured.login("worker", mechanism="PLAIN"), **SOON)
    assert done.code == 1
    assert "WORKER_KAFKA__SASL_MECHANISM" in done.error


def test_a_password_for_a_listener_that_asks_for_none_is_named(secured: Secured) -> None:
    done = command("tail", **secured.login("worker", listener="TLS", protocol="SASL_SSL"), **SOON)
    assert done.code == 1
    assert "WORKER_KAFKA__SECURITY_PROTOCOL" in done.error


def test_a_password_goes_over_an_open_line_only_when_insecure_is_said(secured: Secured) -> None:
    login = secured.login("worker", listener="BARE")
    done = command("tail", **login)
    assert done.code == 2
    assert "SASL_PLAINTEXT sends credentials unencrypted; use SASL_SSL, or set insecure = true" in done.error
    found = command("check", "--json", **login, WORKER_KAFKA__INSECURE="true").findings
    assert found["broker"][0]


def test_the_password_is_nowhere_but_in_its_file(
    secured: Secured, entitled: Stage, start_stub: Callable[..., StubWorker]
) -> None:
    """Every other command's output is searched for it where the command is run."""
    login = secured.login("worker")
    worker = start_stub(**login, WORKER_LOG_LEVEL="debug")
    worker.wait_until_ready()
    entitled.publish([review(1)])
    entitled.wait_until_drained(90)
    process = Path("/proc") / str(worker.process.pid)
    places = {path: worker.get(path)[1] for path in ("/", "/metrics", "/readyz", "/livez")}
    for name in ("cmdline", "environ"):
        if process.is_dir():  # on Linux
            places[name] = (process / name).read_text()
    assert worker.stop() == 0
    places["log"] = worker.log.read_text()
    for encoded in (PASSWORD, base64.b64encode(PASSWORD.encode()).decode().rstrip("=")):
        assert [place for place, content in places.items() if encoded in content] == []
