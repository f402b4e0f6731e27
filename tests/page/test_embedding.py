"""The search on a shop's own page: one tag, another origin, a public key."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.page.conftest import HOSTILE, TITLES, Service
from tests.page.visiting import REFERENCE

EXAMPLE = Path(__file__).parents[2] / "docs" / "embedding-example.html"
KEY = "public-key-0123456789"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *said: object) -> None:
        """Say nothing."""


@pytest.fixture
def shop_site(tmp_path) -> Iterator[tuple[Path, str]]:
    """Yield a folder of a shop's pages, and their origin."""
    folder = tmp_path / "site"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_tag_brings_the_search_onto_a_page_of_an_allowed_origin(
    open_page, shop_site, index, shop, table, violations, tmp_path
):
    folder, origin = shop_site
    (tmp_path / "keys").write_text(f"embed:{KEY} origin={origin}\n")
    service = Service(tmp_path / "log", "--index", index, "--keys", tmp_path / "keys")
    example = EXAMPLE.read_text().replace("https://search.shop.example", service.address)
    (folder / "index.html").write_text(example.replace("KEY-TO-EMBED", KEY))
    try:
        page = open_page(viewport={"width": 360, "height": 740})
        page.goto(origin)
        search = page.locator("#search > div")
        # Playwright's locators look into open shadow roots.
        page.get_by_label("Choose a picture").set_input_files(shop / REFERENCE)
        assert search.evaluate("host => host.shadowRoot !== null")
        results = search.get_by_role("listitem")
        expect(results).to_have_count(8)
        search.get_by_role("searchbox", name="What should change?").fill("is blue")
        page.keyboard.press("Enter")
        expect(search.get_by_role("status").first).to_have_text("8 products for “is blue”.")
        expect(search.get_by_role("status").last).to_have_text("Read as: color: blue.")
        link = results.first.get_by_role("link").last
        row = next(row for row in table.values() if row["title"] == link.inner_text())
        expect(link).to_have_attribute("href", row["link"])
        expect(link).to_have_attribute("rel", "noopener")
        expect(results.first.locator(".price")).to_have_text(f"€{row['price']}.00")
        expect(results.first.locator("img")).not_to_have_js_property("naturalWidth", 0)
        # The shop's colours reach in through five variables, and nothing reaches out.
        button = search.get_by_role("button", name="Search", exact=True)
        expect(button).to_have_css("background-color", "rgb(11, 107, 83)")
        frame = search.locator(".dqecir")
        expect(frame).to_have_css("background-color", "rgb(255, 255, 255)")
        expect(frame).to_have_css("color", "rgb(20, 33, 29)")
        expect(frame).to_have_css("border-radius", "4px")
        expect(search.get_by_role("searchbox")).to_have_css("border-color", "rgb(111, 131, 123)")
        expect(page.locator("h1")).to_have_css("font-family", re.compile("Georgia"))
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        results.first.get_by_role("button", name="Find similar to").click()
        expect(search.get_by_role("status").first).to_have_text("8 products for what looks alike.")
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]

        assert violations(page) == []

        # What had no effect is said, also of a text alone, and no old result stays beside an error.
        page.reload()
        box = search.get_by_role("searchbox", name="What should change?")
        box.fill("gren, qwerty")
        page.keyboard.press("Enter")
        expect(results).to_have_count(8)
        reading = search.locator(".reading")
        expect(reading).to_contain_text("“gren” was read as “green”. Without effect: qwerty.")
        box.fill("")
        page.keyboard.press("Enter")
        expect(search.get_by_role("alert")).not_to_be_empty()
        expect(results).to_have_count(0)
        expect(reading).to_be_empty()

        # A product's own page begins with what is similar to it; texts of the table stay texts.
        (folder / "product.html").write_text(
            example.replace("KEY-TO-EMBED", KEY).replace(
                'data-results="8"', f'data-item="{HOSTILE}" data-results="200"'
            )
        )
        page.goto(f"{origin}/product.html")
        expect(results.first).to_be_visible()
        assert results.count() > 100
        assert page.evaluate("window.hurt") is None
        assert TITLES[HOSTILE] not in search.inner_html()

        # One tag is enough, and the search follows it.
        (folder / "tag.html").write_text(
            f'<p>Before</p><script src="{service.address}/page/embed.js" data-key="{KEY}" data-language="de" '
            'data-target="_top" async></script><p>Behind</p>'
        )
        page.goto(f"{origin}/tag.html")
        tag = page.locator("script + div")
        tag.get_by_role("searchbox").fill("is blue")
        page.keyboard.press("Enter")
        expect(tag.get_by_role("status").first).to_have_text("12 Produkte für „is blue“.")
        expect(tag.get_by_role("link").first).to_have_attribute("target", "_top")

        # The same page at another origin gets nothing.
        page.goto(origin.replace("localhost", "127.0.0.1"))
        answer = page.evaluate(
            "([address, key]) => fetch(address, {headers: {Authorization: `Bearer ${key}`}})"
            ".then(() => 'read', () => 'refused')",
            [f"{service.address}/v1/about", KEY],
        )
        assert answer == "refused"
    finally:
        service.kill()
