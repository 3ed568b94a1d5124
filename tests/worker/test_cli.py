"""The program as a user's shell meets it: completion, versions, and the settings in force. No broker is needed."""

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import pytest

from running import ROOT
from schemas import Reason
from worker.versions import versions

PROGRAM = Path(sys.executable).with_name("review-worker")


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The test's own without the settings in it, and with the program on the path."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
    return clean | {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "COLUMNS": "80"} | dict(variables)


def command(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(variables),
        cwd=ROOT,
        timeout=60,
    )


# === Completion ===

CHOOSE_SHELL = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
"""The shell is an argument then; otherwise it is the one that the program was started from."""

COMPLETE_BASH = """
source "$2" || exit 1
read -ra COMP_WORDS <<< "$1"
[[ $1 == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
complete -p review-worker
_review_worker_completion review-worker
printf '%s\\n' "${COMPREPLY[@]}"
"""


Complete = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory) -> Complete:
    """What bash is given for a line when Tab is pressed at its end."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    script = tmp_path_factory.mktemp("completion") / "review-worker.sh"
    script.write_text(command("--show-completion", "bash", **CHOOSE_SHELL).stdout)

    def complete(line: str) -> list[str]:
        done = subprocess.run(
            [bash, "--norc", "-c", COMPLETE_BASH, "bash", line, str(script)],
            capture_output=True,
            text=True,
            check=False,
            env=environment({}),
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        how, *words = done.stdout.splitlines()
        # Where the program gives nothing, the shell completes files.
        assert how == "complete -o default -F _review_worker_completion review-worker"
        return [word for word in words if word]

    return complete


def test_commands_are_completed(completed: Complete) -> None:
    assert completed("review-worker co") == ["config", "contract"]


def test_engines_and_precisions_are_completed(completed: Complete) -> None:
    assert completed("review-worker run --engine ") == ["auto", "tensorflow", "jax", "openvino"]
    assert completed("review-worker check --precision bf") == ["bfloat16"]
    assert completed("review-worker score --precision i") == ["int8"]


def test_settings_and_reasons_are_completed(completed: Complete) -> None:
    assert completed("review-worker tail --set kafka.gr") == ["kafka.group_id=", "kafka.group_instance_id="]
    assert completed("review-worker replay --reason not_") == [it.value for it in Reason if it.value[:4] == "not_"]


@pytest.mark.parametrize("line", ["score reviews.csv pre", "run --model mod", "tail --config wor"])
def test_files_are_left_to_the_shell(completed: Complete, line: str) -> None:
    assert completed(f"review-worker {line}") == []


@pytest.mark.parametrize(
    ("shell", "asked", "expected"),
    [
        ("zsh", {"_TYPER_COMPLETE_ARGS": "review-worker run --engine o"}, "_arguments '*: :((\"openvino\"))'\n"),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "review-worker publish rev"}, "_files\n"),
        (
            "fish",
            {"_TYPER_COMPLETE_ARGS": "review-worker run --engine o", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
            "openvino\n",
        ),
    ],
)
def test_other_shells_are_answered_in_their_own_way(shell: str, asked: dict[str, str], expected: str) -> None:
    done = command(**asked, _REVIEW_WORKER_COMPLETE=f"complete_{shell}")

    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


@pytest.mark.parametrize(
    ("shell", "written"),
    [
        ("bash", ".bash_completions/review-worker.sh"),
        ("zsh", ".zfunc/_review-worker"),
        ("fish", ".config/fish/completions/review-worker.fish"),
    ],
)
def test_completion_can_be_installed(shell: str, written: str, tmp_path: Path) -> None:
    done = command("--install-completion", shell, **CHOOSE_SHELL, HOME=str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert f"{shell} completion installed" in done.stdout
    assert "review-worker" in (tmp_path / written).read_text()


# === Versions ===


def test_version_names_the_program_python_and_the_libraries() -> None:
    done = command("--version")

    assert (done.returncode, done.stderr) == (0, "")
    found = dict(line.split() for line in done.stdout.splitlines())
    assert found == versions()
    assert list(found)[:2] == ["python", "review-scorer"]
    for name in ("tensorflow", "keras", "tokenizers", "kafka-python", "pydantic"):
        assert found[name] == version(name)


def test_a_library_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.versions.DISTRIBUTIONS", ("keras", "no-such-library"))

    assert list(versions()) == ["python", "keras"]


def test_version_and_config_load_nothing_heavy() -> None:
    """They come at once."""
    code = (
        "import sys, worker.cli as cli\nsys.argv = ['review-worker', *sys.argv[1:]]\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'tensorflow', 'keras', 'openvino', 'jax', 'transformers', 'kafka', 'opentelemetry'}\n"
        "print('heavy:', sorted(heavy & sys.modules.keys()))\n"
    )
    for arguments in (["--version"], ["config", "--json"]):
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=environment({}),
            cwd=ROOT,
            timeout=60,
        )
        assert done.stdout.splitlines()[-1] == "heavy: []", arguments
        assert time.monotonic() - began < 20


# === config ===


def test_config_shows_what_is_in_force_and_where_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "worker.toml"
    file.write_text('[kafka]\ngroup_id = "mine"\n')
    done = command(
        "config", "--config", file, "--model", "models/imdb", "--set", "batch.max_reviews=7", WORKER_HTTP__PORT="9000"
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    text = " ".join(done.stdout.split())
    for expected in (
        "model models/imdb (--model)",
        "max_reviews 7 (--set)",
        "port 9000 (WORKER_HTTP__PORT)",
        f"group_id mine ({file})",
        "input_topic reviews (default)",
    ):
        # A long path is folded at the end of its line.
        assert expected.replace(" ", "") in text.replace(" ", "")


def test_config_can_leave_the_defaults_out() -> None:
    done = command("config", "--changed", "--port", "9108", "--engine", "jax", "--json")

    assert json.loads(done.stdout).keys() == {"engine"}
    assert json.loads(done.stdout)["engine"]["source"] == "--engine"


def test_config_makes_a_file_for_itself(tmp_path: Path) -> None:
    file = tmp_path / "worker.toml"
    file.write_text(command("config", "--toml", WORKER_KAFKA__GROUP_ID="mine").stdout)

    assert tomllib.loads(file.read_text())["kafka"] == {"group_id": "mine"}
    done = command("config", "--config", file, "--json", "--changed")
    assert [(it["value"], it["source"]) for it in json.loads(done.stdout).values()] == [("mine", str(file))]


def test_config_shows_no_secret() -> None:
    secret = {
        "WORKER_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "WORKER_KAFKA__SASL_MECHANISM": "PLAIN",
        "WORKER_KAFKA__SASL_PLAIN_USERNAME": "me",
        "WORKER_KAFKA__SASL_PLAIN_PASSWORD": "hunter2",
    }
    done = command("config", **secret)

    assert done.returncode == 0
    assert "sasl_plain_password ******** (WORKER_KAFKA__SASL_PLAIN_PASSWORD)" in " ".join(done.stdout.split())
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        ((), {"WORKER_MODLE": "x"}, "environment variable WORKER_MODLE: no such setting; did you mean WORKER_MODEL?"),
        (("--toml", "--json"), {}, "--toml and --json: choose one of them"),
        (("--config", "nowhere.toml"), {}, "--config nowhere.toml: no such file"),
        (("--port", "70000"), {}, "setting http.port: Input should be less than or equal to 65535"),
    ],
)
def test_config_names_what_is_wrong(arguments: tuple[str, ...], variables: dict[str, str], expected: str) -> None:
    done = command("config", *arguments, **variables)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"error: {expected}\n"
