"""Typos: a file again and again, each time with one key misspelt. What then is refused nowhere would be a mistake that
nobody sees before it matters."""

import re
from collections.abc import Iterator

KEY = re.compile(r"(?P<before> *(?:- )*)(?P<key>[A-Za-z0-9_./-]+)(?P<after>[:=](?: .*|\S.*)?)")


def with_typos(text: str) -> Iterator[tuple[str, str]]:
    """For each key, by its line: the text in which that key alone is wrong.

    Args:
        text: YAML, whose keys stand at the beginnings of lines, or lines of NAME=VALUE. The keys of YAML within a text
            of several lines count too.
    """
    lines = text.split("\n")
    for number, line in enumerate(lines):
        found = KEY.fullmatch(line)
        if found:
            wrong = f"{found['before']}{found['key']}x{found['after']}"
            yield line.strip(), "\n".join([*lines[:number], wrong, *lines[number + 1 :]])
