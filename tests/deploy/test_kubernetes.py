"""The manifests, without a cluster: every key is one that somebody reads, and what stands in several places agrees."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from kafka.admin import ResourceType

from deploy.kustomize import Object, containers, documents, render
from deploy.strict import faults
from deploy.typos import with_typos
from running import ROOT
from security.pieces import documented_rights
from worker.health import HealthServer
from worker.metrics import Metrics
from worker.settings import KafkaSettings, Settings, known_settings, load_settings, variable
from worker.topics import DEAD_LETTER_ROOM, MAX_MESSAGE_BYTES

FOLDER = ROOT / "deploy" / "kubernetes"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
POD = "review-worker-5d9c7b6f4-x2x7p"
DEFAULTS = KafkaSettings()

EVERYTHING = FOLDER / "everything" / "kustomization.yaml"
"""A kustomization that is not there: with every component at once, so that each file is in some rendering."""
ALL = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: reviews
resources: [../base]
components: [../components/strimzi, ../components/gpu, ../components/autoscaling, ../components/model-pull]
"""
RENDERED = ("base", "gpu", "autoscaling", "everything")

LABELS = {"app.kubernetes.io/name", "app.kubernetes.io/part-of", "strimzi.io/cluster", "kubernetes.io/metadata.name"}
QUANTITIES = {"cpu", "memory", "nvidia.com/gpu"}
TOPIC_CONFIGS = {"min.insync.replicas", "retention.ms", "max.message.bytes"}
"""Those that are used; tests/deploy/test_containers.py asks a real broker for them."""
TRIGGER = {
    *("bootstrapServers", "consumerGroup", "topic", "lagThreshold", "activationLagThreshold", "offsetResetPolicy"),
    *("allowIdleConsumers", "excludePersistentLag", "version", "sasl", "tls"),
}
AUTHENTICATION = {"username", "password", "ca"}
"""What KEDA's kafka trigger reads (pkg/scalers/kafka_scaler.go), as far as it is used. KEDA passes over the rest."""


def read(path: Path) -> str:
    return ALL if path == EVERYTHING else path.read_text(encoding="utf-8")


def rendered(name: str, reader: Callable[[Path], str] = read) -> list[Object]:
    return render(FOLDER / name, reader)


def of(objects: Iterable[Object], kind: str, name: str | None = None) -> Object:
    """The one of this kind."""
    (found,) = [it for it in objects if it["kind"] == kind and name in (None, it["metadata"]["name"])]
    return found


def has(objects: Iterable[Object], kind: str) -> bool:
    return any(it["kind"] == kind for it in objects)


def pod_of(objects: Iterable[Object]) -> Object:
    spec: Object = of(objects, "Deployment")["spec"]["template"]["spec"]
    return spec


def worker_of(objects: Iterable[Object]) -> Object:
    (container,) = [it for it in pod_of(objects)["containers"] if it["name"] == "worker"]
    return container


