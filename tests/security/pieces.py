"""A broker that trusts nobody: a listener of every kind, users with passwords, and no right that was not given. And the
commands as their users run them, whose every output is searched for the password."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
    UserScramCredentialUpsertion,
)

import contract.pieces
from contract.pieces import STUB, wait_for
from running import ROOT, Broker, Stage, broker, free_ports

README = ROOT / "deploy" / "kafka" / "README.md"

PASSWORD = "correct horse; battery=staple"  # noqa: S105 - the one that must never be shown
KEYSTORE_PASSWORD = "changeit"  # noqa: S105 - keytool asks for one
MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-512")
USERS = ("worker", "publisher", "reader", "replayer")

HARD_LIMIT = 120
"""Seconds after which a command that hangs is ended, and its test fails."""

LISTENERS = {
    "PLAIN": "PLAINTEXT",
    "TLS": "SSL",
    "MUTUAL": "SSL",
    "ELSEWHERE": "SSL",
    "MOVED": "SSL",
    "SCRAM": "SASL_SSL",
    "BARE": "SASL_PLAINTEXT",
}
"""The protocol of each listener, all of them on 127.0.0.1.

PLAIN is the tests' own: who comes in there has every right. MUTUAL asks for the client's certificate. ELSEWHERE shows
the certificate of another host. MOVED leads its clients on to another name, as a broker does that advertises one.
"""


# === Certificates ===


def keytool(*arguments: str | Path) -> None:
    """Run the Java runtime's own; it stands beside the `java` that runs the broker."""
    home = os.environ.get("JAVA_HOME")
    tool = shutil.which(str(Path(home, "bin", "keytool")) if home else "keytool")
    assert tool, "no keytool beside java"
    flags = ["-J-XX:TieredStopAtLevel=1", "-storetype", "PKCS12", "-storepass", KEYSTORE_PASSWORD]
    done = subprocess.run([tool, *arguments, *flags], capture_output=True, text=True, check=False, timeout=HARD_LIMIT)
    assert done.returncode == 0, done.stdout


def make_certificate(folder: Path, name: str, holder: str) -> None:
    """`name.p12`, and its certificate as `name.pem`, which vouches for itself.

    Args:
        folder: where to.
        name: of the files, and of its owner (CN).
        holder: the host that it is for, as keytool writes it: `ip:…` or `dns:…`.
    """
    store = folder / f"{name}.p12"
    kind = ("-keyalg", "EC", "-groupname", "secp256r1", "-validity", "2")
    keytool("-genkeypair", "-alias", name, *kind, "-dname", f"CN={name}", "-ext", f"san={holder}", "-keystore", store)
    keytool("-exportcert", "-rfc", "-alias", name, "-keystore", store, "-file", folder / f"{name}.pem")


# === The broker ===


@dataclass(frozen=True)
class Secured:
    """A broker with all the listeners, and the folder of its certificates."""

    broker: Broker
    ports: Mapping[str, int]
    folder: Path

    @property
    def address(self) -> str:
        """Of the listener that gives every right."""
        return self.broker.address

    def reach(self, listener: str, *, authority: str = "broker", protocol: str | None = None) -> dict[str, str]:
        """The settings of a client of this listener.

        Args:
            listener: by its name.
            authority: whose certificate is trusted.
            protocol: to speak another one than the listener.
        """
        protocol = protocol or LISTENERS[listener]
        settings = {
            "WORKER_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{self.ports[listener]}",
            "WORKER_KAFKA__SECURITY_PROTOCOL": protocol,
        }
        if protocol.endswith("SSL"):
            settings["WORKER_KAFKA__SSL_CAFILE"] = str(self.folder / f"{authority}.pem")
        return settings

    def login(
        self,
        user: str,
        *,
        listener: str = "SCRAM",
        mechanism: str = "SCRAM-SHA-512",
        password: str = PASSWORD,
        protocol: str | None = None,
    ) -> dict[str, str]:
        """The settings of a client that comes with user and password, the password in a file."""
        file = self.folder / ("password" if password == PASSWORD else "wrong-password")
        file.write_text(f"{password}\n", encoding="utf-8")
        return self.reach(listener, protocol=protocol) | {
            "WORKER_KAFKA__SASL_MECHANISM": mechanism,
            "WORKER_KAFKA__SASL_PLAIN_USERNAME": user,
            "WORKER_KAFKA__SASL_PLAIN_PASSWORD_FILE": str(file),
        }


