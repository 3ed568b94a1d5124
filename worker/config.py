"""Config: the settings in force, each with its value, where that came from, what is accepted and what it means.

Values are those that `worker.settings` arrives at; only the question of where they came from is answered here. A secret
is never shown, and the file that holds one is not read.
"""

import json
import math
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from worker.console import plain
from worker.settings import Section, Settings, load_settings, variable

MASK = "********"
TEMPLATE_COLUMNS = 100

Origin = Literal["flag", "environment", "file", "secret file", "default"]


@dataclass(frozen=True)
class Setting:
    """One setting as it is in force."""

    name: str
    """Dotted, as `--set` takes it: `kafka.group_id`."""
    value: Any
    """As JSON has it; None for none. A secret is a row of asterisks."""
    origin: Origin
    source: str | None
    """Which flag, variable or file it came from; None for a default."""
    changed: bool
    """It is not the default."""
    secret: bool
    """Its value is never shown."""
    default: Any
    variable: str
    accepted: str
    """Bounds or choices; empty where the type says all."""
    description: str

    @property
    def section(self) -> str:
        """`kafka` of `kafka.group_id`; empty at the top level."""
        return self.name.rpartition(".")[0]


def in_force(
    config: Path | None = None, flags: Mapping[str, Any] | None = None, named: Mapping[str, str] | None = None
) -> list[Setting]:
    """Every setting, those without a section first.

    Args:
        config: a TOML file.
        flags: nested values of the command line, as `load_settings` takes them.
        named: the flag that each of them came from, by the setting's dotted name.

    Raises:
        SettingsError: as `load_settings` does; an unknown variable is one of these.
    """
    settings = load_settings(config, flags)
    from_file = {} if config is None else tomllib.loads(config.read_text(encoding="utf-8"))
    found = []
    for name, field in _fields(Settings):
        value = _at(settings, name)
        origin, source = _origin(name, flags or {}, named or {}, from_file, config)
        changed = value != field.default
        shown = _shown(value)
        held_by = _at(settings, f"{name}_file") if _is_secret(field) else None
        if held_by is not None:
            shown, origin, source, changed = MASK, "secret file", str(held_by), True
        if origin == "default":
            shown = _derived(settings).get(name, shown)
        found.append(
            Setting(
                name=name,
                value=shown,
                origin=origin,
                source=source,
                changed=changed,
                secret=_is_secret(field),
                default=_shown(field.default),
                variable=variable(name),
                accepted=_accepted(field),
                description=" ".join((field.description or "").split()),
            )
        )
    return sorted(found, key=lambda it: bool(it.section))


def document(settings: Iterable[Setting]) -> dict[str, Any]:
    """The settings for a program, by their dotted names."""
    return {
        it.name: {
            "value": it.value,
            "origin": it.origin,
            "source": it.source,
            "default": it.default,
            "variable": it.variable,
            "accepted": it.accepted or None,
            "description": it.description,
        }
        for it in settings
    }


# === Where it came from ===


def _origin(
    name: str,
    flags: Mapping[str, Any],
    named: Mapping[str, str],
    from_file: Mapping[str, Any],
    config: Path | None,
) -> tuple[Origin, str | None]:
    """The first source that has it, in the order in which they count."""
    if _has(flags, name):
        return "flag", named.get(name)
    for given in os.environ:
        if given.upper() == variable(name):
            return "environment", given
    section, _, field = name.partition(".")
    for given, content in os.environ.items():
        # A section in one variable; that it is a JSON object was found out when the settings were loaded.
        if field and given.upper() == variable(section) and _has(json.loads(content), field):
            return "environment", given
    if _has(from_file, name):
        return "file", str(config)
    return "default", None


def _has(nested: Any, name: str) -> bool:
    for part in name.split("."):
        if not isinstance(nested, Mapping) or part not in nested:
            return False
        nested = nested[part]
    return True


# === What it is ===


def _fields(model: type[Settings | Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if _is_section(field):
            yield from _fields(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{name}", field


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, Section)


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr in get_args(field.annotation)


def _at(settings: Settings, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK
    return str(value) if isinstance(value, Path) else value


def _derived(settings: Settings) -> dict[str, Any]:
    """What stands in for a setting that nobody set."""
    return {
        "kafka.transactional_id": settings.transactional_id,
        "kafka.group_instance_id": settings.group_instance_id,
    }


def _accepted(field: FieldInfo) -> str:
    """`one of auto, tensorflow, jax`; `above 0, at most 30`; empty where there is nothing to say."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if get_origin(kind) is Literal:
            return f"one of {', '.join(get_args(kind))}"
    words = {Ge: ("at least", "ge"), Gt: ("above", "gt"), Le: ("at most", "le"), Lt: ("below", "lt")}
    said = []
    for rule in field.metadata:
        if type(rule) in words:
            word, attribute = words[type(rule)]
            said.append(f"{word} {getattr(rule, attribute):,}")
    return ", ".join(said)


# === For people ===


def table(settings: Iterable[Setting]) -> RenderableType:
    """The settings section by section; what is not a default is bold."""
    parts: list[RenderableType] = []
    rows: Table | None = None
    section = None
    for it in settings:
        if rows is None or it.section != section:
            section = it.section
            rows = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
            rows.add_column(no_wrap=True)
            rows.add_column(overflow="fold", ratio=1)
            parts += [Text(f"\n[{section}]" if section else "", style="bold cyan"), rows]
        rows.add_row(Text(it.name.rpartition(".")[2], style="bold" if it.changed else ""), _cell(it))
    return Group(*parts)


def _cell(it: Setting) -> Text:
    cell = Text()
    cell.append(plain(_for_people(it.value)), style="bold" if it.changed else "")
    cell.append(f"  ({plain(it.source or it.origin)})\n", style="dim")
    cell.append(
        f"{it.description} {it.accepted[:1].upper()}{it.accepted[1:]}." if it.accepted else it.description, style="dim"
    )
    return cell


def _for_people(value: Any) -> str:
    if value is None:
        return "none"
    return str(value) if isinstance(value, str) and value else json.dumps(value)


# === A file to begin with ===


def template(settings: Iterable[Setting]) -> str:
    """A TOML file of all settings, each with what it means: those that are not the default as they are, the others as
    comments. A secret is never in it."""
    about = {name: " ".join((field.annotation.__doc__ or "").split()) for name, field in Settings.model_fields.items()}
    lines = [
        *_comment("Settings of review-worker, for --config. A flag wins over a variable, that over this file."),
        "",
    ]
    section = ""
    for it in settings:
        if it.section != section:
            section = it.section
            lines += [f"[{section}]", *_comment(about[section]), ""]
        accepted = f" Accepted: {it.accepted}." if it.accepted else ""
        lines += _comment(f"{it.description}{accepted} ({it.variable})")
        chosen = it.changed and not it.secret
        value = it.value if chosen else it.default
        lines += [f"{'' if chosen else '# '}{it.name.rpartition('.')[2]} = {_toml(value)}", ""]
    return "\n".join(lines)


def _comment(text: str) -> list[str]:
    wrapped = fill(text, TEMPLATE_COLUMNS, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    return wrapped.splitlines()


def _toml(value: Any) -> str:
    """Text, numbers, true and false are written as JSON has them, but for two cases. TOML has no word for None."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return '""' if value is None else json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
