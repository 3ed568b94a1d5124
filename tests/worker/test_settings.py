"""Settings: flags > environment > TOML file > defaults, one line for each mistake, and no secret in any of them."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from worker.errors import SettingsError
from worker.settings import Settings, known_settings, load_settings, secret, variable

PASSWORD = "hunter2-the-secret"  # noqa: S105 - the one that must never be shown

WriteToml = Callable[[str], Path]


pytestmark = pytest.mark.usefixtures("own_environment")


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`env(KAFKA__GROUP_ID="a")` sets WORKER_KAFKA__GROUP_ID."""

    def set_variables(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"WORKER_{name}", value)

    return set_variables


def refused(config: Path | None = None, **flags: Any) -> str:
    """The one line that a user gets."""
    with pytest.raises(SettingsError) as caught:
        load_settings(config, flags)
    said = str(caught.value)
    assert "\n" not in said
    assert PASSWORD not in said
    return said


# --- which value counts ---


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = load_settings()

    assert settings.model is None
    assert (settings.engine, settings.precision) == ("auto", "auto")
    assert settings.kafka.input_topic == "reviews"
    assert settings.kafka.output_topic == "review-predictions"
    assert settings.kafka.dead_letter_topic == "reviews-dead-letters"
    assert (settings.http.host, settings.http.port) == ("127.0.0.1", 9108)
    assert settings.kafka.security_protocol == "PLAINTEXT"
    assert settings.kafka.ssl_check_hostname
    assert not settings.kafka.insecure


def test_every_setting_of_the_contract_has_its_variable() -> None:
    variables = {variable(setting) for setting in known_settings()}

    assert variables >= {
        "WORKER_MODEL",
        "WORKER_ENGINE",
        "WORKER_PRECISION",
        "WORKER_KAFKA__BOOTSTRAP_SERVERS",
        "WORKER_KAFKA__GROUP_ID",
        "WORKER_KAFKA__INPUT_TOPIC",
        "WORKER_KAFKA__OUTPUT_TOPIC",
        "WORKER_KAFKA__DEAD_LETTER_TOPIC",
        "WORKER_KAFKA__TRANSACTIONAL_ID",
        "WORKER_KAFKA__GROUP_INSTANCE_ID",
        "WORKER_KAFKA__SECURITY_PROTOCOL",
        "WORKER_KAFKA__SASL_MECHANISM",
        "WORKER_KAFKA__SASL_PLAIN_USERNAME",
        "WORKER_KAFKA__SASL_PLAIN_PASSWORD",
        "WORKER_KAFKA__SASL_PLAIN_PASSWORD_FILE",
        "WORKER_KAFKA__SSL_CAFILE",
        "WORKER_KAFKA__SSL_CERTFILE",
        "WORKER_KAFKA__SSL_KEYFILE",
        "WORKER_BATCH__MAX_REVIEWS",
        "WORKER_BATCH__TOKEN_BUDGET",
        "WORKER_HTTP__HOST",
        "WORKER_HTTP__PORT",
    }


def test_a_file_wins_over_a_default(toml: WriteToml) -> None:
    settings = load_settings(toml('model = "models/imdb"\n[kafka]\ngroup_id = "file"\n[batch]\nmax_reviews = 7'))

    assert settings.model == Path("models/imdb")
    assert settings.kafka.group_id == "file"
    assert settings.batch.max_reviews == 7
    assert settings.kafka.input_topic == "reviews"


def test_the_environment_wins_over_a_file(toml: WriteToml, env: Callable[..., None]) -> None:
    env(KAFKA__GROUP_ID="environment")

    settings = load_settings(toml('[kafka]\ngroup_id = "file"\nclient_id = "file"'))

    assert (settings.kafka.group_id, settings.kafka.client_id) == ("environment", "file")


def test_a_flag_wins_over_the_environment(toml: WriteToml, env: Callable[..., None]) -> None:
    env(KAFKA__GROUP_ID="environment", KAFKA__CLIENT_ID="environment", HTTP__PORT="1")

    settings = load_settings(
        toml('[kafka]\ngroup_id = "file"\ninput_topic = "file"\n[http]\nport = 2'),
        {"kafka": {"group_id": "flag"}, "http": {"port": 3}},
    )

    assert settings.kafka.group_id == "flag"
    assert settings.kafka.client_id == "environment"
    assert settings.kafka.input_topic == "file"
    assert settings.http.port == 3