@contextmanager
def secured_broker(folder: Path) -> Iterator[Secured]:
    """The broker with its users, gone afterwards. The users have no rights yet."""
    hosts = {"broker": "ip:127.0.0.1", "elsewhere": "dns:kafka.example", "worker": "dns:worker.example"}
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda name: make_certificate(folder, name, hosts[name]), hosts))
    controller, *others = free_ports(1 + len(LISTENERS))
    ports = dict(zip(LISTENERS, others, strict=True))
    with broker(folder / "broker", "--port", str(ports["PLAIN"]), *options(folder, ports, controller)) as running:
        made = Secured(running, ports, folder)
        with closing(KafkaAdminClient(bootstrap_servers=made.address)) as admin:
            make_users(admin)
        yield made


def options(folder: Path, ports: Mapping[str, int], controller: int) -> list[str]:
    """Of the broker script."""
    addresses = {name: f"{name}://127.0.0.1:{port}" for name, port in ports.items()}
    protocols = {"CONTROLLER": "PLAINTEXT", **LISTENERS}
    properties = {
        "listeners": ",".join([*addresses.values(), f"CONTROLLER://127.0.0.1:{controller}"]),
        "advertised.listeners": ",".join((addresses | {"MOVED": f"MOVED://localhost:{ports['MOVED']}"}).values()),
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
        "inter.broker.listener.name": "PLAIN",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": f"{folder}/broker.p12",
        "ssl.keystore.password": KEYSTORE_PASSWORD,
        "listener.name.elsewhere.ssl.keystore.type": "PKCS12",
        "listener.name.elsewhere.ssl.keystore.location": f"{folder}/elsewhere.p12",
        "listener.name.elsewhere.ssl.keystore.password": KEYSTORE_PASSWORD,
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.mutual.ssl.truststore.type": "PEM",
        "listener.name.mutual.ssl.truststore.location": f"{folder}/worker.pem",
        "sasl.enabled.mechanisms": ",".join(MECHANISMS),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": "User:ANONYMOUS;User:CN=worker",
    }
    module = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    for listener in ("scram", "bare"):
        for mechanism in MECHANISMS:
            properties[f"listener.name.{listener}.{mechanism.lower()}.sasl.jaas.config"] = module
    return [word for name, value in properties.items() for word in ("--set", f"{name}={value}")]


def make_users(admin: KafkaAdminClient) -> None:
    """Each with the password for both mechanisms."""
    for it in MECHANISMS:
        wanted = [UserScramCredentialUpsertion(user, it, PASSWORD) for user in USERS]
        failures = [error for error in admin.alter_user_scram_credentials(wanted).values() if error]
        assert not failures, failures

    def known() -> bool:
        found = admin.describe_user_scram_credentials(list(USERS))
        return all(len(found[user]["credential_infos"]) == len(MECHANISMS) for user in USERS)

    wait_for(known, "the broker knows the users")


# === Rights ===


