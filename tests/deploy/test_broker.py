"""The broker script as its users run it: a process. What it promises, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

SOURCE = Path(__file__).parents[2] / "deploy" / "kafka"
CLUSTER = "-Test_cluster_012345-A"  # like an option, as one in 64 begins
HARD_LIMIT = 280  # seconds for one command; the first start downloads Kafka


def run(
    *arguments: str | Path, script: Path = SOURCE / "broker", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script, *arguments],
        # The locale C, as in a bare container: there Java opens only file names in ASCII, unless it is told better.
        env=os.environ | {"LC_ALL": "C"} | (environment or {}),
        capture_output=True,
        encoding="utf-8",
        timeout=HARD_LIMIT,
        check=False,
    )


@dataclass(frozen=True)
class Broker:
    """One data folder and the script's commands on it."""

    data: Path

    def run(self, command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run(command, "--data", self.data, *arguments, environment=environment)

    def start(self, *arguments: str) -> str:
        """The address, as a shell's $(broker start) gets it."""
        started = self.run("start", *arguments)
        assert started.returncode == 0, started.stderr
        return started.stdout.removesuffix("\n")

    def report(self) -> dict[str, str | int | None]:
        report: dict[str, str | int | None] = json.loads(self.run("status", "--json").stdout)
        return report

    def pid(self) -> int:
        pid = self.report()["pid"]
        assert isinstance(pid, int)
        return pid


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    # Not a plain name: Kafka splits log.dirs at commas, and properties have rules of their own for the rest.
    broker = Broker(tmp_path / "a, b, ü")
    yield broker
    broker.run("kill")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for all the tests that leave it as it was."""
    broker = Broker(tmp_path_factory.mktemp("broker") / "data")
    try:
        broker.start("--heap", "200m", "--set", "message.max.bytes=2000", f"--cluster-id={CLUSTER}")
        yield broker
    finally:
        broker.run("kill")


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """Some process that is no broker."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.fixture
def tools(tmp_path: Path) -> Callable[..., str]:
    """Makes a PATH on which stand-ins for java and mvn are found, each a shell script given by its body."""
    folder = tmp_path / "tools"
    folder.mkdir()

    def write(**bodies: str) -> str:
        for name, body in bodies.items():
            tool = folder / name
            tool.write_text(f"#!/bin/sh\n{body}\n")
            tool.chmod(0o755)
        return str(folder)

    return write


JAVA_17 = "echo 'openjdk version \"17.0.15\" 2025-04-15' >&2"
# Leaves one jar where copy-dependencies was told to put them, and a line for each time it ran.
MAVEN = """
for argument; do case $argument in -DoutputDirectory=*) out=${argument#*=};; esac; done
echo run >> "$KAFKA_LIB/../runs"
/bin/mkdir "$out" && echo jar > "$out/one.jar"
"""


# === A running broker ===


@pytest.mark.kafka
def test_start_prints_the_address_alone_and_kafka_answers_there(running: Broker) -> None:
    started = running.run("start")

    host, port = started.stdout.strip().split(":")
    assert started.stdout == f"127.0.0.1:{port}\n"
    with socket.create_connection((host, int(port)), timeout=5) as link, link.makefile("rwb") as stream:
        request = struct.pack(">hhih", 18, 0, 77, -1)  # ApiVersions, version 0
        stream.write(struct.pack(">i", len(request)) + request)
        stream.flush()
        _size, correlation, error, apis = struct.unpack(">iihi", stream.read(14))
    assert (correlation, error) == (77, 0)
    assert apis > 50


@pytest.mark.kafka
def test_status_tells_state_pid_and_address(running: Broker) -> None:
    plain, report = running.run("status"), running.report()

    assert plain.returncode == 0
    assert plain.stdout == f"running  pid {report['pid']}  {report['bootstrap_servers']}\n"
    assert report["state"] == "running"
    assert Path(str(report["log"])).is_file()
    assert report["data"] == str(running.data)


@pytest.mark.kafka
def test_broker_runs_in_a_session_of_its_own(running: Broker) -> None:
    assert os.getsid(running.pid()) == running.pid()


@pytest.mark.kafka
def test_second_start_finds_the_first(running: Broker) -> None:
    before = running.report()

    again = running.run("start")
    elsewhere = running.run("start", "--port", "1")

    assert again.returncode == 0
    assert again.stdout == f"{before['bootstrap_servers']}\n"
    assert "already running" in again.stderr
    assert elsewhere.returncode == 1
    assert f"already running on port {again.stdout.strip().split(':')[1]} " in elsewhere.stderr
    assert running.report() == before


@pytest.mark.kafka
def test_options_reach_java_and_kafka(running: Broker) -> None:
    assert ["-Xmx200m" in process for process in processes_of(running)] == [True]

    create_topic(running.start(), "small-records")
    with producer_at(running.start()) as producer, pytest.raises(MessageSizeTooLargeError):
        producer.send("small-records", b"x" * 3_000).get(10)


@pytest.mark.kafka
def test_brokers_of_one_cluster_can_be_given_its_id(running: Broker) -> None:
    with closing(KafkaAdminClient(bootstrap_servers=running.start())) as admin:
        assert admin.describe_cluster()["cluster_id"] == CLUSTER


@pytest.mark.kafka
def test_topics_do_not_appear_by_themselves(running: Broker) -> None:
    with producer_at(running.start(), max_block_ms=1_000) as producer, pytest.raises(KafkaTimeoutError):
        producer.send("never-created", b"x").get(5)

    assert "never-created" not in topics_at(running.start())


# === Ends ===


@pytest.mark.kafka
def test_data_and_address_survive_kill_9(broker: Broker) -> None:
    address = broker.start("--fast-failover")
    create_topic(address, "reviews")
    write_in_transaction(address, "reviews", b"before")

    host, port = address.split(":")
    with socket.create_connection((host, int(port))):  # a client that is still connected holds the port for a while
        assert broker.run("kill").returncode == 0
        assert broker.run("status").returncode == 3
        assert broker.start("--fast-failover") == address

    write_in_transaction(address, "reviews", b"after")
    assert read_committed(address, "reviews") == [b"before", b"after"]


@pytest.mark.kafka
def test_stop_ends_it_in_good_order_also_when_it_is_paused(broker: Broker) -> None:
    broker.start()
    os.kill(broker.pid(), signal.SIGSTOP)
    paused = broker.run("status")

    stopped = broker.run("stop")

    assert (paused.returncode, paused.stdout.split()[0]) == (4, "unresponsive")
    assert stopped.returncode == 0
    assert "stopped" in stopped.stderr
    # Kafka writes this file when it shuts down in good order only: the next start need not recover its logs.
    assert (broker.data / "data" / ".kafka_cleanshutdown").is_file()
    assert broker.report()["state"] == "stopped"
    assert not (broker.data / "broker.pid").exists()


@pytest.mark.kafka
def test_stop_kills_a_broker_that_does_not_end_in_time(broker: Broker) -> None:
    broker.start()

    stopped = broker.run("stop", "--timeout", "0")

    assert stopped.returncode == 0
    assert "did not stop within 0 s: killing it" in stopped.stderr
    assert broker.run("status").returncode == 3


@pytest.mark.parametrize("command", ["stop", "kill"])
def test_ending_what_does_not_run_is_no_error(command: str, broker: Broker) -> None:
    ended = broker.run(command)

    assert ended.returncode == 0
    assert ended.stderr == f"broker: not running: {broker.data}\n"
    assert not broker.data.exists()


def test_status_of_what_never_ran(broker: Broker) -> None:
    status = broker.run("status")

    assert (status.returncode, status.stdout) == (3, "stopped\n")
    assert broker.report()["pid"] is None


@pytest.mark.parametrize("content", ["{pid}", "999999999", "-1", "0", "not a number", ""])
def test_stale_pid_file_harms_nobody(content: str, broker: Broker, bystander: subprocess.Popen[bytes]) -> None:
    broker.data.mkdir()
    (broker.data / "broker.pid").write_text(content.format(pid=bystander.pid))

    ended = [broker.run("kill"), broker.run("stop")]

    assert [each.returncode for each in ended] == [0, 0]
    assert broker.run("status").returncode == 3
    assert bystander.poll() is None


@pytest.mark.kafka
def test_a_broker_of_another_folder_is_not_taken_for_ones_own(broker: Broker, running: Broker) -> None:
    broker.data.mkdir()
    (broker.data / "broker.pid").write_text(str(running.pid()))

    broker.run("kill")

    assert running.run("status").returncode == 0


# === Starts that go wrong ===


@pytest.mark.kafka
def test_two_starts_at_once_start_one_broker(broker: Broker) -> None:
    command = [sys.executable, str(SOURCE / "broker"), "start", "--data", str(broker.data)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8") for _ in "ab"]
    told = [process.communicate(timeout=HARD_LIMIT) for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert told[0][0] == told[1][0]
    assert sorted("already running" in errors for _, errors in told) == [False, True]


@pytest.mark.kafka
def test_port_of_somebody_else_is_refused_in_one_line(broker: Broker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = broker.run("start", "--port", str(port))

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"broker: port {port} of 127.0.0.1 is taken by another process")
    assert refused.stderr.count("\n") == 1
    assert broker.run("status").returncode == 3


@pytest.mark.kafka
def test_start_that_kafka_refuses_shows_the_reason(broker: Broker) -> None:
    broker.start()
    broker.run("kill")

    refused = broker.run("start", "--set", "listeners=PLAINTEXT://127.0.0.1:1")

    assert (refused.returncode, refused.stdout) == (1, "")
    assert str(broker.data / "broker.log") in refused.stderr
    assert "controller.listener.names" in refused.stderr  # Kafka's own words for what is wrong
    assert "\tat " not in refused.stderr
    assert broker.run("status").returncode == 3


@pytest.mark.kafka
def test_start_that_takes_too_long_leaves_nothing_running(broker: Broker) -> None:
    refused = broker.run("start", "--timeout", "0.01")

    assert refused.returncode == 1
    assert "did not answer within 0.01 s" in refused.stderr
    assert processes_of(broker) == []


@pytest.mark.kafka
def test_start_that_is_ended_leaves_nothing_running(broker: Broker) -> None:
    command = [sys.executable, str(SOURCE / "broker"), "start", "--data", str(broker.data)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as starting:
        wait_for(lambda: (broker.data / "broker.pid").exists())
        assert processes_of(broker)
        starting.terminate()

    assert starting.returncode == 128 + signal.SIGTERM
    assert processes_of(broker) == []


# === Prerequisites ===


def test_missing_java_is_said_in_one_line(broker: Broker, tools: Callable[..., str]) -> None:
    refused = broker.run("start", PATH=tools(), JAVA_HOME="")

    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("broker: Java is not installed: Kafka needs Java 17 or newer")
    assert "apt-get install default-jre-headless maven" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("version", ["11.0.2", "1.8.0_472"])
def test_too_old_java_is_named(version: str, broker: Broker, tools: Callable[..., str]) -> None:
    refused = broker.run("start", PATH=tools(java=f"echo 'java version \"{version}\"' >&2"), JAVA_HOME="")

    assert refused.returncode == 2
    assert f'/java is version "{version}": Kafka needs Java 17 or newer' in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_java_home_counts_before_the_path(broker: Broker, tools: Callable[..., str]) -> None:
    refused = broker.run("start", PATH=tools(java=JAVA_17), JAVA_HOME="/nowhere")

    assert refused.returncode == 2
    assert refused.stderr.startswith("broker: no bin/java in JAVA_HOME=/nowhere: Kafka needs Java 17 or newer")


def test_missing_maven_is_said_in_one_line(broker: Broker, tools: Callable[..., str], tmp_path: Path) -> None:
    refused = broker.run("start", PATH=tools(java=JAVA_17), JAVA_HOME="", KAFKA_LIB=str(tmp_path / "lib"))

    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("broker: Maven is not installed")
    assert "apt-get install" in refused.stderr
    assert refused.stderr.count("\n") == 1


# === Installation, with a stand-in for Maven ===


def test_failed_download_does_not_count_as_installed(tools: Callable[..., str], tmp_path: Path) -> None:
    library = tmp_path / "lib"
    broken = MAVEN + "echo '[ERROR] connection lost'; exit 1"

    environment = {"PATH": tools(java=JAVA_17, mvn=broken), "JAVA_HOME": "", "KAFKA_LIB": str(library)}

    failed = run("install", environment=environment)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "[ERROR] connection lost" in failed.stderr
    assert [each.name for each in library.iterdir()] == [".lock"]

    # A download that was killed leaves a part behind.
    (library / ".partial").mkdir()
    (library / ".partial" / "half.jar").touch()
    tools(mvn=MAVEN)
    done = run("install", environment=environment)
    assert done.returncode == 0
    assert jars_in(done.stdout) == ["one.jar"]


def test_installs_at_once_download_once(tools: Callable[..., str], tmp_path: Path) -> None:
    environment = os.environ | {
        "PATH": tools(java=JAVA_17, mvn=MAVEN + "/bin/sleep 0.5"),
        "JAVA_HOME": "",
        "KAFKA_LIB": str(tmp_path / "lib"),
    }
    command = [sys.executable, str(SOURCE / "broker"), "install"]
    several = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
        for _ in range(3)
    ]
    told = [process.communicate(timeout=HARD_LIMIT)[0] for process in several]

    assert len(set(told)) == 1
    assert jars_in(told[0]) == ["one.jar"]
    assert (tmp_path / "runs").read_text() == "run\n"


def test_changed_pom_installs_beside_the_old_one(tools: Callable[..., str], tmp_path: Path) -> None:
    copy = tmp_path / "kafka"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("lib"))
    environment = {"PATH": tools(java=JAVA_17, mvn=MAVEN), "JAVA_HOME": "", "KAFKA_LIB": str(tmp_path / "lib")}

    first = run("install", script=copy / "broker", environment=environment).stdout
    again = run("install", script=copy / "broker", environment=environment).stdout
    (copy / "pom.xml").write_text((copy / "pom.xml").read_text().replace("4.3.1", "4.3.2"))
    changed = run("install", script=copy / "broker", environment=environment).stdout

    assert first == again
    assert jars_in(first) == jars_in(changed) == ["one.jar"]
    assert changed != first
    assert (tmp_path / "runs").read_text() == "run\nrun\n"


# === Usage ===


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "65536"],
        ["--port", "x"],
        ["--heap", "256"],
        ["--set", "no-value"],
        ["--set", "a=b\nc=d"],
        ["--cluster-id", "short"],
    ],
)
def test_wrong_usage_is_refused_before_anything_is_done(arguments: list[str], broker: Broker) -> None:
    refused = broker.run("start", *arguments)

    assert refused.returncode == 2
    assert arguments[0] in refused.stderr
    assert not broker.data.exists()


