"""Config: where each setting came from, what it means, and a file to begin with; never a secret."""

import json
import tomllib
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from worker.config import MASK, Setting, document, in_force, table, template
from worker.errors import SettingsError
from worker.settings import known_settings, load_settings, variable

PASSWORD = "hunter2-the-secret"  # noqa: S105 - the one that must never be shown

SASL = {
    "kafka": {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_plain_username": "me"},
}

pytestmark = pytest.mark.usefixtures("own_environment")


def found(config: Path | None = None, flags: dict[str, Any] | None = None, **named: str) -> dict[str, Setting]:
    return {it.name: it for it in in_force(config, flags, named)}


def shown(settings: list[Setting], width: int = 80) -> str:
    """What a person sees in a terminal of that width."""
    console = Console(file=StringIO(), width=width)
    console.print(table(settings))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


# --- where it came from ---


def test_every_setting_is_there_once_with_its_default_and_says_what_it_means() -> None:
    settings = in_force()

    assert sorted(it.name for it in settings) == sorted(known_settings())
    assert not [it.name for it in settings if it.origin != "default" or it.changed or it.source]
    assert not [it.name for it in settings if len(it.description) < 10], "put a text below it in worker/settings.py"
    assert {it.variable for it in settings} == {variable(name) for name in known_settings()}


def test_the_source_is_the_one_that_counts(toml: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = toml('[kafka]\ngroup_id = "file"\nclient_id = "file"\ninput_topic = "file"\n[http]\nport = 1\n')
    monkeypatch.setenv("WORKER_KAFKA__GROUP_ID", "environment")
    monkeypatch.setenv("worker_kafka__client_id", "environment")
    settings = {it.name: it for it in in_force(path, {"kafka": {"group_id": "flag"}}, {"kafka.group_id": "--set"})}

    def what(name: str) -> tuple[Any, str, str | None]:
        it = settings[name]
        return it.value, it.origin, it.source

    assert what("kafka.group_id") == ("flag", "flag", "--set")
    assert what("kafka.client_id") == ("environment", "environment", "worker_kafka__client_id")
    assert what("kafka.input_topic") == ("file", "file", str(path))
    assert what("http.port") == (1, "file", str(path))
    assert what("http.host") == ("127.0.0.1", "default", None)


def test_a_section_in_one_variable_is_a_source_of_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_KAFKA", json.dumps({"group_id": "whole", "client_id": "whole"}))
    monkeypatch.setenv("WORKER_KAFKA__CLIENT_ID", "one")
    settings = found()

    assert (settings["kafka.group_id"].value, settings["kafka.group_id"].source) == ("whole", "WORKER_KAFKA")
    assert (settings["kafka.client_id"].value, settings["kafka.client_id"].source) == ("one", "WORKER_KAFKA__CLIENT_ID")
    assert settings["kafka.input_topic"].origin == "default"


def test_values_are_those_that_the_worker_runs_with(
    toml: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toml('model = "models/imdb"\n[batch]\ntarget_seconds = 2\n')
    monkeypatch.setenv("WORKER_KAFKA__INSECURE", "yes")
    settings, loaded = found(path), load_settings(path)

    for name, it in settings.items():
        value: Any = loaded
        for part in name.split("."):
            value = getattr(value, part)
        if name not in ("kafka.transactional_id", "kafka.group_instance_id"):
            assert it.value == (str(value) if isinstance(value, Path) else value)
    assert settings["kafka.insecure"].value is True
    assert [it.name for it in settings.values() if it.changed] == ["model", "kafka.insecure", "batch.target_seconds"]


def test_a_name_that_is_made_of_others_is_shown_as_it_is_used() -> None:
    flags = {"kafka": {"group_id": "mine"}, "http": {"port": 9000}}
    settings, loaded = found(None, flags), load_settings(None, flags)

    for name in ("transactional_id", "group_instance_id"):
        it = settings[f"kafka.{name}"]
        assert it.value == getattr(loaded, name)
        assert it.value.startswith("mine-")
        assert (it.origin, it.default, it.changed) == ("default", None, False)
    given = found(None, {"kafka": {"transactional_id": "given"}})["kafka.transactional_id"]
    assert (given.value, given.origin, given.changed) == ("given", "flag", True)


def test_a_setting_that_is_set_to_its_default_has_a_source_but_is_not_changed() -> None:
    it = found(None, {"http": {"port": 9108}})["http.port"]

    assert (it.origin, it.changed) == ("flag", False)


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("engine", "one of auto, tensorflow, jax, openvino"),
        ("kafka.sasl_mechanism", "one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
        ("http.port", "at least 0, at most 65,535"),
        ("batch.target_seconds", "above 0, at most 30"),
        ("kafka.client_id", ""),
    ],
)
def test_what_is_accepted_is_told(name: str, accepted: str) -> None:
    assert found()[name].accepted == accepted


def test_an_unknown_variable_is_an_error_that_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_KAFKA__GROUPID", "x")

    with pytest.raises(SettingsError, match="WORKER_KAFKA__GROUPID: no such setting; did you mean WORKER_KAFKA__GROUP"):
        in_force()


# --- secrets ---


def everything_shown(settings: list[Setting]) -> str:
    return "\n".join((shown(settings, 200), template(settings), json.dumps(document(settings)), repr(settings)))


@pytest.mark.parametrize("source", ["flag", "environment", "section", "file"])
def test_a_secret_is_masked_wherever_it_came_from(
    source: str, toml: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"sasl_plain_password": PASSWORD, "ssl_password": PASSWORD}
    flags: dict[str, Any] = {"kafka": dict(SASL["kafka"])}
    path = None
    if source == "flag":
        flags["kafka"] |= secrets
    elif source == "environment":
        for name, value in secrets.items():
            monkeypatch.setenv(variable(f"kafka.{name}"), value)
    elif source == "section":
        monkeypatch.setenv("WORKER_KAFKA", json.dumps(secrets))
    else:
        path = toml("[kafka]\n" + "".join(f'{name} = "{value}"\n' for name, value in secrets.items()))
    settings = in_force(path, flags)

    assert PASSWORD not in everything_shown(settings)
    for name in secrets:
        (it,) = [it for it in settings if it.name == f"kafka.{name}"]
        assert (it.value, it.changed, it.secret) == (MASK, True, True)


def test_a_secret_in_a_file_of_its_own_is_masked_and_the_file_is_named(tmp_path: Path) -> None:
    """It wins over the setting, and is not even read."""
    held_by = tmp_path / "password"
    flags = {"kafka": SASL["kafka"] | {"sasl_plain_password": PASSWORD, "sasl_plain_password_file": str(held_by)}}
    settings = in_force(None, flags)
    (it,) = [it for it in settings if it.name == "kafka.sasl_plain_password"]

    assert (it.value, it.origin, it.source) == (MASK, "secret file", str(held_by))
    assert PASSWORD not in everything_shown(settings)


def test_a_secret_that_is_not_set_is_none() -> None:
    assert found()["kafka.sasl_plain_password"].value is None


# --- for people and programs ---


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_the_terminal(width: int) -> None:
    flags = {"kafka": {"bootstrap_servers": ",".join(f"broker-{number}.example.org:9092" for number in range(9))}}
    lines = shown(in_force(None, flags), width).splitlines()

    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    assert "broker-0.example.org:9092" in text
    assert "How the password is proved." in text


def test_a_row_has_the_name_the_value_and_the_source_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_HTTP__PORT", "9000")
    lines = [" ".join(line.split()) for line in shown(in_force()).splitlines()]

    assert "port 9000 (WORKER_HTTP__PORT)" in lines
    assert "host 127.0.0.1 (default)" in lines
    assert "ssl_cafile none (default)" in lines
    assert "ssl_check_hostname true (default)" in lines
    assert lines.index("[http]") < lines.index("port 9000 (WORKER_HTTP__PORT)") < lines.index("[watchdog]")


def test_a_value_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in shown(in_force(None, {"kafka": {"client_id": "\x1b[2J"}}))


def test_a_program_gets_values_with_their_types() -> None:
    made = json.loads(json.dumps(document(in_force(None, {"http": {"port": 9000}}, {"http.port": "--port"}))))

    assert made["http.port"] == {
        "value": 9000,
        "origin": "flag",
        "source": "--port",
        "default": 9108,
        "variable": "WORKER_HTTP__PORT",
        "accepted": "at least 0, at most 65,535",
        "description": "TCP port; 0 takes a free one.",
    }
    assert made["kafka.ssl_check_hostname"]["value"] is True
    assert made["model"]["value"] is None


# --- a file to begin with ---


def test_the_template_is_a_file_that_changes_nothing(toml: Callable[[str], Path]) -> None:
    assert load_settings(toml(template(in_force()))) == load_settings()


def test_every_default_of_the_template_holds_when_its_comment_sign_is_removed(toml: Callable[[str], Path]) -> None:
    lines = template(in_force()).splitlines()
    assignments = [line.removeprefix("# ") if " = " in line and not line.endswith('= ""') else line for line in lines]
    path = toml("\n".join(line for line in assignments if not line.startswith("#")))
    written = tomllib.loads(path.read_text())

    assert sum(len(it) if isinstance(it, dict) else 1 for it in written.values()) > 30
    assert load_settings(path) == load_settings()


def test_every_setting_and_section_is_explained_in_the_template() -> None:
    lines = template(in_force()).splitlines()

    assert max(map(len, lines)) <= 100
    for name in known_settings():
        section, _, field = name.rpartition(".")
        (place,) = [
            number
            for number, line in enumerate(lines)
            if line.startswith(f"# {field} = ") and heading(lines[:number]) == section
        ]
        assert f"({variable(name)})" in " ".join(lines[place - 3 : place])


def heading(lines: list[str]) -> str:
    """The section that the last line is in."""
    return next((line.strip("[]") for line in reversed(lines) if line.startswith("[")), "")


AWKWARD = ['quote " and \\', "größer, 日本 😀", "tab\tand\nline", "\x7f", "# no comment", "[kafka]"]


@pytest.mark.parametrize("value", AWKWARD)
def test_what_is_not_a_default_is_in_the_template_as_it_is(value: str, toml: Callable[[str], Path]) -> None:
    flags = {"kafka": {"client_id": value}, "model": value, "batch": {"target_seconds": 2.5}, "log_level": "debug"}
    path = toml(template(in_force(None, flags)))

    assert load_settings(path) == load_settings(None, flags)


def test_a_number_without_end_is_written_as_toml_has_it(toml: Callable[[str], Path]) -> None:
    flags = {"reload": {"seconds": float("inf")}}

    assert load_settings(toml(template(in_force(None, flags)))) == load_settings(None, flags)


def test_a_secret_is_never_in_the_template(toml: Callable[[str], Path]) -> None:
    flags = {"kafka": SASL["kafka"] | {"sasl_plain_password": PASSWORD}}
    text = template(in_force(None, flags))

    assert PASSWORD not in text
    assert MASK not in text
    assert "sasl_plain_password" not in tomllib.loads(text)["kafka"]
