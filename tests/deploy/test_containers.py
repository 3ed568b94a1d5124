"""The image and the Compose files, without Docker: what can be linted is, what is a process is run, and a broker of
Kafka's own version is asked whether it knows the settings that they give it."""

import base64
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer
import yaml
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from deploy.kustomize import render
from deploy.strict import compose_faults
from deploy.typos import with_typos
from running import ROOT, Broker, broker
from schemas import Rejection, Review
from worker.cli import app
from worker.health import HealthServer
from worker.intake import read_review
from worker.metrics import Metrics
from worker.reviews import read_messages
from worker.settings import KafkaSettings, Settings, known_settings, load_settings, variable
from worker.topics import DEAD_LETTER_ROOM, MAX_MESSAGE_BYTES, admin, describe, max_message_bytes

DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DEFAULTS = KafkaSettings()


def command_of(*words: str) -> Any:
    """The words after `review-worker`, read as it would read them; what it does not know is an error."""
    name, *rest = words
    group: Any = typer.main.get_command(app)
    return group.commands[name].make_context(name, list(rest))


# === The Dockerfile ===


@dataclass(frozen=True)
class Instruction:
    """One instruction of the Dockerfile.

    Attributes:
        stage: what it belongs to: the name behind AS, or nothing for the last one.
        word: such as RUN.
        argument: all that follows, on one line.
    """

    stage: str
    word: str
    argument: str


def instructions() -> list[Instruction]:
    text = DOCKERFILE.read_text(encoding="utf-8")
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    found, stage = [], "before the first"
    for line in filter(None, lines):
        word, _, argument = line.partition(" ")
        if word == "FROM":
            stage = argument.partition(" AS ")[2]
        found.append(Instruction(stage, word, argument.strip()))
    return found


def arguments(word: str, stage: str | None = None) -> list[str]:
    return [it.argument for it in instructions() if it.word == word and stage in (None, it.stage)]


def values(word: str) -> dict[str, str]:
    """NAME=VALUE pairs of the last stage, by LABEL, ENV or ARG."""
    pairs = [pair for argument in arguments(word, "") for pair in shlex.split(argument)]
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def build(stage: str, folder: Path, replaced: Mapping[str, str]) -> None:
    """Carry out what a stage copies from the repository and runs, in a folder of the test's own.

    Args:
        stage: by its name.
        folder: stands for the working directory.
        replaced: texts in the commands, each with the one that stands for it here.
    """
    for it in instructions():
        if it.stage != stage:
            continue
        if it.word == "COPY":
            *sources, target = it.argument.split()
            for source in sources:
                copied(ROOT / source, folder / (target if (ROOT / source).is_dir() else Path(target, source)))
        elif it.word == "RUN":
            script = re.sub(r"--mount=\S+ *", "", it.argument)
            for old, new in replaced.items():
                script = script.replace(old, new)
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            done = subprocess.run(
                ["/bin/sh", "-ec", script],
                cwd=folder,
                env=os.environ | {"PATH": path},
                capture_output=True,
                text=True,
                check=False,
                timeout=240,
            )
            assert done.returncode == 0, done.stdout + done.stderr


def copied(source: Path, target: Path) -> None:
    """As Docker does, without what .dockerignore keeps back."""
    files = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
    for file in files:
        if sent(str(file.relative_to(ROOT))):
            place = target / file.relative_to(source) if source.is_dir() else target
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)


def sent(path: str) -> bool:
    """Whether the build gets a file of the repository: of the lines of .dockerignore that match, the last one says."""
    names = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
    kept = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(pattern, name) for name in names):
            kept = line.startswith("!")
    return kept


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_wheel_of_the_image_holds_the_three_packages_and_nothing_else(tmp_path: Path) -> None:
    """By the Dockerfile's own instructions, from what Docker would be sent."""
    build("wheel", tmp_path, {"/wheels": str(tmp_path / "wheels")})
    (wheel,) = (tmp_path / "wheels").iterdir()
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        scripts = file.read(f"review_scorer-{PROJECT['version']}.dist-info/entry_points.txt").decode()
    packages = ("schemas", "trainer", "worker")
    assert {name.partition("/")[0] for name in names} == {*packages, f"review_scorer-{PROJECT['version']}.dist-info"}
    ours = {str(path.relative_to(ROOT)) for package in packages for path in (ROOT / package).rglob("*.py")}
    assert ours == {name for name in names if name.endswith(".py")}
    assert not [name for name in names if "test" in name or name.endswith(".pyc")]
    assert "worker/page/page.html" in names
    assert "review-worker = worker.cli:main" in scripts


