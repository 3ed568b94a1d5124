"""The page of a report, as a browser shows it."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from browser.pieces import Tab, opened
from toy import toy_rows, write_csv

WIDTHS, SCHEMES = [400, 1280], ["light", "dark"]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A real browser; without one this fails, and names the package."""
    with opened(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def evaluated(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it: mistakes, texts, and a label that a browser must not obey."""
    from trainer.cuts import parse_cuts
    from trainer.evaluate import count, read_csv, score
    from trainer.held import Held
    from trainer.labels import labels_of
    from trainer.progress import Reporter
    from trainer.report import evaluation_report
    from trainer.scoring import open_model

    folder = tmp_path_factory.mktemp("evaluated")
    rows = [(f"{text} <script>document.title = 'obeyed'</script>", label) for text, label in toy_rows(60, 8)]
    wrong = [(text, "neg") for text, label in toy_rows(10, 9) if label == "pos"]
    csv = write_csv(folder / "reviews.csv", [*rows, *wrong])
    names = ("negative", "positive")
    held = Held(read_csv(csv, labels_of(names), names, Reporter()), csv.name, None)
    with open_model(exported, "auto", "auto") as model:
        views = parse_cuts("head,windows", model.artifact.manifest.cut)
        scores = score(model, held.data, Reporter(), views)
        found = count(model, held.data, scores, views)
        evaluation_report(
            folder / "report",
            model.artifact,
            held,
            scores,
            found,
            {"--cuts": "head,windows"},
            with_texts=True,
            force=False,
        )
    return folder / "report" / "report.html"


@pytest.fixture(params=["evaluation", "export"])
def address(request: pytest.FixtureRequest, evaluated: Path, exported: Path) -> str:
    """Of each of the two."""
    path = evaluated if request.param == "evaluation" else exported / "report" / "report.html"
    return path.as_uri()


def test_the_page_is_whole_and_in_order_and_asks_for_nothing(tab: Tab, address: str) -> None:
    tab.open(address)
    images = tab.run("return [...document.images].map(i => [i.complete && i.naturalWidth > 100, i.alt])")
    assert len(images) >= 5
    assert all(shown for shown, _ in images)
    assert all(len(words) > 20 for _, words in images)
    levels = tab.run("return [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert tab.driver.title.startswith("Report on toy"), "a label or text is no script"
    assert tab.complaints == []
    asked = {url.partition(":")[0] for url in tab.requests}
    assert "file" in asked
    assert asked <= {"file", "data"}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_page_fits_its_window_and_can_be_read(tab: Tab, address: str, width: int, scheme: str) -> None:
    """7 to 1 is what the Web Content Accessibility Guidelines ask of the most readable text."""
    tab.open(address, width=width, prefers_color_scheme=scheme)
    wide, window = tab.run("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= window == width
    assert all(tab.run("return [...document.images].map(i => i.width > 100)"))
    script = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    ink, paper = (luminance(color) for color in tab.run(script))
    assert (paper < 0.1) is (scheme == "dark")
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7


def luminance(color: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, 0 to 1."""
    parts = [int(part) / 255 for part in color.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