def environment_of(objects: list[Object]) -> dict[str, str]:
    """The variables of the worker in its pod."""
    worker = worker_of(objects)
    (source,) = worker["envFrom"]
    variables = dict(of(objects, "ConfigMap", source["configMapRef"]["name"])["data"])
    for each in worker["env"]:
        assert each["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
        variables[each["name"]] = POD
    return variables


def settings_of(objects: list[Object]) -> Settings:
    """What the worker makes of them."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
    with patch.dict(os.environ, others | environment_of(objects), clear=True):
        return load_settings()


def mappings(node: Any) -> Iterator[tuple[str, Object]]:
    """Every mapping below, with the name that it stands under."""
    if isinstance(node, dict):
        for name, each in node.items():
            if isinstance(each, dict):
                yield name, each
            yield from mappings(each)
    elif isinstance(node, list):
        for each in node:
            yield from mappings(each)


# === What is checked, of every rendering ===


def check_schemas(objects: list[Object]) -> None:
    found = {f"{it['kind']} {it['metadata'].get('name')}": faults(it) for it in objects}
    assert not {name: lines for name, lines in found.items() if lines}


def check_free_names(objects: list[Object]) -> None:
    """Names that no schema knows."""
    labels = {name for under, each in mappings(objects) if under in ("labels", "matchLabels") for name in each}
    assert labels <= LABELS
    quantities = {name for under, each in mappings(objects) if under in ("requests", "limits") for name in each}
    assert quantities <= QUANTITIES


def check_settings(objects: list[Object]) -> None:
    settings, worker = settings_of(objects), worker_of(objects)
    known = {variable(name) for name in known_settings()}
    assert set(environment_of(objects)) <= known
    assert settings.group_instance_id is None
    assert settings.transactional_id == POD
    mounts = {it["name"]: it["mountPath"] for it in worker["volumeMounts"]}
    assert str(settings.model) == mounts["model"]
    assert settings.reload.seconds == 0, "a mounted image never changes"
    kafka = settings.kafka
    (secrets,) = [it["projected"]["sources"] for it in pod_of(objects)["volumes"] if it["name"] == "kafka"]
    files = {f"{mounts['kafka']}/{item['path']}" for it in secrets for item in it["secret"]["items"]}
    assert {str(kafka.sasl_plain_password_file), str(kafka.ssl_cafile)} == files
    names = (kafka.input_topic, kafka.output_topic, kafka.dead_letter_topic, kafka.group_id)
    assert names == (DEFAULTS.input_topic, DEFAULTS.output_topic, DEFAULTS.dead_letter_topic, DEFAULTS.group_id)


def check_ports(objects: list[Object]) -> None:
    settings, worker = settings_of(objects), worker_of(objects)
    (port,) = worker["ports"]
    (served,) = of(objects, "Service")["spec"]["ports"]
    (endpoint,) = of(objects, "ServiceMonitor")["spec"]["endpoints"]
    (entry,) = of(objects, "NetworkPolicy")["spec"]["ingress"]
    assert str(settings.http.host) == "0.0.0.0"  # noqa: S104 - the pod's own address
    assert port["containerPort"] == served["port"] == settings.http.port
    assert [it["port"] for it in entry["ports"]] == [settings.http.port]
    probes = [worker[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")]
    assert [it["path"] for it in probes] == ["/livez", "/livez", "/readyz"]
    assert {it["port"] for it in probes} == {port["name"]} == {served["targetPort"]}
    assert (endpoint["port"], endpoint["path"]) == (served["name"], "/metrics")
    assert served["name"] == port["name"]


def check_times(objects: list[Object]) -> None:
    settings, pod, worker = settings_of(objects), pod_of(objects), worker_of(objects)
    assert pod["terminationGracePeriodSeconds"] > settings.kafka.transaction_timeout_seconds
    startup = worker["startupProbe"]
    patience = startup["periodSeconds"] * startup["failureThreshold"]
    assert patience > settings.watchdog.load_seconds
    assert of(objects, "Deployment")["spec"]["progressDeadlineSeconds"] > patience
    liveness = worker["livenessProbe"]
    # The watchdog is first, since it says which stage hangs and where.
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= settings.watchdog.stage_seconds


def check_confinement(objects: list[Object]) -> None:
    pod = pod_of(objects)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    for container in containers(of(objects, "Deployment")):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        resources = container["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        assert "nvidia.com/gpu" not in resources["requests"]


def check_volumes(objects: list[Object]) -> None:
    pod = pod_of(objects)
    volumes = {it["name"]: set(it) - {"name"} for it in pod["volumes"]}
    assert all(len(sources) == 1 for sources in volumes.values()), volumes
    worker = {it["name"]: it.get("readOnly", False) for it in worker_of(objects)["volumeMounts"]}
    assert worker == {"model": True, "kafka": True, "tmp": False}
    for container in containers(of(objects, "Deployment")):
        assert {it["name"] for it in container["volumeMounts"]} <= volumes.keys()
    if "initContainers" in pod:
        assert volumes["model"] == {"emptyDir"}


def check_selectors(objects: list[Object]) -> None:
    template = of(objects, "Deployment")["spec"]["template"]
    wanted = {"app.kubernetes.io/name": "review-worker"}
    assert wanted.items() <= template["metadata"]["labels"].items()
    assert wanted.items() <= of(objects, "Service")["metadata"]["labels"].items()
    (spread,) = template["spec"]["topologySpreadConstraints"]
    assert of(objects, "Service")["spec"]["selector"] == wanted
    for selector in (
        of(objects, "Deployment")["spec"]["selector"],
        of(objects, "PodDisruptionBudget")["spec"]["selector"],
        of(objects, "NetworkPolicy")["spec"]["podSelector"],
        of(objects, "ServiceMonitor")["spec"]["selector"],
        spread["labelSelector"],
    ):
        assert selector == {"matchLabels": wanted}
    assert all("app.kubernetes.io/name" in it["metadata"]["labels"] for it in objects if it["kind"] in OURS)
    assert of(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


OURS = {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"}


def check_network(objects: list[Object]) -> None:
    """Nobody in but Prometheus; out only by these ports."""
    policy = of(objects, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    ((visitor,),) = [it["from"] for it in policy["ingress"]]
    assert visitor == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    broker = settings_of(objects).kafka.bootstrap_servers
    ways = [({it["port"] for it in way["ports"]}, way.get("to")) for way in policy["egress"]]
    to_kafka = [{"podSelector": {"matchLabels": {"strimzi.io/cluster": broker.partition("-kafka-bootstrap:")[0]}}}]
    assert ways[:2] == [({53}, None), ({int(broker.rpartition(":")[2])}, to_kafka)]
    pulls = "initContainers" in pod_of(objects)
    assert ways[2:] == ([({443}, None)] if pulls else []), "the image of a volume is pulled by the node"


def check_strimzi(objects: list[Object]) -> None:
    if not has(objects, "KafkaTopic"):
        return
    kafka = settings_of(objects).kafka
    cluster = kafka.bootstrap_servers.partition("-kafka-bootstrap:")[0]
    theirs = [it for it in objects if it["apiVersion"] == "kafka.strimzi.io/v1"]
    assert {it["metadata"]["labels"]["strimzi.io/cluster"] for it in theirs} == {cluster}
    topics = {it["metadata"]["name"]: it["spec"] for it in theirs if it["kind"] == "KafkaTopic"}
    assert topics.keys() == {kafka.input_topic, kafka.output_topic, kafka.dead_letter_topic}
    assert topics[kafka.input_topic]["partitions"] == topics[kafka.output_topic]["partitions"]
    for topic in topics.values():
        assert topic["config"].keys() <= TOPIC_CONFIGS
        assert 1 < topic["config"]["min.insync.replicas"] < topic["replicas"]
        assert topic["config"]["retention.ms"] >= 7 * 24 * 3_600_000
    room = topics[kafka.dead_letter_topic]["config"]["max.message.bytes"]
    assert room == DEAD_LETTER_ROOM * MAX_MESSAGE_BYTES
    user = of(objects, "KafkaUser", kafka.sasl_plain_username)
    assert user["spec"]["authentication"]["type"].upper() == kafka.sasl_mechanism
    (secrets,) = [it["projected"]["sources"] for it in pod_of(objects)["volumes"] if it["name"] == "kafka"]
    assert [it["secret"]["name"] for it in secrets] == [user["metadata"]["name"], f"{cluster}-cluster-ca-cert"]
    assert [[item["key"] for item in it["secret"]["items"]] for it in secrets] == [["password"], ["ca.crt"]]


KINDS = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "transactionalId": ResourceType.TRANSACTIONAL_ID}


def check_rights(objects: list[Object]) -> None:
    """Those of the documentation, which the tests of tests/security hold against a real broker; and Describe, which is
    part of them."""
    if not has(objects, "KafkaUser"):
        return
    user = of(objects, "KafkaUser", "review-worker")
    rules = user["spec"]["authorization"]["acls"]
    given = {
        (KINDS[it["resource"]["type"]], it["resource"]["name"], it["resource"]["patternType"], operation.upper())
        for it in rules
        for operation in it["operations"]
    }
    wanted = {
        (right.kind, right.name, "prefix" if right.prefixed else "literal", right.operation.name)
        for right in documented_rights("worker")
    }
    describe = {(*right[:3], "DESCRIBE") for right in wanted if right[0] != ResourceType.GROUP}
    assert given == wanted | describe
    (prefix,) = [it["resource"]["name"] for it in rules if it["resource"]["type"] == "transactionalId"]
    assert prefix == f"{of(objects, 'Deployment')['metadata']['name']}-"
    assert settings_of(objects).transactional_id.startswith(prefix)


def check_scaling(objects: list[Object]) -> None:
    if not has(objects, "ScaledObject"):
        assert of(objects, "Deployment")["spec"]["replicas"] > 0
        return
    scaled, kafka = of(objects, "ScaledObject")["spec"], settings_of(objects).kafka
    assert "replicas" not in of(objects, "Deployment")["spec"], "every apply would set the number back"
    assert scaled["scaleTargetRef"]["name"] == of(objects, "Deployment")["metadata"]["name"]
    (trigger,) = scaled["triggers"]
    asked = trigger["metadata"]
    assert asked.keys() == TRIGGER
    assert {type(value) for value in asked.values()} == {str}
    namespace = of(objects, "ScaledObject")["metadata"]["namespace"]
    service, _, port = kafka.bootstrap_servers.partition(":")
    assert asked["bootstrapServers"] == f"{service}.{namespace}.svc:{port}"
    assert (asked["consumerGroup"], asked["topic"]) == (kafka.group_id, kafka.input_topic)
    partitions = of(objects, "KafkaTopic", kafka.input_topic)["spec"]["partitions"]
    assert 1 <= scaled["minReplicaCount"] <= scaled["fallback"]["replicas"] <= scaled["maxReplicaCount"] <= partitions
    assert int(asked["activationLagThreshold"]) > partitions
    assert asked["offsetResetPolicy"] == "earliest"
    assert {asked["allowIdleConsumers"], asked["excludePersistentLag"]} == {"false"}
    assert asked["sasl"] == kafka.sasl_mechanism.lower().replace("-", "_").replace("scram_sha_", "scram_sha")
    assert (asked["tls"], kafka.security_protocol) == ("enable", "SASL_SSL")
    check_authentication(objects, trigger["authenticationRef"]["name"])


def check_authentication(objects: list[Object], name: str) -> None:
    login = of(objects, "TriggerAuthentication", name)["spec"]
    (user,), secrets = login["configMapTargetRef"], login["secretTargetRef"]
    assert {it["parameter"] for it in (user, *secrets)} == AUTHENTICATION
    who = of(objects, "ConfigMap", user["name"])["data"][user["key"]]
    rules = of(objects, "KafkaUser", who)["spec"]["authorization"]["acls"]
    assert {it["parameter"]: (it["name"], it["key"]) for it in secrets} == {
        "password": (who, "password"),
        "ca": ("kafka-cluster-ca-cert", "ca.crt"),
    }
    assert [(it["resource"]["type"], it["resource"]["name"], it["operations"]) for it in rules] == [
        ("topic", DEFAULTS.input_topic, ["Describe"]),
        ("group", DEFAULTS.group_id, ["Describe"]),
    ]


def check_images(objects: list[Object]) -> None:
    worker = worker_of(objects)
    gpu = "nvidia.com/gpu" in worker["resources"]["limits"]
    assert worker["image"] == f"registry.example.com/review-worker:{VERSION}-{'jax' if gpu else 'cpu'}"
    assert settings_of(objects).engine == ("jax" if gpu else "auto")
    assert worker["args"] == ["run"]
    assert all(":latest" not in it["image"] and ":" in it["image"] for it in containers(of(objects, "Deployment")))


def check_gpu(objects: list[Object]) -> None:
    gpu = "nvidia.com/gpu" in worker_of(objects)["resources"]["limits"]
    assert gpu == ("tolerations" in pod_of(objects))
    strategy = of(objects, "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == ({"maxSurge": 0, "maxUnavailable": 1} if gpu else {"maxSurge": 1, "maxUnavailable": 0})


def check_namespaces(objects: list[Object]) -> None:
    assert {it["metadata"]["namespace"] for it in objects} == {"reviews"}


CHECKS = (
    check_schemas,
    check_free_names,
    check_settings,
    check_ports,
    check_times,
    check_confinement,
    check_volumes,
    check_selectors,
    check_network,
    check_strimzi,
    check_rights,
    check_scaling,
    check_images,
    check_gpu,
    check_namespaces,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda it: it.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", RENDERED)
def test_the_manifests_hold_together(name: str, check: Callable[[list[Object]], None]) -> None:
    check(rendered(name))


def test_the_overlays_are_what_they_are_named_after() -> None:
    base, gpu, autoscaling = (rendered(name) for name in ("base", "gpu", "autoscaling"))
    assert {it["kind"] for it in base} == OURS | {"ConfigMap"}
    assert worker_of(gpu)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert has(autoscaling, "ScaledObject")
    assert sum(it["kind"] == "KafkaTopic" for it in gpu) == sum(it["kind"] == "KafkaTopic" for it in autoscaling) == 3


# === Other eyes ===


@pytest.mark.parametrize("version", ["1.35.0", "1.37.0"])
@pytest.mark.parametrize("name", RENDERED)
def test_kubernetes_validate_takes_them(name: str, version: str, tmp_path: Path) -> None:
    """The first with image volumes switched on, and the newest that it knows."""
    file = tmp_path / "rendered.yaml"
    own = [it for it in rendered(name) if "." not in it["apiVersion"].partition("/")[0] or "k8s.io" in it["apiVersion"]]
    assert OURS - {"ServiceMonitor"} <= {it["kind"] for it in own}
    file.write_text(yaml.safe_dump_all(own), encoding="utf-8")
    program = Path(sys.executable).with_name("kubernetes-validate")
    done = subprocess.run(
        [program, "--strict", "-k", version, file], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout.count(" passed ")) == (0, len(own)), done.stdout


@pytest.mark.parametrize("name", RENDERED)
def test_kustomize_renders_what_the_tests_do(name: str, tmp_path: Path) -> None:
    program = shutil.which("kustomize")
    if program is None:
        pytest.skip("no kustomize on the path: go install sigs.k8s.io/kustomize/kustomize/v5@v5.8.1")
    copy = shutil.copytree(FOLDER, tmp_path / "kubernetes")
    (copy / "everything").mkdir()
    (copy / "everything" / "kustomization.yaml").write_text(ALL, encoding="utf-8")
    done = subprocess.run([program, "build", copy / name], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    # The hash of what a ConfigMap holds stands behind its name.
    theirs = documents(re.sub(r"(name: review-worker)-[a-z0-9]{10}$", r"\1", done.stdout, flags=re.MULTILINE))
    assert by_name(theirs) == by_name(rendered(name))


def by_name(objects: list[Object]) -> dict[str, Object]:
    return {f"{it['kind']} {it['metadata']['name']}": it for it in objects}


def test_the_paths_of_the_probes_are_those_of_the_worker() -> None:
    probes = [worker_of(rendered("base"))[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness")]
    well = {"/livez": True, "/readyz": True}
    with HealthServer("127.0.0.1", 0, Metrics(), lambda: (well["/livez"], ""), lambda: (well["/readyz"], "")) as server:
        for path in probes:
            assert status(server.url + path) == 200
            well[path] = False
            assert status(server.url + path) == 503


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
            code: int = answer.status
            return code
    except urllib.error.HTTPError as error:
        with error:
            return error.code


# === Typos ===

FILES = sorted(path.relative_to(FOLDER) for path in FOLDER.rglob("*") if path.suffix in (".yaml", ".env"))


def refused(name: str, reader: Callable[[Path], str]) -> bool:
    try:
        objects = rendered(name, reader)
        for check in CHECKS:
            check(objects)
    except Exception:
        # Some mistakes are found by a name that is not there, whatever looks for it.
        return True
    return False


@pytest.mark.parametrize("file", FILES, ids=str)
def test_no_key_can_be_misspelt_unnoticed(file: Path) -> None:
    path = (FOLDER / file).resolve()
    names = [name for name in RENDERED if is_read(name, path)]
    assert names, f"{file} is in no overlay"
    missed, tried = [], list(with_typos(path.read_text(encoding="utf-8")))
    assert tried
    for line, text in tried:
        wrong = lambda it, text=text: text if it.resolve() == path else read(it)  # noqa: E731
        if not any(refused(name, wrong) for name in names):
            missed.append(line)
    assert not missed


def is_read(name: str, path: Path) -> bool:
    seen: list[Path] = []

    def noted(it: Path) -> str:
        seen.append(it.resolve())
        return read(it)

    rendered(name, noted)
    return path in seen