def test_a_variable_may_be_written_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("worker_kafka__group_id", "lower")

    assert load_settings().kafka.group_id == "lower"


def test_a_section_may_come_as_one_variable(env: Callable[..., None]) -> None:
    env(KAFKA=json.dumps({"group_id": "whole", "client_id": "whole"}), KAFKA__CLIENT_ID="one")

    settings = load_settings()

    assert (settings.kafka.group_id, settings.kafka.client_id) == ("whole", "one")


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().kafka.group_id = "other"  # type: ignore[misc]


# --- unknown names ---


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("WORKER_KAFKA__GROUPID", "WORKER_KAFKA__GROUP_ID"),
        ("WORKER_GROUP_ID", "WORKER_KAFKA__GROUP_ID"),
        ("WORKER_KAFKA_GROUP_ID", "WORKER_KAFKA__GROUP_ID"),
        ("WORKER_BATCH__TOKENS_BUDGET", "WORKER_BATCH__TOKEN_BUDGET"),
        ("WORKER_HTTP_PORT", "WORKER_HTTP__PORT"),
        ("WORKER_MODLE", "WORKER_MODEL"),
        ("WORKER_HTTP__PORT__X", "WORKER_HTTP__PORT"),
        ("worker_engin", "WORKER_ENGINE"),
    ],
)
def test_an_unknown_variable_is_an_error_that_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch, name: str, nearest: str
) -> None:
    monkeypatch.setenv(name, PASSWORD)

    assert refused() == f"environment variable {name}: no such setting; did you mean {nearest}?"


def test_a_name_without_likeness_gets_no_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_" + "Q" * 40, "1")

    assert refused().endswith(": no such setting")


def test_variables_of_others_are_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS_MODEL", "x")
    monkeypatch.setenv("MY_WORKER_MODEL", "x")

    assert load_settings().model is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[kafka]\ngroupid = 1", "setting kafka.groupid: no such setting; did you mean kafka.group_id?"),
        ("[kafak]\ngroup_id = 1", "setting kafak: no such setting"),
        ("modell = 1", "setting modell: no such setting; did you mean model?"),
        ("[http.port]\nx = 1", "setting http.port: Input should be a valid integer"),
        ('kafka = "x"', "setting kafka: Input should be a valid dictionary"),
        ("model = 5", "setting model: Input is not a valid path"),
    ],
)
def test_a_mistake_in_the_file_is_named(toml: WriteToml, content: str, said: str) -> None:
    assert refused(toml(content)).startswith(said)


def test_an_unknown_flag_is_an_error_too() -> None:
    assert refused(kafka={"groop_id": "x"}).endswith("did you mean kafka.group_id?")


@pytest.mark.parametrize("content", ["model = ", "[kafka", "a = 1\na = 2", f"password = {PASSWORD}", "\x00"])
def test_a_file_that_is_no_toml_is_refused(toml: WriteToml, content: str) -> None:
    path = toml(content)

    assert refused(path).startswith(f"--config {path}: not a readable TOML file: ")


def test_a_file_that_is_no_text_or_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "worker.toml").write_bytes(b"\xff\xfe")

    assert "not a readable TOML file" in refused(tmp_path / "worker.toml")
    assert "not a readable TOML file" in refused(tmp_path)
    assert refused(tmp_path / "none.toml") == f"--config {tmp_path / 'none.toml'}: no such file"


# --- values out of bounds ---


