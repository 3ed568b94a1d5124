"""Strict schemas: a key that nobody reads is a mistake, in Compose files and in Kubernetes' own and custom kinds."""

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import referencing
from kubernetes_validate.utils import latest_version, schema_contents

SCHEMAS = Path(__file__).parent / "schemas"
CUSTOM = {
    ("keda.sh/v1alpha1", "ScaledObject"),
    ("keda.sh/v1alpha1", "TriggerAuthentication"),
    ("kafka.strimzi.io/v1", "KafkaTopic"),
    ("kafka.strimzi.io/v1", "KafkaUser"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
}
METADATA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"},
        "namespace": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["name"],
    "additionalProperties": False,
}


def faults(document: dict[str, Any]) -> list[str]:
    """What is wrong with a Kubernetes object, a line each."""
    return _lines(_validator(document.get("apiVersion", ""), document.get("kind", "")), document)


def compose_faults(document: dict[str, Any]) -> list[str]:
    """What is wrong with a Compose file, a line each."""
    return _lines(_compose(), document)


def _lines(validator: Any, document: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@cache
def _compose() -> Any:
    """The Compose specification's own schema, as `check-jsonschema` carries it."""
    carried = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    return jsonschema.Draft202012Validator(json.loads(carried.read_text(encoding="utf-8")))


@cache
def _validator(version: str, kind: str) -> Any:
    if (version, kind) in CUSTOM:
        schema = json.loads((SCHEMAS / f"{kind.lower()}.json").read_text(encoding="utf-8"))
        schema["properties"]["metadata"] = METADATA
        schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
        return jsonschema.Draft202012Validator(_closed(schema))
    return _own(version, kind)


@cache
def _own(version: str, kind: str) -> Any:
    """A kind of Kubernetes' own, by the strict schemas of `kubernetes-validate`. Its own function would read them anew
    for every object."""
    newest = latest_version()
    group, _, number = version.rpartition("/")
    folder = f"kubernetes-json-schema/v{newest}-local-strict"
    name = "-".join(filter(None, (kind.lower(), group.partition(".")[0], number)))
    try:
        schema = schema_contents(f"{folder}/{name}.json", newest)
    except FileNotFoundError:
        return jsonschema.Draft202012Validator({"not": {}, "title": f"no such kind: {version} {kind}"})
    definitions = referencing.Resource.from_contents(schema_contents(f"{folder}/_definitions.json", newest))
    registry = definitions @ (referencing.Resource.from_contents(schema) @ referencing.Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry)


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, with no room for a field that it does not name."""
    closed = deepcopy(schema)
    for part in _objects(closed):
        if not part.get("x-kubernetes-preserve-unknown-fields"):
            part.setdefault("additionalProperties", False)
    return closed


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema of an object below that names its fields."""
    if isinstance(schema, list):
        for each in schema:
            yield from _objects(each)
    elif isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            yield schema
        for each in schema.values():
            yield from _objects(each)
