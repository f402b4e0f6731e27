"""Steps that several tests of the page use."""

from __future__ import annotations

import json
from urllib.parse import urlencode

from playwright.sync_api import Locator, Page, expect

REFERENCE = "images/000010.jpg"


def address(service: str, item: str = REFERENCE, **turn) -> str:
    return f"{service}/#{urlencode({'item': item, 'turns': json.dumps([turn])})}"


def visit(page: Page, service: str, item: str = REFERENCE, **turn) -> None:
    """Open the page at a turn, and wait for its answers."""
    page.goto(address(service, item, **turn))
    settled(page)


def settled(page: Page) -> None:
    """Wait until the page shows the results of the last request."""
    expect(page.locator(".card:not(.skeleton)").first).to_be_visible()
    expect(page.locator(".grid[aria-busy]")).to_have_count(0)


def cards(page: Page, pane: int = 0) -> Locator:
    return page.locator(".pane").nth(pane).locator(".card")


def found(page: Page, pane: int = 0) -> list[str]:
    """Return the ids of the results, best first."""
    return cards(page, pane).evaluate_all("cards => cards.map(card => card.dataset.id)")


def field(page: Page) -> Locator:
    """Return the field for a text."""
    return page.get_by_role("search").get_by_role("combobox")


def ask(page: Page, text: str) -> None:
    field(page).fill(text)
    with page.expect_response("**/v1/search"):
        page.keyboard.press("Enter")
    settled(page)
