"""Take the pictures of the page for the README and docs: drawn garments, the shipped model, a real browser.

    python -c "from dqecir import ComposedRetriever as R; \\
        R.from_pretrained().model.with_method('image_plus_text', {}).save_pretrained('RIVAL')"
    python -m benchmarks.page_pictures --rival plain=RIVAL    # or any other model

Writes docs/pictures/page-*.webp. Needs a Chromium (`make browser`).
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

from dqecir import ComposedRetriever
from dqecir.synthetic.garments import GARMENTS

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
ITEMS, SIDE, SEED = 1500, 320, 11
DESK = ViewportSize(width=1360, height=900)
PHONE = ViewportSize(width=390, height=800)
# Of these references the shop drawn here has several items that are what the texts ask for.
FLORAL, FLORAL_TEXT = "images/000974.jpg", "is blue and has short sleeves"
STRIPED, STRIPED_TEXT = "images/001416.jpg", "is green and has short sleeves"
TURNS = ("a red dress", "now in blue", "and striped")
LARGEST = 250_000
PATIENCE = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rival", metavar="NAME=MODEL", help="a second model, for the picture of a comparison"
    )
    options = parser.parse_args()
    expect.set_options(timeout=1000 * PATIENCE)
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        sys.exit("there is no Chromium; `make browser` installs one")
    with tempfile.TemporaryDirectory() as work, sync_playwright() as playwright:
        command = serving(Path(work), options.rival)
        service = subprocess.Popen(command)
        try:
            address = f"http://127.0.0.1:{command[-1]}"
            wait_for(f"{address}/readyz")
            browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
            take(browser, address, compared=options.rival is not None)
            browser.close()
        finally:
            service.terminate()
            service.wait()


def serving(work: Path, rival: str | None) -> list[str]:
    """Draw a shop, index it, and return the arguments for serving it; the port is the last."""
    shop = GARMENTS.write(work / "shop", items=ITEMS, seed=SEED, size=SIDE, quiet=True)
    ComposedRetriever.from_pretrained().build_index(shop, work / "index")
    command = [str(Path(sys.executable).with_name("dqecir")), "serve", "--index", str(work / "index")]
    if rival is not None:
        name, model = rival.split("=", 1)
        ComposedRetriever.from_pretrained(model).build_index(shop, work / "rival")
        command += ["--also", f"{name}={work / 'rival'}@{model}"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return [*command, "--port", str(free.getsockname()[1])]


def wait_for(address: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    sys.exit("the service did not get ready")


def take(browser: Browser, service: str, *, compared: bool) -> None:
    def desk(colours: Literal["dark", "light"] = "light") -> Page:
        return browser.new_context(viewport=DESK, reduced_motion="reduce", color_scheme=colours).new_page()

    page = desk()
    visit(page, service, FLORAL, [{"text": FLORAL_TEXT, "weights": {"colour": 1.6}}])
    keep(page, "page-desk")

    page = desk("dark")
    visit(page, service, FLORAL, [{"text": FLORAL_TEXT}])
    page.locator(".card").first.get_by_role("button", name="Find similar to").click()
    expect(page.locator("#crumbs li")).to_have_count(2)
    page.get_by_role("combobox", name="What should change?").fill("is sleeveless")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="“is sleeveless”")).to_be_visible()
    settled(page)
    page.locator(".card").nth(1).get_by_role("button", name="Why this").click()
    expect(page.locator("canvas")).to_have_count(2)
    keep(page, "page-dark")

    page = desk()
    page.goto(service)
    expect(page.locator(".wall li").first).to_be_visible()
    for text in TURNS:
        page.get_by_role("search").get_by_role("combobox").fill(text)
        page.keyboard.press("Enter")
        expect(page.locator("#crumbs li").last).to_have_text(text)
        settled(page)
    keep(page, "page-turns")

    page = browser.new_context(
        viewport=PHONE, is_mobile=True, has_touch=True, device_scale_factor=2, reduced_motion="reduce"
    ).new_page()
    visit(page, service, STRIPED, [{"text": STRIPED_TEXT}])
    keep(page, "page-phone")

    page = desk()
    page.goto(service)
    expect(page.locator(".wall li").first).to_be_visible()
    keep(page, "page-start")

    if compared:
        methods = json.load(urllib.request.urlopen(f"{service}/v1/about"))["methods"]
        visit(page, service, STRIPED, [{"text": STRIPED_TEXT, "against": methods[1]["name"]}])
        keep(page, "page-comparison")


def visit(page: Page, service: str, item: str, turns: list[dict[str, object]]) -> None:
    page.goto(f"{service}/#{urlencode({'item': item, 'turns': json.dumps(turns)})}")
    settled(page)
    # Once more, because the first request of a service takes longer, and the page says how long.
    page.reload()
    settled(page)


def settled(page: Page) -> None:
    expect(page.locator(".card:not(.skeleton)").first).to_be_visible()
    expect(page.locator(".grid[aria-busy]")).to_have_count(0)


def keep(page: Page, name: str) -> None:
    """Write a picture once all visible thumbnails are loaded; raise if the file is large."""
    # Asked again and again from here: the page's policy lets no script wait within it.
    loaded = "[...document.images].every(i => i.complete || i.getBoundingClientRect().top > innerHeight)"
    for _ in range(50):
        page.wait_for_timeout(200)
        if page.evaluate(loaded):
            break
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    target = PICTURES / f"{name}.webp"
    for quality in (88, 80, 70, 60):
        picture.save(target, quality=quality, method=6)
        if target.stat().st_size <= LARGEST:
            break
    print(target.name, target.stat().st_size)


if __name__ == "__main__":
    main()
