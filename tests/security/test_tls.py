"""TLS: every command works over it, and what does not fit is one line that says what, and which setting is meant."""

import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contract.pieces import StubWorker, examined, review
from running import Stage
from security.pieces import KEYSTORE_PASSWORD, PASSWORD, Done, Secured, command

pytestmark = pytest.mark.kafka

SOON = {"WORKER_KAFKA__BOOTSTRAP_TIMEOUT_SECONDS": "2"}


def test_every_command_works_over_tls(
    secured: Secured, closed: Stage, start_stub: Callable[..., StubWorker], tmp_path: Path
) -> None:
    """Without a certificate of its own a client is nobody, who has every right here."""
    tls = secured.reach("TLS")
    settings = closed.environment | tls
    worker = start_stub(**tls)
    file = tmp_path / "reviews.jsonl"
    file.write_bytes(b"\n".join(review(number) for number in range(20)))
    published = command("publish", file, **settings)
    assert published.code == 0, published.err
    found = command("check", "--json", **settings).findings
    assert {name for name, (ok, _) in found.items() if not ok} == {"model"}
    assert found["broker"][1] == f"1 broker(s) behind {tls['WORKER_KAFKA__BOOTSTRAP_SERVERS']} over SSL"
    tailed = command("tail", "--from-beginning", "--count", "20", "--json", **settings)
    assert (tailed.code, tailed.out.count("\n")) == (0, 20)
    closed.wait_until_drained(90)
    assert worker.stop() == 0
    outcome = examined(closed)
    assert outcome.sound, outcome
    assert outcome.predictions == 20


def test_the_name_in_the_certificate_matters_unless_insecure_is_said(secured: Secured) -> None:
    settings = secured.reach("ELSEWHERE", authority="elsewhere") | SOON
    lenient = settings | {"WORKER_KAFKA__SSL_CHECK_HOSTNAME": "false"}
    assert "certificate is not valid for '127.0.0.1'" in refused(**settings)
    done = command("tail", **lenient)
    assert done.code == 2
    assert "ssl_check_hostname = false accepts any host's certificate; set insecure = true to allow" in done.error
    found = command("check", "--json", **lenient, WORKER_KAFKA__INSECURE="true").findings
    assert found["broker"][0]


def refused(**settings: str) -> str:
    """The one line of a command that finds no way to the broker."""
    done = command("tail", **settings)
    assert done.code == 1
    assert done.in_time
    return done.error


UNFIT: dict[str, tuple[str, dict[str, str | None], tuple[str, ...]]] = {
    "an authority that did not sign": (
        "TLS",
        {"authority": "elsewhere"},
        ("CERTIFICATE_VERIFY_FAILED", "WORKER_KAFKA__SSL_CAFILE"),
    ),
    "plain text to TLS": ("TLS", {"protocol": "PLAINTEXT"}, ("WORKER_KAFKA__SECURITY_PROTOCOL",)),
    "TLS to plain text": ("PLAIN", {"protocol": "SSL"}, ("Handshake failed", "WORKER_KAFKA__SECURITY_PROTOCOL")),
    "no password where one is asked for": (
        "SCRAM",
        {"protocol": "SSL"},
        ("WORKER_KAFKA__SECURITY_PROTOCOL",),
    ),
    "a broker that goes by another name": (
        "MOVED",
        {},
        ("certificate is not valid for 'localhost'", "Connect by a name that the certificate holds"),
    ),
    "no certificate of one's own": ("MUTUAL", {}, ("WORKER_KAFKA__SSL_CERTFILE",)),
}


@pytest.mark.parametrize("what", UNFIT)
def test_what_does_not_fit_is_named_with_the_setting(secured: Secured, what: str) -> None:
    listener, differs, expected = UNFIT[what]
    line = refused(**secured.reach(listener, **differs), **SOON)
    assert f"127.0.0.1:{secured.ports[listener]}" in line
    for part in expected:
        assert part in line


def test_every_command_says_so_within_15_seconds(
    secured: Secured, closed: Stage, tiny_model: Path, tmp_path: Path
) -> None:
    """With the time-out as it is by default."""
    file = tmp_path / "reviews.jsonl"
    file.write_bytes(review(1))
    commands = (("run", "--model", tiny_model), ("check", "--json"), ("publish", file), ("tail",))
    settings = closed.environment | secured.reach("TLS", authority="elsewhere")

    def attempt(arguments: tuple[str | Path, ...]) -> Done:
        return command(*arguments, **settings)

    with ThreadPoolExecutor() as threads:
        for arguments, done in zip(commands, threads.map(attempt, commands), strict=True):
            assert done.code == 1, arguments
            assert done.in_time, arguments
            line = done.findings["broker"][1] if arguments[0] == "check" else done.error
            assert "CERTIFICATE_VERIFY_FAILED" in line, arguments


FILES: dict[str, tuple[str, str]] = {
    "no such authority": ("SSL_CAFILE", "No such file or directory"),
    "an authority that is no certificate": ("SSL_CAFILE", "no certificate or crl found"),
    "no such certificate": ("SSL_CERTFILE", "No such file or directory"),
    "a certificate that is none": ("SSL_CERTFILE", "PEM lib"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_file_that_cannot_be_used_is_named(secured: Secured, tmp_path: Path, what: str) -> None:
    setting, expected = FILES[what]
    file = tmp_path / "file.pem"
    if "is no" in what or "is none" in what:
        file.write_text("not a certificate")
    line = refused(**secured.reach("TLS") | {f"WORKER_KAFKA__{setting}": str(file)}, **SOON)
    assert expected in line
    assert f"WORKER_KAFKA__{setting}" in line


@pytest.fixture(scope="module")
def own_certificate(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The settings of a client with a certificate, its key encrypted, and the key's password in a file."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to take a key out of a keystore")
    folder = tmp_path_factory.mktemp("own")
    pair, password = folder / "worker.pem", folder / "password"
    password.write_text(f"{PASSWORD}\n")
    words = ["-passin", f"pass:{KEYSTORE_PASSWORD}", "-passout", f"pass:{PASSWORD}", "-out", str(pair)]
    subprocess.run(["openssl", "pkcs12", "-in", str(secured.folder / "worker.p12"), *words], check=True)
    return {
        "WORKER_KAFKA__SSL_CERTFILE": str(pair),
        "WORKER_KAFKA__SSL_KEYFILE": str(pair),
        "WORKER_KAFKA__SSL_PASSWORD_FILE": str(password),
    }


def test_a_certificate_of_ones_own_opens_the_door(secured: Secured, own_certificate: dict[str, str]) -> None:
    settings = secured.reach("MUTUAL") | own_certificate
    assert command("check", "--json", **settings).findings["broker"][0]


@pytest.mark.parametrize("password", [None, "wrong"])
def test_an_encrypted_key_without_its_password_asks_nobody(
    secured: Secured, own_certificate: dict[str, str], tmp_path: Path, password: str | None
) -> None:
    """OpenSSL would ask for it on the terminal, and wait for ever."""
    settings = secured.reach("MUTUAL") | own_certificate
    del settings["WORKER_KAFKA__SSL_PASSWORD_FILE"]
    if password:
        (tmp_path / "wrong").write_text(password)
        settings["WORKER_KAFKA__SSL_PASSWORD_FILE"] = str(tmp_path / "wrong")
    assert "WORKER_KAFKA__SSL_PASSWORD" in refused(**settings, **SOON)