@dataclass(frozen=True)
class Right:
    """One line of the documentation: what `user` may do."""

    user: str
    operation: ACLOperation
    kind: ResourceType
    name: str
    prefixed: bool

    def __str__(self) -> str:
        return f"{self.operation.name} {self.kind.name.lower().replace('_', ' ')} {self.name}"

    def on(self, stage: Stage) -> ACL:
        """The rule, with the stage's names in place of the defaults."""
        own = {
            "reviews": stage.input,
            "review-predictions": stage.output,
            "reviews-dead-letters": stage.dead,
            "review-worker": stage.name,
            "review-worker-": f"{stage.name}-",
            "review-worker-replay": f"{stage.name}-replay",
        }
        kind = ACLResourcePatternType.PREFIXED if self.prefixed else ACLResourcePatternType.LITERAL
        pattern = ResourcePattern(self.kind, own[self.name], kind)
        return ACL(f"User:{self.user}", "*", self.operation, ACLPermissionType.ALLOW, pattern)


RESOURCES = {
    "--topic": ResourceType.TOPIC,
    "--group": ResourceType.GROUP,
    "--transactional-id": ResourceType.TRANSACTIONAL_ID,
}


def documented_rights(user: str) -> list[Right]:
    """What the `kafka-acls` commands of the documentation give a user: no more and no less is given here."""
    commands = re.findall(r"^kafka-acls .*$", README.read_text(encoding="utf-8"), re.MULTILINE)
    found = []
    for words in map(shlex.split, commands):
        (resource,) = RESOURCES.keys() & set(words)
        right = Right(
            words[words.index("--allow-principal") + 1].removeprefix("User:"),
            ACLOperation[words[words.index("--operation") + 1].upper()],
            RESOURCES[resource],
            words[words.index(resource) + 1],
            "prefixed" in words,
        )
        if right.user == user:
            found.append(right)
    return found


@contextmanager
def given(secured: Secured, stage: Stage, rights: Sequence[Right]) -> Iterator[None]:
    """The rights on the stage's own topics, group and transactional ids."""
    rules = [right.on(stage) for right in rights]
    with closing(KafkaAdminClient(bootstrap_servers=secured.address)) as admin:
        give(admin, rules)
        try:
            yield
        finally:
            take(admin, rules)


@contextmanager
def taken(secured: Secured, stage: Stage, right: Right) -> Iterator[None]:
    """Without this right, until the end of the block."""
    with closing(KafkaAdminClient(bootstrap_servers=secured.address)) as admin:
        take(admin, [right.on(stage)])
        try:
            yield
        finally:
            give(admin, [right.on(stage)])


def give(admin: KafkaAdminClient, rules: Sequence[ACL]) -> None:
    """And wait until the broker holds to it."""
    assert not admin.create_acls(list(rules))["failed"]
    wait_for(lambda: all(admin.describe_acls(only(rule))[0] for rule in rules), "the broker knows the rules")


def take(admin: KafkaAdminClient, rules: Sequence[ACL]) -> None:
    """And wait until the broker holds to it."""
    admin.delete_acls([only(rule) for rule in rules])
    wait_for(lambda: not any(admin.describe_acls(only(rule))[0] for rule in rules), "the rules are gone")


def only(rule: ACL) -> ACLFilter:
    """The filter that finds this rule and no other."""
    return ACLFilter(rule.principal, rule.host, rule.operation, rule.permission_type, rule.resource_pattern)


# === Commands ===


class Done(contract.pieces.Done):
    """What a command did."""

    @property
    def findings(self) -> dict[str, tuple[bool, str]]:
        """Of `check --json`: what was tried, whether it is well, and what was found."""
        found = [json.loads(line) for line in self.out.splitlines()]
        return {it["name"]: (it["ok"], it["detail"]) for it in found}


def command(*arguments: str | Path, typed: str | None = None, **variables: str) -> Done:
    """Run `review-worker` to its end; `run` without TensorFlow.

    Args:
        arguments: of the command line.
        typed: on standard input.
        variables: settings.
    """
    program = [str(STUB)] if arguments[0] == "run" else ["-m", "worker"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        input=typed,
        capture_output=True,
        text=True,
        env=clean | {"PYTHONPATH": str(ROOT)} | variables,
        cwd=ROOT,
        timeout=HARD_LIMIT,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - began)
