"""Cleaning: the named rules that turn a review as it was written into the text that is tokenized.

The names of the rules in force are recorded in the artefact's manifest, so that the worker cleans exactly as the
trainer did. A rule once published never changes its meaning; a better one gets a new name.
"""

import re
from collections.abc import Callable, Iterable

from worker.errors import ArtifactError

Rule = Callable[[str], str]

_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


def line_breaks(text: str) -> str:
    """HTML line breaks, which IMDB's texts hold raw, become spaces."""
    return _BREAK.sub(" ", text)


def ellipses(text: str) -> str:
    """`...` is dropped; a space stays, so that `well...no` does not become one word."""
    return text.replace("...", " ")


def escaped_quotes(text: str) -> str:
    r"""`\'` becomes `'`: left over where a CSV was escaped twice."""
    return text.replace("\\'", "'")


def newlines(text: str) -> str:
    """Newlines are dropped; a space stays between the words they parted."""
    return text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")


RULES: dict[str, Rule] = {
    "line-breaks": line_breaks,
    "ellipses": ellipses,
    "escaped-quotes": escaped_quotes,
    "newlines": newlines,
}

NOTEBOOK: tuple[str, ...] = ("ellipses", "escaped-quotes", "newlines", "line-breaks")
"""The original notebook's three rules, and the line breaks it left in: what training uses unless told otherwise."""


def cleaner(names: Iterable[str]) -> Rule:
    """One function that applies the named rules in their order.

    Raises:
        ArtifactError: a name is not known here, as with an artefact made by a newer release.
    """
    names = tuple(names)
    unknown = [name for name in names if name not in RULES]
    if unknown:
        known = ", ".join(RULES)
        raise ArtifactError(f"unknown cleaning rule {unknown[0]!r}; this release knows {known}")
    rules = [RULES[name] for name in names]

    def clean(text: str) -> str:
        for rule in rules:
            text = rule(text)
        return text

    return clean
