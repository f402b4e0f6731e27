"""A search of several turns: each keeps earlier requests, and the trail shows and undoes them."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.page.visiting import REFERENCE, ask, cards, field, found, settled, visit


def crumbs(page):
    return page.get_by_role("navigation", name="Trail of your search").locator("li")


def chips(page):
    return page.get_by_role("list", name="How your words were read").get_by_role("listitem")


TAKEN_BACK = """
- list:
  - listitem:
    - 'button "Turn 1: a red dress"'
  - listitem:
    - 'button "Turn 2: now in blue. No longer counts: now in blue"'
  - listitem:
    - 'button "Turn 3: no, not that. Change these words"'
"""


def understood(page) -> set[str]:
    return set(chips(page).all_text_contents())


def test_a_turn_keeps_what_earlier_ones_asked_and_is_taken_back(page, open_page, service, table):
    page.goto(service)
    ask(page, "a red dress")
    expect(page.get_by_role("combobox", name="What else?")).to_have_value("")
    ask(page, "now in blue")
    expect(crumbs(page)).to_have_text(["a red dress", "now in blue"])
    expect(page.get_by_role("heading", name="“dress, in blue”")).to_be_visible()
    expect(crumbs(page).locator("s")).to_have_text(["red"])
    expect(page.locator("#status")).to_have_text(
        "24 products for “dress, in blue”. Read as: color: blue, garment: dress."
    )
    assert understood(page) == {"garment: dress", "color: blue"}
    assert {(table[item]["garment"], table[item]["color"]) for item in found(page)[:3]} == {("dress", "blue")}
    blue = found(page)
    ask(page, "no, not that")
    expect(crumbs(page)).to_have_count(3)
    assert understood(page) == {"garment: dress", "color: red"}
    expect(crumbs(page).locator("s")).to_have_text(["now in blue"])
    expect(page.get_by_role("navigation", name="Trail of your search")).to_match_aria_snapshot(TAKEN_BACK)
    # The address keeps all turns.
    other = open_page()
    other.goto(page.url)
    settled(other)
    expect(crumbs(other)).to_have_count(3)
    assert found(other) == found(page)
    expect(other.get_by_role("navigation", name="Trail of your search")).to_match_aria_snapshot(TAKEN_BACK)
    page.get_by_role("button", name="Undo").click()
    expect(crumbs(page)).to_have_count(2)
    settled(page)
    assert found(page) == blue
    expect(crumbs(page).locator("s")).to_have_text(["red"])
    chips(page).get_by_role("button", name="color: blue").click()
    expect(crumbs(page)).to_have_text(["dress"])
    settled(page)
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("list", name="Products to start from")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="“dress”")).to_be_visible()


def test_the_words_of_the_present_turn_can_be_changed(page, service):
    visit(page, service)
    ask(page, "has long sleeves")
    with page.expect_request("**/v1/search") as asked:
        ask(page, "is gren")
    assert asked.value.post_data_json["earlier"] == ["has long sleeves"]
    crumbs(page).last.get_by_role("button", name="Change these words").click()
    expect(field(page)).to_be_focused()
    expect(field(page)).to_have_value("is gren")
    with page.expect_request("**/v1/search") as asked:
        ask(page, "is blue")
    assert (asked.value.post_data_json["earlier"], asked.value.post_data_json["text"]) == (
        ["has long sleeves"],
        "is blue",
    )
    expect(crumbs(page)).to_have_text(["has long sleeves", "is blue"])
    # Without words the turn asks for what those before it do.
    crumbs(page).last.get_by_role("button").click()
    ask(page, "")
    expect(page.get_by_role("heading", name="long sleeves”")).to_be_visible()
    crumbs(page).first.get_by_role("button").click()
    expect(crumbs(page)).to_have_text(["has long sleeves"])


def test_a_result_that_is_picked_begins_anew_with_words_that_were_not_sent(page, service):
    visit(page, service, text="is blue")
    field(page).fill("has long sleeves")
    with page.expect_request("**/v1/search") as asked:
        cards(page).nth(2).get_by_role("button", name="Find similar to").click()
    assert (asked.value.post_data_json["earlier"], asked.value.post_data_json["text"]) == (
        [],
        "has long sleeves",
    )
    expect(crumbs(page)).to_have_text(["is blue", "has long sleeves"])
    settled(page)
    # One picture for all turns about it.
    ask(page, "now in red")
    expect(crumbs(page).locator("img")).to_have_count(2)


def test_turns_that_leave_nothing_are_refused_and_undone(page, service):
    page.goto(service)
    ask(page, "a red dress")
    before = found(page)
    field(page).fill("start over")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("say what to search for")
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("alert")).to_be_empty()
    settled(page)
    assert found(page) == before


def test_what_nothing_has_and_what_decided_are_said(page, open_page, service):
    page.goto(service)
    ask(page, "a beige dress")
    note = page.locator("#reading-note")
    expect(note).to_contain_text("No product here has color: beige. What comes closest is shown.")
    expect(note).to_contain_text("Found without a picture, by the properties that you named.")
    german = open_page(locale="de")
    german.goto(page.url)
    settled(german)
    expect(german.locator("#reading-note")).to_have_text(
        "Kein Produkt hier hat color: beige. Gezeigt wird, was dem am nächsten kommt. "
        "Ohne Bild gefunden, nach den genannten Eigenschaften."
    )
    page.goto(f"{service}/#turns=%5B%7B%22text%22%3A%22asdf%20qwerty%22%7D%5D")
    expect(note).to_have_text(re.compile("the products are in no special order"))
    visit(page, service, REFERENCE, text="is blue")
    expect(note).to_be_empty()


def test_words_are_taken_out_of_a_text_whole(page, service):
    page.goto(service)
    ask(page, "blue satin")
    chips(page).get_by_role("button", name="color: blue").click()
    expect(crumbs(page)).to_have_text(["satin"])
