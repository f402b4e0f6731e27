"""The main states of the page, each as a function that brings a browser there."""

from __future__ import annotations

import json
from urllib.parse import urlencode

from playwright.sync_api import Page, expect

from tests.page.visiting import address, cards, field, settled, visit


def wall(page: Page, service: str) -> None:
    page.goto(service)
    expect(page.locator(".wall li").first).to_be_visible()


def text_alone(page: Page, service: str) -> None:
    wall(page, service)
    page.get_by_role("combobox", name="What are you looking for?").fill("a blue coat, for a wedding")
    page.keyboard.press("Enter")
    settled(page)


def results(page: Page, service: str) -> None:
    visit(page, service, text="is gren and below 40 euros", more=["images/000003.jpg"])
    cards(page).first.get_by_text("Details").click()
    cards(page).first.get_by_role("button", name="Why this").click()
    expect(page.locator("canvas")).to_have_count(2)


def several(page: Page, service: str) -> None:
    visit(page, service, text="is blue", also=["images/000003.jpg", "images/000004.jpg"])
    expect(page.get_by_role("group", name="Combined with").get_by_role("button")).to_have_count(2)


def turns(page: Page, service: str) -> None:
    said = [{"text": text} for text in ("a red dress", "now in blue", "and striped", "no, not that")]
    page.goto(f"{service}/#{urlencode({'turns': json.dumps(said)})}")
    settled(page)
    expect(page.locator("#crumbs s")).to_have_text(["red", "and striped"])


def suggestions(page: Page, service: str) -> None:
    visit(page, service)
    page.get_by_role("combobox", name="What should change?").press_sequentially("is bl")
    expect(page.get_by_role("listbox", name="Suggestions").get_by_role("option").first).to_be_visible()
    page.keyboard.press("ArrowDown")


def filters(page: Page, service: str) -> None:
    visit(page, service, filters={"color": {"values": ["red", "blue"]}, "price": {"least": 20}})
    page.evaluate("document.querySelectorAll('.panel details').forEach(fold => { fold.open = true; })")


def zoom(page: Page, service: str) -> None:
    visit(page, service, text="is blue")
    cards(page).first.get_by_role("button", name="Show larger").click()
    expect(page.get_by_role("dialog", name="Product")).to_be_visible()


def failure(page: Page, service: str) -> None:
    visit(page, service, text="is blue")
    page.route("**/v1/search", lambda route: route.fulfill(status=503, json={"detail": "No."}))
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_text("These are the results of your earlier search.")).to_be_visible()


def waiting(page: Page, service: str) -> None:
    visit(page, service, text="is blue")
    page.route("**/v1/search", lambda route: None)
    field(page).fill("is red")
    page.keyboard.press("Enter")
    expect(page.locator("#waiting")).to_contain_text("The service is slow.")


def unusable(page: Page, service: str) -> None:
    visit(page, service, text="is blue")
    letter = {"name": "letter.png", "mimeType": "image/png", "buffer": b"Dear shop, this is no picture."}
    page.get_by_label("Choose a picture").set_input_files(letter)
    expect(page.get_by_role("alert")).to_contain_text("This file cannot be used as a picture.")


def lost(page: Page, service: str) -> None:
    page.goto(f"{service}/#upload=ofanothertab")
    expect(page.get_by_role("alert")).to_contain_text("links do not contain such pictures")
    expect(page.locator(".wall li").first).to_be_visible()


def key(page: Page, service: str) -> None:
    page.route("**/v1/about", lambda route: route.fulfill(status=401, json={"detail": "No key."}))
    page.goto(service)
    expect(page.get_by_role("dialog", name="This service asks for a key")).to_be_visible()


def nothing(page: Page, service: str) -> None:
    page.goto(address(service, text="is blue", where="price > 1000"))
    expect(page.get_by_role("alert")).not_to_be_empty()


def comparison(page: Page, service: str) -> None:
    visit(page, service, text="is red", against="random")
    expect(cards(page, 1).first).to_be_visible()


STATES = [
    wall, text_alone, results, several, turns, suggestions, filters, zoom,
    failure, waiting, unusable, lost, key, nothing, comparison,
]  # fmt: skip
