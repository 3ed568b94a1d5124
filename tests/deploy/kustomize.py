"""Kustomize, as far as `deploy/kubernetes` uses it: kustomizations in, Kubernetes objects out.

Kustomize is one program in Go that few machines have, and the manifests are to be checked on all. What is not used here
is refused, so that nothing passes that Kustomize would take otherwise; where `kustomize` is installed, a test holds
this against it. One difference is meant: a generated ConfigMap has no hash in its name.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
Read = Callable[[Path], str]

NAME = "kustomization.yaml"
KINDS = {"Kustomization": "kustomize.config.k8s.io/v1beta1", "Component": "kustomize.config.k8s.io/v1alpha1"}
WITHOUT_NAMESPACE = frozenset({"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"})


class KustomizeError(Exception):
    """Kustomize would refuse it, or it is more of Kustomize than there is here."""


def render(folder: Path, read: Read = Path.read_text) -> list[Object]:
    """The objects that `kustomize build` prints for a folder.

    Args:
        folder: with a `kustomization.yaml`.
        read: gives the text of a file.

    Raises:
        KustomizeError: names the file.
    """
    return _build(folder.resolve(), read, [])


def documents(text: str) -> list[Object]:
    """The YAML documents of a file; empty ones are passed over."""
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]


def _build(folder: Path, read: Read, given: list[Object]) -> list[Object]:
    """`given` are the objects that a component changes; a kustomization begins with none."""
    file = folder / NAME
    (wanted,) = documents(read(file))
    known = {"apiVersion", "kind", "namespace", "labels", "resources", "components", "configMapGenerator", "images"}
    _only(file, wanted, known | {"patches"})
    if KINDS.get(wanted.get("kind", "")) != wanted.get("apiVersion"):
        raise KustomizeError(f"{file}: not a kind of Kustomize")
    if (wanted["kind"] == "Component") != bool(given):
        raise KustomizeError(f"{file}: a {wanted['kind']} in the place of the other kind")
    objects = [*given]
    for name in wanted.get("resources", ()):
        path = folder / name
        objects += documents(read(path)) if path.suffix else _build(path.resolve(), read, [])
    _refuse_doubles(file, objects)
    for name in wanted.get("components", ()):
        objects = _build((folder / name).resolve(), read, objects)
    for entry in wanted.get("configMapGenerator", ()):
        _generate(file, entry, objects, read)
    for entry in wanted.get("patches", ()):
        _patch(file, entry, objects, read)
    for entry in wanted.get("images", ()):
        _rename(file, entry, objects)
    for entry in wanted.get("labels", ()):
        _label(file, entry, objects)
    if "namespace" in wanted:
        for it in objects:
            if it["kind"] not in WITHOUT_NAMESPACE:
                it["metadata"]["namespace"] = wanted["namespace"]
    return objects


def _only(file: Path, entry: object, known: set[str]) -> None:
    if not isinstance(entry, dict) or not entry.keys() <= known:
        raise KustomizeError(f"{file}: {entry} has more than {', '.join(sorted(known))}")


def _identity(it: Object) -> tuple[str, str, str]:
    try:
        return it["apiVersion"], it["kind"], it["metadata"]["name"]
    except KeyError as error:
        raise KustomizeError(f"an object without {error}") from None


def _refuse_doubles(file: Path, objects: Iterable[Object]) -> None:
    seen = set()
    for it in objects:
        if _identity(it) in seen:
            raise KustomizeError(f"{file}: {_identity(it)} twice")
        seen.add(_identity(it))


# === ConfigMaps ===


def _generate(file: Path, entry: Object, objects: list[Object], read: Read) -> None:
    _only(file, entry, {"name", "behavior", "envs", "literals"})
    lines = [line for name in entry.get("envs", ()) for line in read(file.parent / name).splitlines()]
    data = dict(_pair(file, line) for line in lines if line.strip() and not line.startswith("#"))
    data |= dict(_pair(file, line) for line in entry.get("literals", ()))
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": entry["name"]}, "data": data}
    found = [it for it in objects if _identity(it) == _identity(made)]
    if bool(found) != (entry.get("behavior", "create") == "merge"):
        raise KustomizeError(f"{file}: {entry['name']} is there already, or nothing is there to merge with")
    if found:
        found[0]["data"] |= data
    else:
        objects.append(made)


def _pair(file: Path, line: str) -> tuple[str, str]:
    name, sign, value = line.partition("=")
    if not sign:
        raise KustomizeError(f"{file}: {line} is no NAME=VALUE")
    return name, value


# === Patches ===


def _patch(file: Path, entry: Object, objects: list[Object], read: Read) -> None:
    _only(file, entry, {"path", "patch", "target"})
    text = read(file.parent / entry["path"]) if "path" in entry else entry["patch"]
    if "target" not in entry:
        (part,) = documents(text)
        (found,) = _found(file, [it for it in objects if _identity(it) == _identity(part)])
        found |= merge(found, part)
        return
    target = entry["target"]
    _only(file, target, {"group", "version", "kind", "name"})
    wanted = (f"{target['group']}/{target['version']}", target["kind"], target["name"])
    (found,) = _found(file, [it for it in objects if _identity(it) == wanted])
    for step in yaml.load(text, yaml.CSafeLoader):
        _step(file, found, step)


def _found(file: Path, objects: list[Object]) -> list[Object]:
    if len(objects) != 1:
        raise KustomizeError(f"{file}: a patch for {len(objects)} objects")
    return objects


def merge(old: Any, new: Any) -> Any:
    """A strategic merge: objects by their fields, null removes; lists of named things by name, others as a whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        merged = {name: merge(old.get(name), value) for name, value in new.items() if value is not None}
        kept = {name: value for name, value in old.items() if name not in new}
        return kept | merged
    if isinstance(old, list) and isinstance(new, list) and all(isinstance(it, dict) and "name" in it for it in new):
        by_name = {it["name"]: it for it in new}
        kept = [merge(it, by_name.pop(it["name"])) if it["name"] in by_name else it for it in old]
        return [*kept, *by_name.values()]
    return deepcopy(new)


