"""A report as a list of blocks, and its two forms: Markdown with its pictures beside it, and one HTML page that holds
everything.

Every text is plain: what a CSV, a label or a review holds is escaped in both forms.
"""

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

PAGE = Path(__file__).with_name("report.html")
LONG = 40
"""Characters of a cell that is broken anywhere, and given room whatever the width of the window."""

SMALLEST = 0.6
"""Of its own size, to which a picture shrinks: below it nobody reads its words, and a narrow window scrolls instead."""

WIDTH = re.compile(r'<svg[^>]* width="([\d.]+)pt"')

MARKDOWN_SIGNS = re.compile(r"([\\`*_{}\[\]<>#|~&])")


@dataclass(frozen=True)
class Heading:
    """A heading; 1 is the title, of which there is one."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Some sentences."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells under their headers; the first column names its row, and the others are figures where `numbers`."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True


@dataclass(frozen=True)
class Picture:
    """An SVG.

    Attributes:
        name: of its file, without the ending.
        alt: what it shows, for those who do not see it.
        svg: the whole file.
    """

    name: str
    alt: str
    svg: str

    @property
    def file(self) -> str:
        """Its name beside the Markdown."""
        return f"{self.name}.svg"


@dataclass(frozen=True)
class Code:
    """Lines for a terminal."""

    lines: Sequence[str]


Block = Heading | Paragraph | Table | Picture | Code


def to_markdown(blocks: Sequence[Block]) -> str:
    """GitHub's Markdown."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {marked(text)}"
        case Paragraph(text):
            return marked(text)
        case Table(headers, rows, numbers):
            rule = ["---", *["---:" if numbers else "---"] * (len(headers) - 1)]
            lines = [[marked(cell) for cell in headers], rule, *([marked(cell) for cell in row] for row in rows)]
            return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        case Picture():
            return f"![{marked(block.alt)}]({block.file})"
        case Code(lines):
            return "\n".join(["```", *lines, "```"])


def marked(text: str) -> str:
    """Plain text in Markdown, on one line."""
    return MARKDOWN_SIGNS.sub(r"\\\1", " ".join(text.split()))


def to_html(blocks: Sequence[Block]) -> str:
    """One page without scripts and without a line of it elsewhere."""
    title = next(block.text for block in blocks if isinstance(block, Heading))
    body = "\n".join(line for block in blocks for line in _html(block))
    return Template(PAGE.read_text(encoding="utf-8")).substitute(title=escape(title), body=body)


def _html(block: Block) -> Iterator[str]:
    match block:
        case Heading(level, text):
            yield f"<h{level}>{escape(text)}</h{level}>"
        case Paragraph(text):
            yield f"<p>{escape(text)}</p>"
        case Table():
            yield from _html_table(block)
        case Picture():
            data = base64.b64encode(block.svg.encode()).decode()
            width = WIDTH.search(block.svg)
            least = f' style="min-width: {SMALLEST * float(width[1]):.0f}pt"' if width else ""
            yield f'<figure><img alt="{escape(block.alt)}"{least} src="data:image/svg+xml;base64,{data}"></figure>'
        case Code(lines):
            yield f"<pre><code>{escape(chr(10).join(lines))}</code></pre>"


def _html_table(table: Table) -> Iterator[str]:
    kind = "figures" if table.numbers else "words"
    yield f'<div class="table"><table class="{kind}">'
    headers = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.headers)
    yield f"<thead><tr>{headers}</tr></thead><tbody>"
    for first, *others in table.rows:
        cells = "".join(f"<td{' class=long' * (len(cell) > LONG)}>{escape(cell)}</td>" for cell in others)
        yield f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
    yield "</tbody></table></div>"


def write_report(folder: Path, blocks: Sequence[Block]) -> None:
    """`report.md`, its pictures, and `report.html`, into an existing folder.

    Raises:
        OSError: it cannot be written.
    """
    for block in blocks:
        if isinstance(block, Picture):
            (folder / block.file).write_text(block.svg, encoding="utf-8")
    (folder / "report.md").write_text(to_markdown(blocks), encoding="utf-8")
    (folder / "report.html").write_text(to_html(blocks), encoding="utf-8")
