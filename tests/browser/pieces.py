"""What the tests of the page need: a browser that is gone afterwards, workers with opinions, and reviews that flow."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from contract import pieces
from contract.pieces import StubWorker, review, started_stubs, wait_for
from running import Stage

STUB = Path(__file__).parent / "stub_worker.py"
LABELS = ["negative", '<img src="x" onerror="window.hacked = 1">', "positive"]
PATIENCE_SECONDS = 60


def tool(name: str) -> str:
    """The path of Debian's `chromium` or `chromedriver`. Without them nothing here can be tested, so that it fails."""
    path = shutil.which(name)
    assert path, f"{name} is not installed; apt-get install chromium chromium-driver"
    return path


@dataclass(frozen=True)
class Tab:
    """What a person sees, and what the browser did for it."""

    driver: Chrome

    def open(self, url: str, width: int = 1280, height: int = 900, **media: str) -> None:
        """A page as it is on such a screen, with media features such as `prefers_color_scheme="dark"`; forgets what
        was logged before."""
        self.driver.get("about:blank")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(url)

    def text(self, name: str) -> str:
        """What is to be read in the element of this id."""
        return str(self.driver.find_element(By.ID, name).text)

    def attribute(self, name: str, attribute: str) -> str:
        """Of the element of this id."""
        return self.driver.find_element(By.ID, name).get_attribute(attribute) or ""

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns that runs as the page's own would."""
        return self.driver.execute_script(script, *arguments)

    def shows(self, name: str, text: str) -> None:
        """Wait until the element of this id has the text in it."""
        wait_for(lambda: text in self.text(name), f"{name} shows {text}", PATIENCE_SECONDS)

    def rows(self, name: str) -> list[list[str]]:
        """The cells of a table's body, taken at one moment."""
        script = "return [...document.getElementById(arguments[0]).rows].map(r => [...r.cells].map(c => c.textContent))"
        found: list[list[str]] = self.run(script, name)
        return found

    def press(self, key: str) -> None:
        """A key of the keyboard, where the focus is."""
        self.driver.switch_to.active_element.send_keys(key)

    @property
    def focused(self) -> str:
        """The name that a screen reader says of the element that has the focus; empty when that is none."""
        element = self.driver.switch_to.active_element
        return "" if element.tag_name == "body" else str(element.accessible_name)

    @property
    def complaints(self) -> list[str]:
        """What stands in the console since the page was opened."""
        return [line["message"] for line in self.driver.get_log("browser")]

    @property
    def requests(self) -> list[str]:
        """Every address that was asked for since."""
        events = [json.loads(line["message"])["message"] for line in self.driver.get_log("performance")]
        return [it["params"]["request"]["url"] for it in events if it["method"] == "Network.requestWillBeSent"]


@contextmanager
def opened(profile: Path) -> Iterator[Tab]:
    """Debian's Chromium without a window; gone afterwards."""
    options = ChromeOptions()
    options.binary_location = tool("chromium")
    # A container's root has no sandbox, and often next to no /dev/shm.
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With its path given, selenium looks for no driver elsewhere.
    driver = Chrome(options=options, service=ChromeService(tool("chromedriver")))
    try:
        yield Tab(driver)
    finally:
        driver.quit()


@contextmanager
def started_workers(stage: Stage, model: Path, folder: Path) -> Iterator[Callable[..., StubWorker]]:
    """Starts workers whose engine gives different labels, `start("name", WORKER_…=…)`; all are gone afterwards."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pieces, "STUB", STUB)
        with started_stubs(stage, model, folder) as start:
            yield start


def mixed(number: int) -> list[bytes]:
    """Eighteen reviews of different lengths, and two records that are none."""
    reviews = (review(number + one, "great movie " * (1 + one % 8)) for one in range(18))
    return [*reviews, b"no review", b'{"review_id": "1"}']


def flowing(stage: Stage) -> AbstractContextManager[None]:
    """Twice a second some of them."""
    return pieces.flowing(stage, mixed, 0.5)


def metric(worker: StubWorker, name: str) -> float:
    """The sum of a metric's series, as `/metrics` has it now."""
    lines = worker.get("/metrics")[1].splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0].partition(" ")[0] == name)


TAB = Keys.TAB
LEFT = Keys.ARROW_LEFT
