"""The page of a report, as a browser shows it."""

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from toy import toy_rows, write_csv

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("seaborn", reason="seaborn is not installed: it is in the extra `report`")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = tmp_path_factory.mktemp("profile")
    # As root there is no sandbox, and containers give /dev/shm little room.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.set_page_load_timeout(120)
    yield driver
    driver.quit()


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
def page(request: pytest.FixtureRequest, browser: Any, evaluated: Path, exported: Path) -> Any:
    """Each of the two, opened."""
    browser.get_log("browser"), browser.get_log("performance")
    path = evaluated if request.param == "evaluation" else exported / "report" / "report.html"
    browser.get(path.as_uri())
    return browser


def test_every_picture_loads_and_has_words(page: Any) -> None:
    images = page.execute_script(
        "return [...document.images].map(i => [i.complete && i.naturalWidth > 100 && i.width > 100, i.alt])"
    )
    assert len(images) >= 5
    assert all(shown for shown, _ in images)
    assert all(len(words) > 20 for _, words in images)


def test_the_console_says_nothing(page: Any) -> None:
    assert page.get_log("browser") == []
    assert page.title.startswith("Report on toy")


def test_headings_are_in_order(page: Any) -> None:
    levels = page.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_nothing_is_asked_of_the_network(page: Any) -> None:
    import json

    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = {
        message["params"]["request"]["url"].partition(":")[0]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert asked <= {"file", "data"}
    assert "file" in asked


@pytest.mark.parametrize("width", [400, 1200])
def test_the_page_is_never_wider_than_its_window(page: Any, width: int) -> None:
    page.set_window_size(width, 900)

    wide, window = page.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= window


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_modes(page: Any, scheme: str) -> None:
    """7 to 1 is what the Web Content Accessibility Guidelines ask of the most readable text."""
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    script = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    ink, paper = (luminance(color) for color in page.execute_script(script))
    assert (paper < 0.1) is (scheme == "dark")
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7


def luminance(color: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, 0 to 1."""
    parts = [int(part) / 255 for part in color.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
