"""The cleaning rules, whose meaning is part of every published artefact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import ArtifactError
from worker.text import NOTEBOOK, RULES, cleaner


@pytest.mark.parametrize(
    ("rule", "text", "cleaned"),
    [
        ("line-breaks", "one<br /><br />two", "one  two"),
        ("line-breaks", "one<br>two<BR/>three<Br   />four", "one two three four"),
        ("line-breaks", "a <b>r</b> <brain> < br >", "a <b>r</b> <brain> < br >"),
        ("ellipses", "well...no", "well no"),
        ("ellipses", "well....", "well ."),
        ("ellipses", "3.5 of 10. Or so..", "3.5 of 10. Or so.."),
        ("escaped-quotes", r"it\'s \"fine\"", r"it's \"fine\""),
        ("escaped-quotes", r"a \ b \n", r"a \ b \n"),
        ("newlines", "one\ntwo\rthree\r\nfour", "one two three four"),
        ("newlines", "one\n\ntwo", "one  two"),
        ("newlines", r"one\ntwo", r"one\ntwo"),
    ],
)
def test_a_rule_once_published_keeps_its_meaning(rule: str, text: str, cleaned: str) -> None:
    assert RULES[rule](text) == cleaned


def test_the_published_rules_are_still_known() -> None:
    assert list(RULES) == ["line-breaks", "ellipses", "escaped-quotes", "newlines"]


def test_training_uses_the_notebooks_rules_and_the_line_breaks() -> None:
    assert cleaner(NOTEBOOK)("Well...\nit\\'s<br />fine") == "Well  it's fine"


def test_rules_are_applied_in_the_order_given() -> None:
    # The newlines rule makes the tag whole, or comes too late for it.
    text = "one<br\n/>two"

    assert cleaner(["newlines", "line-breaks"])(text) == "one two"
    assert cleaner(["ellipses", "line-breaks"])("one<br...>two") == cleaner(["ellipses"])("one<br >two").replace(
        "<br >", " "
    )


def test_no_rules_leave_the_text_alone() -> None:
    assert cleaner([])(" <br />...\n") == " <br />...\n"


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ArtifactError, match=r"'stemming'; this release knows line-breaks, ellipses"):
        cleaner(["newlines", "stemming"])


def test_the_names_may_come_from_an_iterator() -> None:
    """They are looked through twice: for unknown ones, and to be applied."""
    assert cleaner(iter(["newlines"]))("a\nb") == "a b"


@given(st.text())
def test_no_rule_makes_a_text_longer(text: str) -> None:
    for rule in RULES.values():
        assert len(rule(text)) <= len(text)