@pytest.mark.parametrize(
    ("name", "value", "setting"),
    [
        ("HTTP__PORT", "65536", "http.port"),
        ("HTTP__PORT", "-1", "http.port"),
        ("HTTP__PORT", PASSWORD, "http.port"),
        ("HTTP__HOST", "localhost", "http.host"),
        ("HTTP__HOST", "", "http.host"),
        ("BATCH__MAX_REVIEWS", "0", "batch.max_reviews"),
        ("BATCH__MAX_REVIEWS", "10001", "batch.max_reviews"),
        ("BATCH__TOKEN_BUDGET", "511", "batch.token_budget"),
        ("BATCH__MAX_MESSAGE_BYTES", "99", "batch.max_message_bytes"),
        ("WATCHDOG__STAGE_SECONDS", "0.9", "watchdog.stage_seconds"),
        ("WATCHDOG__STAGE_SECONDS", "nan", "watchdog.stage_seconds"),
        ("ENGINE", PASSWORD, "engine"),
        ("PRECISION", "int4", "precision"),
        ("LOG_LEVEL", "loud", "log_level"),
        ("KAFKA__BOOTSTRAP_SERVERS", "", "kafka.bootstrap_servers"),
        ("KAFKA__BOOTSTRAP_SERVERS", " , ", "kafka.bootstrap_servers"),
        ("KAFKA__BOOTSTRAP_SERVERS", ":::", "kafka.bootstrap_servers"),
        ("KAFKA__BOOTSTRAP_SERVERS", "broker", "kafka.bootstrap_servers"),
        ("KAFKA__BOOTSTRAP_SERVERS", "a:1,b", "kafka.bootstrap_servers"),
        ("KAFKA__GROUP_ID", "", "kafka.group_id"),
        ("KAFKA__INPUT_TOPIC", "my reviews", "kafka.input_topic"),
        ("KAFKA__INPUT_TOPIC", "a" * 250, "kafka.input_topic"),
        ("KAFKA__SECURITY_PROTOCOL", PASSWORD, "kafka.security_protocol"),
        ("KAFKA__SASL_MECHANISM", PASSWORD, "kafka.sasl_mechanism"),
        ("KAFKA__COMPRESSION", "brotli", "kafka.compression"),
        ("KAFKA__INSECURE", PASSWORD, "kafka.insecure"),
        ("KAFKA__SESSION_TIMEOUT_SECONDS", "nan", "kafka.session_timeout_seconds"),
    ],
)
def test_a_value_out_of_bounds_is_an_error_that_names_the_setting(
    env: Callable[..., None], name: str, value: str, setting: str
) -> None:
    env(**{name: value})

    assert refused().startswith(f"setting {setting}: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "10.1.2.3"])  # noqa: S104 - a setting, not a socket
def test_an_address_is_taken(env: Callable[..., None], host: str) -> None:
    env(HTTP__HOST=host)

    assert load_settings().http.host == host


@pytest.mark.parametrize("value", [PASSWORD, "", "{", "[1]", '"x"', json.dumps({"sasl_plain_password": [PASSWORD]})])
def test_a_section_that_is_no_json_object_is_one_line(env: Callable[..., None], value: str) -> None:
    env(KAFKA=value)

    assert "kafka" in refused()


# --- settings that must agree ---

SASL = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_plain_username": "worker",
    "sasl_plain_password": PASSWORD,
}