def _step(file: Path, target: Object, step: Object) -> None:
    """One operation of a JSON patch."""
    _only(file, step, {"op", "path", "value"})
    *way, last = step["path"].removeprefix("/").split("/")
    place: Any = target
    for name in way:
        place = place[name]
    if step["op"] == "add" and last == "-":
        place.append(step["value"])
    elif step["op"] == "remove" and last in place:
        del place[last]
    else:
        raise KustomizeError(f"{file}: {step['op']} {step['path']}")


# === Images and labels ===


def _rename(file: Path, entry: Object, objects: Iterable[Object]) -> None:
    _only(file, entry, {"name", "newName", "newTag"})
    renamed = False
    for container in (each for it in objects for each in containers(it)):
        name, _, tag = container["image"].partition(":")
        if name == entry["name"]:
            container["image"] = f"{entry.get('newName', name)}:{entry.get('newTag', tag)}"
            renamed = True
    if not renamed:
        raise KustomizeError(f"{file}: no container has the image {entry['name']}")


def containers(it: Object) -> list[Object]:
    """The containers of a Deployment, those of its start first; none of any other kind."""
    if it["kind"] != "Deployment":
        return []
    pod = it["spec"]["template"]["spec"]
    return [*pod.get("initContainers", ()), *pod["containers"]]


def _label(file: Path, entry: Object, objects: Iterable[Object]) -> None:
    _only(file, entry, {"pairs", "includeTemplates"})
    for it in objects:
        places = [it["metadata"]]
        if entry.get("includeTemplates") and it["kind"] == "Deployment":
            places.append(it["spec"]["template"]["metadata"])
        for place in places:
            place["labels"] = place.get("labels", {}) | entry["pairs"]