def test_every_command_is_explained() -> None:
    overview = run("--help").stdout
    for command in ("install", "start", "stop", "kill", "status"):
        assert f"\n    {command} " in overview
        assert run(command, "--help").returncode == 0


# === What the tests ask of Kafka and of the machine ===


def create_topic(address: str, name: str) -> None:
    with closing(KafkaAdminClient(bootstrap_servers=address)) as admin:
        admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])


def topics_at(address: str) -> list[str]:
    with closing(KafkaAdminClient(bootstrap_servers=address)) as admin:
        return list(admin.list_topics())


@contextmanager
def producer_at(address: str, **settings: str | int) -> Iterator[KafkaProducer]:
    producer = KafkaProducer(bootstrap_servers=address, **settings)
    try:
        yield producer
    finally:
        producer.close(timeout=5)


def write_in_transaction(address: str, topic: str, value: bytes) -> None:
    """As the worker writes: the transaction log has to work with the single broker."""
    with producer_at(address, transactional_id="test-broker") as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topic, value)
        producer.commit_transaction()


def read_committed(address: str, topic: str) -> list[bytes]:
    partition = TopicPartition(topic, 0)
    values: list[bytes] = []
    deadline = time.monotonic() + 20
    consumer = KafkaConsumer(bootstrap_servers=address, isolation_level="read_committed", group_id=None)
    with closing(consumer):
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end = consumer.end_offsets([partition])[partition]
        while consumer.position(partition) < end:
            assert time.monotonic() < deadline, f"read only {values} of {end} offsets"
            for records in consumer.poll(timeout_ms=500).values():
                values.extend(record.value for record in records)
    return values


def jars_in(printed: str) -> list[str]:
    return sorted(jar.name for jar in Path(printed.removesuffix("\n")).glob("*.jar"))


def processes_of(broker: Broker) -> list[str]:
    """The command lines of the processes that run in the data folder, whatever the pid file says."""
    listed = subprocess.run(["ps", "-ww", "-eo", "args="], capture_output=True, check=True).stdout
    # By the folder above, which is in ASCII: what ps makes of other letters depends on the locale.
    mark = os.fsencode(f"-Dbroker.data={broker.data.parent}/")
    return [line.decode(errors="replace") for line in listed.splitlines() if mark in line]


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
