"""Reports as Markdown and as HTML."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from trainer.document import Block, Code, Heading, Paragraph, Picture, Table, to_html, to_markdown, write_report

HOSTILE = "<script>alert(1)</script> | `rm` & *b* \\ [x](y) \n# no\n| heading $title"
SVG = "<svg xmlns='http://www.w3.org/2000/svg'><title>a</title></svg>"
BLOCKS: list[Block] = [
    Heading(1, HOSTILE),
    Paragraph(HOSTILE),
    Table((HOSTILE, "b"), [(HOSTILE, HOSTILE)]),
    Picture("curve", f'"{HOSTILE}', SVG),
    Code(["a | b", "c"]),
]


class Tags(HTMLParser):
    """Every opening tag with its attributes, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_that_is_shown_becomes_html() -> None:
    page = Tags()
    page.feed(to_html(BLOCKS))

    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count("<script>alert(1)</script>") == 6  # title, heading, paragraph and three cells
    image = next(attributes for tag, attributes in page.tags if tag == "img")
    assert image["alt"] == f'"{HOSTILE}'


def test_nothing_of_the_page_lies_elsewhere() -> None:
    page = Tags()
    page.feed(to_html(BLOCKS))

    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "@import" not in page.text
    assert "url(" not in page.text


def test_nothing_that_is_shown_becomes_markdown() -> None:
    lines = to_markdown(BLOCKS).splitlines()

    assert [line for line in lines if line.startswith("#")] == [lines[0]]
    rows = [line for line in lines if line.startswith("| ")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [3, 3, 3]
    assert not re.search(r"(?<!\\)<script", "\n".join(lines))
    assert lines[-4:] == ["```", "a | b", "c", "```"]


def test_a_report_is_its_markdown_its_pictures_and_one_page(tmp_path: Path) -> None:
    write_report(tmp_path, BLOCKS)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.svg", "report.html", "report.md"]
    assert "](curve.svg)" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert (tmp_path / "curve.svg").read_text(encoding="utf-8") == SVG


@pytest.mark.parametrize(("numbers", "rule"), [(True, "| --- | ---: |"), (False, "| --- | --- |")])
def test_figures_stand_to_the_right(numbers: bool, rule: str) -> None:
    assert rule in to_markdown([Table(("a", "b"), [("c", "1")], numbers)])
