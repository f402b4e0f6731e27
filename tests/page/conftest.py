"""One service on a drawn shop with the shipped model, and one Chromium, for all tests of the page."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from dqecir import ComposedRetriever
from dqecir.data.payload_fields import SOLD_OUT
from dqecir.data.picture_root import read_root, write_root
from dqecir.index.contract import ItemBatch
from dqecir.index.engines import open_index
from dqecir.synthetic.garments import GARMENTS
from tests.conftest import PATIENCE
from tests.page.visiting import REFERENCE

SCREENSHOTS = Path(__file__).parent / "screenshots"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
ITEMS = 160
HOSTILE = "images/000020.jpg"
UNLINKED = "images/000021.jpg"
TITLES = {HOSTILE: "<img src=x onerror='window.hurt = 1'><b>Bold</b>", REFERENCE: "Summer dress " * 30}
ADDRESSES = {HOSTILE: "javascript:window.hurt=1", UNLINKED: "/products/21"}

expect.set_options(timeout=1000 * PATIENCE)


class Service:
    """A process that runs `dqecir serve`."""

    def __init__(self, log: Path, *arguments: str | Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.log = log
        command = [str(Path(sys.executable).with_name("dqecir")), "serve", "--port", str(port)]
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [*command, *map(str, arguments)],
                stdout=out,
                stderr=out,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.address}/readyz", timeout=2).close()
                if self._answers():
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        self.kill()
        pytest.fail(f"the service did not get ready:\n{self.log.read_text()}")

    def _answers(self) -> bool:
        """Return whether a search is answered in time: on a busy machine the first one may not be."""
        request = urllib.request.Request(
            f"{self.address}/v1/search", b'{"text": "is red"}', {"Content-Type": "application/json"}
        )
        try:
            urllib.request.urlopen(request).close()
        except urllib.error.HTTPError as error:
            return error.code != HTTPStatus.GATEWAY_TIMEOUT
        return True

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="session")
def shop(tmp_path_factory) -> Path:
    """Return drawn garments as a shop lists them: with a title, an address and a price."""
    folder = tmp_path_factory.mktemp("page") / "shop"
    GARMENTS.write(folder, items=ITEMS, seed=5, size=96, arrangement="independent", quiet=True)
    table = folder / "attributes.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *as_sold(rows[0], 0)])
        writer.writeheader()
        writer.writerows({**row, **as_sold(row, place)} for place, row in enumerate(rows))
    return folder


def as_sold(row: dict[str, str], place: int) -> dict[str, str]:
    """Return the columns of a garment that its picture does not show."""
    return {
        "title": TITLES.get(row["image"], f"{row['color']} {row['garment']} {place}"),
        "link": ADDRESSES.get(row["image"], f"https://shop.example/products/{place}"),
        "sku": f"A-{place:04}",
        "price": str(10 + place % 50),
        "currency": "EUR",
    }


@pytest.fixture(scope="session")
def table(shop) -> dict[str, dict[str, str]]:
    """Return id -> row of the table."""
    with (shop / "attributes.csv").open(newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="session")
def index(shop, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page-index") / "index"
    ComposedRetriever.from_pretrained().build_index(shop, folder, quiet=True)
    return folder


@pytest.fixture(scope="session")
def service(shop, index, model_folder, tmp_path_factory) -> Iterator[str]:
    """Yield the address of a service with two methods: the shipped model, and a small random one."""
    work = tmp_path_factory.mktemp("page-service")
    ComposedRetriever.from_pretrained(model_folder).build_index(shop, work / "other", quiet=True)
    running = Service(
        work / "log", "--index", index, "--also", f"random={work / 'other'}@{model_folder}", "--expert"
    )
    yield running.address
    running.kill()


@pytest.fixture(scope="session")
def shop_page(index, tmp_path_factory) -> Iterator[str]:
    """Yield the address of a service as a shop starts it, without the views for experts."""
    running = Service(tmp_path_factory.mktemp("page-shop") / "log", "--index", index)
    yield running.address
    running.kill()


@pytest.fixture
def guarded(index, tmp_path) -> Iterator[Service]:
    """Yield a separate service that needs a key."""
    keys = tmp_path / "keys"
    keys.write_text("read:open-the-shop-please\n")
    running = Service(tmp_path / "log", "--index", index, "--keys", keys)
    yield running
    running.kill()


@pytest.fixture
def with_sold_out(index, tmp_path) -> Iterator[Service]:
    """Yield a separate service in which every tenth product except the reference is sold out."""
    shutil.copytree(index, tmp_path / "index")
    opened = open_index(tmp_path / "index")
    ids = [item for item in opened.ids() if item.endswith("0.jpg") and item != REFERENCE]
    root = read_root(index)
    payloads = [{**payload, SOLD_OUT: True} for payload in opened.payloads(ids).values()]
    opened.add(ItemBatch(list(opened.payloads(ids)), opened.tokens(ids), payloads))
    write_root(tmp_path / "index", root)
    running = Service(tmp_path / "log", "--index", tmp_path / "index")
    yield running
    running.kill()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(CHROMIUM)} is installed (`make browser` installs one)")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser, request) -> Iterator[Callable[..., Page]]:
    """Return a function that opens a page in a new context; keep a picture at the end; no script may fail."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def opened(**settings) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 850}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda message: (
                faults.append(message.text) if "Content Security Policy" in message.text else None
            ),
        )
        return page

    yield opened
    SCREENSHOTS.mkdir(exist_ok=True)
    for place, context in enumerate(contexts):
        for page in context.pages:
            page.screenshot(animations="disabled", path=SCREENSHOTS / f"{request.node.name}-{place}.png")
        context.close()
    assert not faults


@pytest.fixture
def page(open_page) -> Page:
    return open_page()


@pytest.fixture(scope="session")
def violations() -> Callable[[Page], list[str]]:
    """Return a function that returns what axe-core finds on a page as it is shown."""
    if not AXE.is_file():
        pytest.skip("no axe-core: `make page` installs it in node_modules")
    axe = AXE.read_text(encoding="utf-8")

    def found(page: Page) -> list[str]:
        page.evaluate(axe)
        return page.evaluate(
            """async (values) => {
              const { violations } = await axe.run({ runOnly: values, preload: false });
              return violations.flatMap(({ id, nodes }) => nodes.map(
                (node) => `${id}: ${node.html.slice(0, 200)}: ${node.failureSummary}`));
            }""",
            RULES,
        )

    return found
