"""What tests of the page do again and again."""

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
    """Wait until what is shown is what was asked for last."""
    expect(page.locator(".card:not(.skeleton)").first).to_be_visible()
    expect(page.locator(".grid[aria-busy]")).to_have_count(0)


def cards(page: Page, pane: int = 0) -> Locator:
    return page.locator(".pane").nth(pane).locator(".card")


def found(page: Page, pane: int = 0) -> list[str]:
    """The ids of the answers, best first."""
    return cards(page, pane).evaluate_all("cards => cards.map(card => card.dataset.id)")


def field(page: Page) -> Locator:
    """Where a text is typed."""
    return page.get_by_role("search").get_by_role("combobox")


def ask(page: Page, text: str) -> None:
    field(page).fill(text)
    with page.expect_response("**/v1/search"):
        page.keyboard.press("Enter")
    settled(page)