@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_brings_its_libraries_and_no_test_tools(extra: str, tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    (script,) = [it for it in arguments("RUN", "libraries") if "libraries.txt" in it and "mount" not in it]
    words = shlex.split(script.replace("${EXTRA}", extra))
    done = subprocess.run(
        [sys.executable, *words[1 : words.index(">")]], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [*PROJECT["dependencies"], *EXTRAS[extra], *EXTRAS["tracing"]]


def test_requirements_can_be_constraints() -> None:
    """pip takes no extras in constraints."""
    names = [line for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    assert names
    assert not [line for line in names if "[" in line.partition(";")[0]]
    (install,) = [it for it in arguments("RUN", "libraries") if "--constraint" in it]
    assert "--constraint requirements.txt --requirement libraries.txt" in install


def test_the_build_gets_what_it_copies_and_nothing_else() -> None:
    wanted = {name for it in arguments("COPY") if not it.startswith("--from") for name in it.split()[:-1]}
    assert {path.name for path in ROOT.iterdir() if sent(path.name)} == wanted
    assert sent("worker/engine/keras_engine.py")
    kept_back = (
        *(".git/config", ".venv/bin/python", ".env", "models/imdb/1/model.safetensors", "data/train.csv"),
        *("worker/__pycache__/loop.cpython-311.pyc", "worker/old.pyc", "deploy/compose.yaml", "tests/conftest.py"),
    )
    assert not [path for path in kept_back if sent(path)]


def test_the_image_runs_the_worker_as_nobody_in_particular() -> None:
    (entry,), (command,), (user,) = (arguments(word, "") for word in ("ENTRYPOINT", "CMD", "USER"))
    (script,) = json.loads(entry)
    assert script in PROJECT["scripts"]
    command_of(*json.loads(command))
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    (created,) = [it for it in arguments("RUN", "") if "useradd" in it]
    assert all(f"--{kind} {number} " in created for kind, number in zip(("uid", "gid"), user.split(":"), strict=True))
    (deployment,) = [it for it in render(DEPLOY / "kubernetes" / "base") if it["kind"] == "Deployment"]
    security = deployment["spec"]["template"]["spec"]["securityContext"]
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == user
    assert arguments("EXPOSE", "") == [str(Settings().http.port)]


def test_with_a_read_only_root_the_caches_are_in_tmp() -> None:
    caches = {name: value for name, value in values("ENV").items() if name.endswith("HOME") or "CACHE" in name}
    assert caches.keys() == {"HOME", "XDG_CACHE_HOME", "KERAS_HOME", "CUDA_CACHE_PATH", "HF_HOME"}
    assert all(Path(value).is_relative_to("/tmp") for value in caches.values())  # noqa: S108 - the container's own
    assert {name: values("ENV")[name] for name in ("PYTHONDONTWRITEBYTECODE", "HF_HUB_OFFLINE")} == {
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
    }


def test_labels_and_arguments_are_those_of_the_project() -> None:
    assert values("ARG")["VERSION"] == PROJECT["version"]
    assert values("ARG")["EXTRA"] in EXTRAS
    assert arguments("ARG", "libraries") == [f"EXTRA={values('ARG')['EXTRA']}"]
    labels = {name.rpartition(".")[2]: value for name, value in values("LABEL").items()}
    assert (labels["title"], labels["licenses"]) == (PROJECT["name"], PROJECT["license"])
    (python,) = [it for it in arguments("ARG") if it.startswith("PYTHON_VERSION=")]
    major, minor = map(int, python.partition("=")[2].split("."))
    assert (3, 11) <= (major, minor) < (3, 14)
    assert len({it.partition(" AS ")[0] for it in arguments("FROM")}) == 1


def healthcheck(port: int) -> int:
    """The exit code of the image's own command. A proxy of the environment is not asked."""
    (argument,) = arguments("HEALTHCHECK", "")
    _, *command = json.loads(argument.partition("CMD ")[2])
    proxy = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy"), "http://127.0.0.1:1")
    environment = os.environ | proxy | {"WORKER_HTTP__PORT": str(port)}
    return subprocess.run(
        [sys.executable, *command], env=environment, stderr=subprocess.DEVNULL, check=False, timeout=30
    ).returncode


def test_the_health_check_asks_the_worker() -> None:
    well = True
    with HealthServer("127.0.0.1", 0, Metrics(), lambda: (well, ""), lambda: (False, "")) as server:
        port = int(server.url.rpartition(":")[2])
        assert healthcheck(port) == 0
        well = False
        assert healthcheck(port) == 1
    assert healthcheck(port) == 1


def test_the_health_check_waits_as_long_as_a_model_may_take() -> None:
    (argument,) = arguments("HEALTHCHECK", "")
    minutes = re.search(r"--start-period=(\d+)m ", argument)
    assert minutes
    assert int(minutes[1]) * 60 >= Settings().watchdog.load_seconds


# === The Compose files ===

COMPOSE, GPU = "compose.yaml", "compose.gpu.yaml"
BROKER_SETTINGS = {
    *("NODE_ID", "PROCESS_ROLES", "CONTROLLER_LISTENER_NAMES", "CONTROLLER_QUORUM_VOTERS", "LISTENERS"),
    *("ADVERTISED_LISTENERS", "LISTENER_SECURITY_PROTOCOL_MAP", "INTER_BROKER_LISTENER_NAME", "LOG_DIRS"),
    *("AUTO_CREATE_TOPICS_ENABLE", "OFFSETS_TOPIC_REPLICATION_FACTOR", "GROUP_INITIAL_REBALANCE_DELAY_MS"),
    *("TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "TRANSACTION_STATE_LOG_MIN_ISR"),
    *("SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR", "SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR"),
}
GRAFANA_SETTINGS = {
    *("GF_AUTH_ANONYMOUS_ENABLED", "GF_AUTH_ANONYMOUS_ORG_ROLE"),
    *("GF_ANALYTICS_REPORTING_ENABLED", "GF_ANALYTICS_CHECK_FOR_UPDATES"),
}
"""[auth.anonymous] enabled and org_role, [analytics] reporting_enabled and check_for_updates of grafana.ini."""

Files = dict[str, dict[str, Any]]


def files(texts: Mapping[str, str] | None = None) -> Files:
    """The two files as they are read, or texts in the place of some."""
    return {
        name: yaml.load((texts or {}).get(name) or (DEPLOY / name).read_text(encoding="utf-8"), yaml.CSafeLoader)
        for name in (COMPOSE, GPU)
    }


def merged(old: Any, new: Any) -> Any:
    """As Compose lays one file over the other, as far as it matters here."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {name: merged(old.get(name), new.get(name)) for name in old | new}
    return old if new is None else new


def both(read: Files) -> dict[str, Any]:
    result: dict[str, Any] = merged(read[COMPOSE], read[GPU])
    return result


def services_of(read: Files) -> dict[str, Any]:
    services: dict[str, Any] = read[COMPOSE]["services"]
    return services


def settings_of(service: dict[str, Any]) -> Settings:
    """What the worker makes of a service's variables."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WORKER_")]:
            patch.delenv(name)
        for name, value in service["environment"].items():
            patch.setenv(name, value)
        return load_settings()


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


def check_schema(read: Files) -> None:
    assert {name: compose_faults(document) for name, document in read.items()} == {COMPOSE: [], GPU: []}


def check_services(read: Files) -> None:
    document = read[COMPOSE]
    services = document["services"]
    assert services.keys() == {"kafka", "topics", "worker", "publisher", "prometheus", "grafana"}
    assert read[GPU].keys() == {"services"}
    assert read[GPU]["services"].keys() == {"worker"}
    needed = {name: it["depends_on"] for name, it in services.items() if "depends_on" in it}
    assert needed == {
        "topics": {"kafka": {"condition": "service_healthy"}},
        "worker": {"topics": {"condition": "service_completed_successfully"}},
        "publisher": {"topics": {"condition": "service_completed_successfully"}},
        "grafana": ["prometheus"],
    }
    assert {name for name, it in services.items() if "profiles" in it} == {"publisher"}
    kept = {name for it in services.values() for name in named_volumes(it)}
    assert kept == document["volumes"].keys() == {"kafka-data", "prometheus-data", "grafana-data"}
    configs = {entry["source"] for it in services.values() for entry in it.get("configs", ())}
    assert configs == document["configs"].keys()


def named_volumes(service: dict[str, Any]) -> list[str]:
    entries = [it.partition(":")[0] for it in service.get("volumes", ()) if isinstance(it, str)]
    return [it for it in entries if not it.startswith(".")]


def check_confinement(read: Files) -> None:
    services = services_of(read)
    for name in ("worker", "publisher"):
        it = services[name]
        assert (it["read_only"], it["tmpfs"], it["pids_limit"]) == (True, ["/tmp"], 512)  # noqa: S108
    for name in ("worker", "publisher", "prometheus", "grafana"):
        assert (services[name]["cap_drop"], services[name]["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    assert all("mem_limit" in it for name, it in services.items() if name != "topics")
    ports = [port for it in services.values() for port in it.get("ports", ())]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports), "there are no passwords"
    mounted = [it for service in services.values() for it in service.get("volumes", ()) if isinstance(it, str)]
    ours = [it for it in mounted if it.startswith(".")]
    assert len(ours) == 3
    assert all(it.endswith(":ro") and (DEPLOY / it.partition(":")[0]).is_dir() for it in ours)


def check_worker(read: Files) -> None:
    service = services_of(read)["worker"]
    settings = settings_of(service)
    assert set(service["environment"]) <= {variable(name) for name in known_settings()}
    assert settings.group_instance_id is None
    assert str(settings.http.host) == "0.0.0.0"  # noqa: S104 - the container's own
    context = command_of(*service["command"])
    (model,) = service["volumes"]
    assert str(context.params["model"]) == model["target"]
    assert (model["type"], model["read_only"], model["bind"]) == ("bind", True, {"create_host_path": False})
    assert seconds(service["stop_grace_period"]) > settings.kafka.transaction_timeout_seconds
    assert service["restart"] == "unless-stopped"
    assert settings.kafka.bootstrap_servers == inside(read)


def inside(read: Files) -> str:
    """Where the broker is for the other services."""
    advertised = services_of(read)["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    found = re.search(r"INSIDE://([^,]+)", advertised)
    assert found
    return found[1]


def check_images(read: Files) -> None:
    services = services_of(read)
    for it in (services["worker"], services["publisher"], both(read)["services"]["worker"]):
        made = it["build"]
        context = (DEPLOY / made["context"]).resolve()
        assert (context, context / made["dockerfile"]) == (ROOT, DOCKERFILE)
        (extra,) = made["args"].values()
        assert made["args"] == {"EXTRA": extra}
        assert extra in EXTRAS
        assert it["image"] == f"review-worker:{ {'openvino': 'cpu'}.get(extra, extra) }"
    others = [services[name]["image"] for name in ("kafka", "topics", "prometheus", "grafana")]
    assert all(re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", it) for it in others)
    pom = ElementTree.parse(DEPLOY / "kafka" / "pom.xml")  # noqa: S314 - our own
    (version,) = {it.text for it in pom.iter() if it.tag.endswith("version") and (it.text or "").startswith("4.")}
    assert services["kafka"]["image"] == services["topics"]["image"] == f"apache/kafka:{version}"


def check_gpu(read: Files) -> None:
    service = both(read)["services"]["worker"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert service["build"]["args"] == {"EXTRA": "jax"}
    assert settings_of(service).engine == "jax"
    assert service["mem_limit"] == "8g"


def check_broker(read: Files) -> None:
    service = services_of(read)["kafka"]
    variables = service["environment"]
    given = {name.removeprefix("KAFKA_") for name in variables}
    assert given == BROKER_SETTINGS | {"CLUSTER_ID", "HEAP_OPTS"}
    # 16 bytes: Kafka would show another one than it was given.
    identity = variables["CLUSTER_ID"]
    assert base64.urlsafe_b64encode(base64.urlsafe_b64decode(f"{identity}==")).decode() == f"{identity}=="
    assert variables["KAFKA_LOG_DIRS"] == service["volumes"][0].partition(":")[2]
    assert service["ports"] == [f"{DEFAULTS.bootstrap_servers}:9092"], "the defaults reach it from this machine"
    assert f"OUTSIDE://{DEFAULTS.bootstrap_servers}" in variables["KAFKA_ADVERTISED_LISTENERS"]
    health = service["healthcheck"]
    assert health["test"][-1] == inside(read)
    assert health.keys() == {"test", "interval", "timeout", "start_period", "retries"}
    assert seconds(health["interval"]) >= 10, "each starts a Java runtime"


def check_samples(read: Files) -> None:
    service = services_of(read)["publisher"]
    context = command_of(*service["command"])
    (mounted,) = service["configs"]
    assert context.params["file"] == mounted["target"]
    assert context.params["unchecked"], "one of them is to become a dead letter"
    assert settings_of(service).kafka.bootstrap_servers == inside(read)
    lines = read[COMPOSE]["configs"][mounted["source"]]["content"].splitlines()
    assert len(lines) / context.params["rate"] > 10, "Docker waits ever longer for what ends within 10 s"


def check_monitoring(read: Files) -> None:
    services, configs = services_of(read), read[COMPOSE]["configs"]
    assert set(services["grafana"]["environment"]) == GRAFANA_SETTINGS
    (mounted,) = services["prometheus"]["configs"]
    assert mounted["target"] == "/etc/prometheus/prometheus.yml"
    ours = yaml.safe_load(configs[mounted["source"]]["content"])
    theirs = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    (job,), (other,) = ours["scrape_configs"], theirs["scrape_configs"]
    assert job.pop("dns_sd_configs") == [
        {"names": ["worker"], "type": "A", "port": Settings().http.port, "refresh_interval": "15s"}
    ]
    del other["static_configs"]
    assert ours == theirs
    targets = [it.split(":")[1] for it in services["grafana"]["volumes"]]
    for file in (DEPLOY / "grafana" / "provisioning" / "dashboards").iterdir():
        for provider in yaml.safe_load(file.read_text(encoding="utf-8"))["providers"]:
            assert provider["options"]["path"] in targets
    for file in (DEPLOY / "grafana" / "provisioning" / "datasources").iterdir():
        for source in yaml.safe_load(file.read_text(encoding="utf-8"))["datasources"]:
            assert source["url"] == "http://prometheus:9090"
    assert targets[0] == "/etc/grafana/provisioning"


CHECKS = (
    check_schema,
    check_services,
    check_confinement,
    check_worker,
    check_images,
    check_gpu,
    check_broker,
    check_samples,
    check_monitoring,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda it: it.__name__.removeprefix("check_"))
def test_the_compose_files_hold_together(check: Callable[[Files], None]) -> None:
    check(files())


def refused(read: Callable[[], Files]) -> bool:
    try:
        found = read()
        for check in CHECKS:
            check(found)
    except Exception:
        # Some mistakes are found by a name that is not there, whatever looks for it.
        return True
    return False


@pytest.mark.parametrize("name", [COMPOSE, GPU])
def test_no_key_can_be_misspelt_unnoticed(name: str) -> None:
    # Anchors carry the two that begin so; their own names are nobody's.
    tried = [it for it in with_typos((DEPLOY / name).read_text(encoding="utf-8")) if not it[0].startswith("x-")]
    assert tried
    assert not [line for line, text in tried if not refused(lambda text=text: files({name: text}))]


def test_of_the_samples_all_but_one_are_reviews(tmp_path: Path) -> None:
    file = tmp_path / "reviews.jsonl"
    file.write_text(files()[COMPOSE]["configs"]["reviews"]["content"], encoding="utf-8")
    read = [read_review(message, Settings().batch.max_message_bytes) for message in read_messages(str(file))]
    assert sum(isinstance(it, Review) for it in read) == len(read) - 1
    assert sum(isinstance(it, Rejection) for it in read) == 1


# === On a broker ===


def properties() -> dict[str, str]:
    """What the image makes of the broker's variables: server.properties."""
    variables = services_of(files())["kafka"]["environment"]
    return {
        name.removeprefix("KAFKA_").replace("_", ".").lower(): value
        for name, value in variables.items()
        if name.startswith("KAFKA_") and name != "KAFKA_HEAP_OPTS"
    }


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker with the cluster id and the settings of the Compose file, on loopback and other ports, in its own
    folder."""
    given = {name: value for name, value in properties().items() if name != "log.dirs"}
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in ("19092", "9092", "9093")]
        ports = dict(zip(("19092", "9092", "9093"), (str(it.getsockname()[1]) for it in taken), strict=True))
    for name, value in given.items():
        if name.endswith(("listeners", "voters")):
            on_loopback = re.sub(r"(?<=[/@])[a-z0-9.]*:", "127.0.0.1:", value)
            given[name] = re.sub(r"(?<=:)\d+", lambda port: ports[port[0]], on_loopback)
    identity = services_of(files())["kafka"]["environment"]["CLUSTER_ID"]
    options = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    data = tmp_path_factory.mktemp("composed")
    with broker(data, f"--cluster-id={identity}", f"--port={ports['9092']}", *options) as running:
        assert running.address == f"127.0.0.1:{ports['9092']}"
        yield running


@pytest.mark.kafka
def test_the_broker_knows_every_setting_that_it_is_given(composed: Broker) -> None:
    with closing(KafkaAdminClient(bootstrap_servers=composed.address)) as client:
        resource = ConfigResource(ConfigResourceType.BROKER, "1")
        described = client.describe_configs([resource], config_filter="all")
        assert client.describe_cluster()["cluster_id"] == services_of(files())["kafka"]["environment"]["CLUSTER_ID"]
    (known,) = described["broker"].values()
    # A name that it does not know is described too, without a value: it might be a secret of some plug-in.
    assert not [name for name in properties() if known[name]["value"] is None]


STAND_IN = f"""#!{sys.executable}
# kafka-topics.sh, as far as it is used: it needs a library that the broker does not.
import argparse
from kafka import KafkaAdminClient

wanted = argparse.ArgumentParser(allow_abbrev=False)
for flag in ("--create", "--if-not-exists"):
    wanted.add_argument(flag, action="store_true", required=True)
wanted.add_argument("--bootstrap-server", required=True)
wanted.add_argument("--partitions", type=int, required=True)
wanted.add_argument("--topic", required=True)
wanted.add_argument("--config", action="append", default=[])
given = wanted.parse_args()
client = KafkaAdminClient(bootstrap_servers=given.bootstrap_server)
topic = {{"num_partitions": given.partitions, "configs": dict(pair.split("=") for pair in given.config)}}
client.create_topics({{given.topic: topic}}, wait_for_metadata=True)
client.close()
"""


@pytest.fixture(scope="module")
def with_topics(composed: Broker, tmp_path_factory: pytest.TempPathFactory) -> KafkaSettings:
    """The broker after the service `topics` has run, by the shell that it names."""
    tool = tmp_path_factory.mktemp("bin") / "kafka-topics.sh"
    tool.write_text(STAND_IN, encoding="utf-8")
    tool.chmod(0o755)
    service = services_of(files())["topics"]
    (script,) = service["command"]
    for old, new in (("/opt/kafka/bin/kafka-topics.sh", str(tool)), (inside(files()), composed.address), ("$$", "$")):
        assert old in script
        script = script.replace(old, new)
    done = subprocess.run([*service["entrypoint"], script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return KafkaSettings(bootstrap_servers=composed.address)


@pytest.mark.kafka
def test_the_topics_are_those_that_the_worker_looks_for(with_topics: KafkaSettings) -> None:
    names = [DEFAULTS.input_topic, DEFAULTS.output_topic, DEFAULTS.dead_letter_topic]
    with admin(with_topics) as client:
        assert [topic.partitions for topic in describe(client, names)] == [6, 6, 6]
        room = [max_message_bytes(client, name) for name in names]
    assert room == [MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES, DEAD_LETTER_ROOM * MAX_MESSAGE_BYTES]


@pytest.mark.kafka
def test_the_publisher_puts_the_samples_on_the_input(with_topics: KafkaSettings, tmp_path: Path) -> None:
    service, file = services_of(files())["publisher"], tmp_path / "reviews.jsonl"
    file.write_text(files()[COMPOSE]["configs"]["reviews"]["content"], encoding="utf-8")
    words = [str(file) if word == service["configs"][0]["target"] else word for word in service["command"]]
    words[words.index("--rate") + 1] = "1000"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
    own = service["environment"] | {"WORKER_KAFKA__BOOTSTRAP_SERVERS": with_topics.bootstrap_servers}
    done = subprocess.run(
        [sys.executable, "-m", "worker", *words, "--json"],
        cwd=ROOT,
        env=environment | own,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sent"] == len(file.read_text(encoding="utf-8").splitlines())


@pytest.mark.kafka
def test_a_broker_takes_what_the_manifests_say_of_topics(composed: Broker) -> None:
    """Names and values of KafkaTopic's `config`, which no schema knows."""
    topics = [it for it in render(DEPLOY / "kubernetes" / "gpu") if it["kind"] == "KafkaTopic"]
    wanted = {
        f"manifest-{it['metadata']['name']}": {
            "num_partitions": it["spec"]["partitions"],
            "configs": {name: str(value) for name, value in it["spec"]["config"].items()},
        }
        for it in topics
    }
    assert len(wanted) == 3
    with closing(KafkaAdminClient(bootstrap_servers=composed.address)) as client:
        client.create_topics(wanted, wait_for_metadata=True)
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in wanted]
        described = client.describe_configs(resources, config_filter="all")["topic"]
    for name, topic in wanted.items():
        assert {key: described[name][key]["value"] for key in topic["configs"]} == topic["configs"]
