"""A search from several pictures: each is added by a card, shown beside the first, and taken away."""

from __future__ import annotations

import re
from urllib.parse import unquote

from playwright.sync_api import expect

from tests.page.visiting import REFERENCE, ask, cards, found, settled, visit


def further(page):
    return page.get_by_role("group", name="Combined with").get_by_role("button")


def combine(page, place: int) -> dict:
    """Press "Combine" on a card, and return the request that the page sends."""
    with page.expect_response("**/v1/search") as answered:
        cards(page).nth(place).get_by_role("button", name="Combine with: ").click()
    settled(page)
    return answered.value.request.post_data_json


BESIDE = """
- figure:
  - 'img /Your start: Summer dress/'
  - 'button /Take away: Summer dress/'
- paragraph: You start from
- paragraph: /Summer dress/
- button "Why these?"
- group "Combined with":
  - text: Combined with
  - 'button /Take away: \\w+ \\w+ \\d+/'
  - 'button /Take away: \\w+ \\w+ \\d+/'
"""


def test_results_are_added_to_the_question_and_taken_away_by_keyboard(page, open_page, service):
    visit(page, service, text="is blue")
    alone, second = found(page), found(page)[1]
    expect(page.get_by_role("button", name="Take away")).to_have_count(0)
    asked = combine(page, 1)
    assert (asked["item"], asked["references"]) == (REFERENCE, [{"item": second}])
    expect(page.locator("#status")).to_have_text(
        "24 products for “is blue”, from 2 pictures. Read as: color: blue."
    )
    expect(page.get_by_role("combobox", name="What else should change?")).to_be_focused()
    assert second not in found(page) and found(page) != alone
    third = found(page)[0]
    assert combine(page, 0)["references"] == [{"item": second}, {"item": third}]
    three = found(page)
    expect(page.locator("#reference")).to_match_aria_snapshot(BESIDE)
    other = open_page()
    for shown in (other, page):
        shown.goto(page.url)
        shown.reload()
        settled(shown)
        assert found(shown) == three
        expect(shown.locator("#reference")).to_match_aria_snapshot(BESIDE)
    # The next turn is about all of them; back in the trail they are still there.
    with page.expect_request("**/v1/search") as request:
        ask(page, "has long sleeves")
    assert request.value.post_data_json["references"] == [{"item": second}, {"item": third}]
    page.get_by_role("button", name="Undo").click()
    settled(page)
    further(page).last.focus()
    with page.expect_response("**/v1/search") as answered:
        page.keyboard.press("Enter")
    settled(page)
    assert answered.value.request.post_data_json["references"] == [{"item": second}]
    expect(further(page)).to_be_focused()
    with page.expect_response("**/v1/search") as answered:
        page.locator("#drop-reference").press("Enter")  # the next one comes first
    settled(page)
    asked = answered.value.request.post_data_json
    assert (asked["item"], asked["references"], asked["text"]) == (second, [], "is blue")
    expect(page.get_by_role("button", name="Take away")).to_have_count(0)
    expect(page.get_by_role("combobox", name="What else should change?")).to_be_focused()
    page.go_back()
    settled(page)
    expect(further(page)).to_have_count(1)


def test_a_search_by_words_gets_a_picture_and_loses_it_again(page, service):
    page.goto(service)
    ask(page, "a blue dress")
    by_words, first = found(page), found(page)[0]
    asked = combine(page, 0)
    assert (asked["item"], asked["references"], asked["text"]) == (first, [], "a blue dress")
    expect(page.get_by_role("img", name="Your start: ")).to_be_visible()
    page.get_by_role("button", name="Take away: ").click()
    settled(page)
    expect(page.locator("#reference")).to_be_hidden()
    assert found(page) == by_words


def test_a_picture_of_ones_own_is_combined_and_taken_away(page, service, shop):
    page.goto(service)
    page.get_by_label("Choose a picture").set_input_files(shop / REFERENCE)
    settled(page)
    second = found(page)[3]
    with page.expect_response("**/v1/search"):
        cards(page).nth(3).get_by_role("button", name="Combine with: ").click()
    settled(page)
    expect(page.locator("#status")).to_have_text("24 products for what looks alike, from 2 pictures.")
    both = found(page)
    assert second not in both  # a reference is no result
    page.reload()
    settled(page)
    assert found(page) == both
    page.get_by_role("button", name="Take away: your own picture").click()
    settled(page)
    assert f"item={second}" in unquote(page.url) and "upload" not in page.url
    expect(page.get_by_text("Your own picture is not part of the link.")).to_have_count(0)


def test_no_more_pictures_are_combined_than_the_service_takes(page, service):
    def fewer(route):
        about = route.fetch().json()
        assert about["limits"]["references"] >= 2
        about["limits"]["references"] = 1
        route.fulfill(json=about)

    page.route("**/v1/about", fewer)
    with page.expect_request("**/v1/search") as request:
        visit(page, service, text="is blue", also=["images/000003.jpg", "images/000004.jpg"])
    assert request.value.post_data_json["references"] == [{"item": "images/000003.jpg"}]
    expect(further(page)).to_have_count(1)
    cards(page).first.get_by_role("button", name="Combine with: ").click()
    expect(page.get_by_role("alert")).to_have_text("At most 2 pictures can be combined. Take one away first.")
    further(page).click()
    expect(page.get_by_role("alert")).to_be_empty()


def test_a_german_browser_combines_in_german(open_page, service):
    page = open_page(locale="de", viewport={"width": 320, "height": 640})
    visit(page, service, text="is blue")
    cards(page).first.get_by_role("button", name="Dazu nehmen: ").click()
    expect(page.locator("#status")).to_have_text(
        re.compile("^24 Produkte für „is blue“, ausgehend von 2 Bildern.")
    )
    expect(page.get_by_role("group", name="Zusammen mit").get_by_role("button")).to_have_count(1)