@pytest.mark.parametrize(
    ("kafka", "said"),
    [
        ({"input_topic": "review-predictions"}, "input_topic, output_topic and dead_letter_topic must be three"),
        ({"output_topic": "a", "dead_letter_topic": "a"}, "input_topic, output_topic and dead_letter_topic must be"),
        (SASL | {"sasl_mechanism": None}, "SASL_SSL needs sasl_mechanism and sasl_plain_username"),
        (SASL | {"sasl_plain_username": None}, "SASL_SSL needs sasl_mechanism and sasl_plain_username"),
        (SASL | {"sasl_plain_password": None}, "sasl_mechanism needs sasl_plain_password_file or sasl_plain_password"),
        (SASL | {"security_protocol": "SSL"}, "sasl_mechanism is set, but security_protocol is SSL"),
        (SASL | {"security_protocol": "SASL_PLAINTEXT"}, "SASL_PLAINTEXT sends credentials unencrypted"),
        ({"ssl_check_hostname": False}, "ssl_check_hostname = false accepts any host's certificate"),
        ({"max_poll_interval_seconds": 44}, "max_poll_interval_seconds must not be below session_timeout_seconds"),
        ({"request_timeout_seconds": 60}, "request_timeout_seconds must be below transaction_timeout_seconds"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(kafka: dict[str, Any], said: str) -> None:
    assert refused(kafka=kafka).startswith(f"setting kafka: {said}")


@pytest.mark.parametrize(
    "kafka",
    [
        SASL,
        SASL | {"sasl_plain_password": None, "sasl_plain_password_file": "/run/secrets/password"},
        SASL | {"security_protocol": "SASL_PLAINTEXT", "insecure": True},
        {"ssl_check_hostname": False, "insecure": True},
    ],
)
def test_what_is_unsafe_can_be_had_by_asking_for_it(kafka: dict[str, Any]) -> None:
    load_settings(flags={"kafka": kafka})


# --- names of this worker ---


def test_two_workers_on_one_machine_have_different_names() -> None:
    """They can't share the HTTP port, so that the names that fence each other can't be the same."""
    first, second = load_settings(flags={"http": {"port": 1}}), load_settings(flags={"http": {"port": 2}})

    assert first.transactional_id != second.transactional_id
    assert first.group_instance_id != second.group_instance_id


def test_a_worker_has_the_same_names_after_a_restart() -> None:
    assert load_settings().transactional_id == load_settings().transactional_id
    assert load_settings().group_instance_id == load_settings().group_instance_id


def test_two_groups_on_one_machine_have_different_names() -> None:
    other = load_settings(flags={"kafka": {"group_id": "other"}})

    assert other.transactional_id != load_settings().transactional_id


def test_names_may_be_given() -> None:
    settings = load_settings(flags={"kafka": {"transactional_id": "t-1", "group_instance_id": "g-1"}})

    assert (settings.transactional_id, settings.group_instance_id) == ("t-1", "g-1")


def test_workers_that_take_a_free_port_have_a_name_each_and_are_dynamic_members() -> None:
    settings = load_settings(flags={"http": {"port": 0}})

    assert settings.transactional_id.endswith(f"-{os.getpid()}")
    assert settings.group_instance_id is None


def test_an_empty_instance_id_makes_a_dynamic_member(env: Callable[..., None]) -> None:
    env(KAFKA__GROUP_INSTANCE_ID="")

    assert load_settings().group_instance_id is None


# --- secrets ---


def test_a_secret_is_masked_wherever_settings_are_shown(env: Callable[..., None]) -> None:
    env(KAFKA__SASL_PLAIN_PASSWORD=PASSWORD, KAFKA__SSL_PASSWORD=PASSWORD)
    settings = load_settings()

    shown = [
        repr(settings),
        str(settings),
        f"{settings.kafka}",
        settings.model_dump_json(),
        str(settings.model_dump()),
        settings.kafka.model_dump_json(),
    ]

    assert not [text for text in shown if PASSWORD in text]
    assert secret(settings.kafka.sasl_plain_password, None) == PASSWORD


@pytest.mark.parametrize("spoilt", [{"HTTP__PORT": "x"}, {"KAFKA__SECURITY_PROTOCOL": "x"}, {"MODLE": "x"}])
def test_a_secret_beside_a_mistake_is_not_shown(
    env: Callable[..., None], toml: WriteToml, spoilt: dict[str, str]
) -> None:
    env(KAFKA__SASL_PLAIN_PASSWORD=PASSWORD, **spoilt)

    refused(toml(f'[kafka]\nssl_password = "{PASSWORD}"'), kafka={"sasl_plain_username": PASSWORD})


def test_the_error_of_the_library_itself_holds_no_input(env: Callable[..., None]) -> None:
    """Where a stack trace is printed after all."""
    env(KAFKA__SASL_PLAIN_PASSWORD=PASSWORD, KAFKA__SECURITY_PROTOCOL=PASSWORD, HTTP__PORT=PASSWORD)

    with pytest.raises(ValueError, match="2 validation errors") as caught:
        Settings()

    assert PASSWORD not in f"{caught.value} {caught.value!r}"


def test_an_error_brings_no_cause_that_could_hold_more(env: Callable[..., None]) -> None:
    env(KAFKA=PASSWORD)

    with pytest.raises(SettingsError) as caught:
        load_settings()

    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("content", "read"),
    [
        ("word", "word"),
        ("word\n", "word"),
        ("word\r\n", "word"),
        (" word ", " word "),
        ("a\nb\n", "a\nb"),
        ("pä", "pä"),
    ],
)
def test_a_secret_file_is_read_without_its_last_line_break(tmp_path: Path, content: str, read: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(content.encode())

    assert secret(None, path) == read


def test_a_secret_file_wins_over_the_environment(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from the file", encoding="utf-8")

    assert secret(SecretStr("from the environment"), tmp_path / "password") == "from the file"


def test_without_a_secret_there_is_none() -> None:
    assert secret(None, None) is None
    assert secret(SecretStr(""), None) is None


def test_a_secret_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(PASSWORD.encode() + b"\xff")

    with pytest.raises(SettingsError, match=re.escape(f"secret file {tmp_path / 'none'}: No such file")):
        secret(None, tmp_path / "none")
    with pytest.raises(SettingsError, match=re.escape(f"secret file {tmp_path}: Is a directory")):
        secret(None, tmp_path)
    with pytest.raises(SettingsError, match=re.escape(f"secret file {tmp_path / 'binary'}: not UTF-8")):
        secret(None, tmp_path / "binary")
