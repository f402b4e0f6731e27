"""Searches on the page, in a real browser with the real service."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from playwright.sync_api import expect

from tests.page.visiting import REFERENCE, address, ask, cards, field, found, settled, visit

HERE = Path(__file__).parent


def read(page):
    """Return the chips that show how the text was read."""
    return page.get_by_role("list", name="How your words were read").get_by_role("listitem")


def test_the_wall_leads_to_what_looks_alike(page, service):
    page.goto(service)
    tiles = page.get_by_role("list", name="Products to start from").get_by_role("button")
    expect(tiles.first).to_be_visible()
    shown = "() => [...document.querySelectorAll('.wall button')].map((tile) => tile.ariaLabel).join()"
    before = page.evaluate(shown)
    page.get_by_role("button", name="Other products").click()
    # One tile may stay by chance, and not all of them.
    page.wait_for_function(f"(before) => ({shown})() !== before && ({shown})() !== ''", arg=before)
    tiles.nth(2).click()
    settled(page)
    expect(page.get_by_role("heading", name="Looks alike")).to_be_visible()
    expect(cards(page)).to_have_count(24)


def test_words_lead_to_what_was_asked_for(page, service, table):
    visit(page, service)
    alike = [table[item]["color"] for item in found(page)]
    ask(page, "is blue")
    expect(page.get_by_role("heading", name="“is blue”")).to_be_visible()
    expect(read(page)).to_have_text(["color: blue"])
    asked = [table[item]["color"] for item in found(page)]
    assert asked.count("blue") > alike.count("blue")
    first = cards(page).first
    assert re.fullmatch(r"score −?\d+\.\d\d", first.locator(".score").text_content())
    expect(first.locator(".spoke > span").first).to_have_text(re.compile(r"color \d+ %"))
    assert first.locator(".bar span").count() >= 1


def test_words_alone_are_a_search(page, service, table):
    page.goto(service)
    page.get_by_role("combobox", name="What are you looking for?").fill("blue")
    page.keyboard.press("Enter")
    settled(page)
    expect(page.get_by_role("heading", name="“blue”")).to_be_visible()
    expect(page.locator("#reference")).to_be_hidden()
    expect(read(page)).to_have_text(["color: blue"])
    assert {table[item]["color"] for item in found(page)[:5]} == {"blue"}
    cards(page).first.get_by_role("button", name="Why this").click()
    expect(cards(page).first.locator(".reason")).not_to_be_empty()
    page.reload()
    settled(page)
    expect(page.get_by_role("heading", name="“blue”")).to_be_visible()
    cards(page).first.get_by_role("button", name="Similar").click()
    settled(page)
    expect(page.locator("#reference")).to_be_visible()
    expect(page.get_by_role("combobox", name="What should change?")).to_have_value("")


def test_words_about_a_price_filter_and_say_so(page, service, table, shop):
    visit(page, service)
    own = int(table[REFERENCE]["price"])
    page.get_by_role("combobox", name="What should change?").fill("is blue and chea")
    expect(page.locator("#suggestions [role=option]")).to_have_text(["is blue and is cheaper"])
    ask(page, "is blue and is cheaper")
    expect(read(page)).to_have_text(["color: blue", f"price < {own}"])
    assert {int(table[item]["price"]) < own for item in found(page)} == {True}
    page.get_by_label("Choose a picture").set_input_files(shop / REFERENCE)
    settled(page)
    ask(page, "is blue and is cheaper")
    expect(read(page).nth(1)).to_have_text("price: unknown for this picture, so not filtered")
    field(page).fill("is blue and below 1 euro")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("No picture fulfils price < 1, as your words request.")


def test_what_is_asked_while_a_picture_is_read_is_asked_of_it(page, service, shop):
    visit(page, service)
    page.evaluate(
        """() => { const made = createImageBitmap.bind(window);
                   window.createImageBitmap = (file) =>
                     new Promise((done) => { window.letIn = () => done(made(file)); }); }"""
    )
    page.get_by_label("Choose a picture").set_input_files(shop / REFERENCE)
    page.wait_for_function("() => 'letIn' in window")
    field(page).fill("is blue")
    page.keyboard.press("Enter")
    with page.expect_response("**/v1/search"):
        page.evaluate("letIn()")
    settled(page)
    expect(page.locator("#reference")).to_contain_text("your own picture")
    expect(read(page)).to_have_text(["color: blue"])


def test_what_was_understood_is_taken_back_by_a_click(page, service, table):
    visit(page, service)
    ask(page, "is blue and below 30 euros, for a wedding")
    expect(read(page)).to_have_text(["color: blue", "price < 30", re.compile(r"^wedding\s+had no effect$")])
    unread = read(page).nth(2)
    expect(unread.get_by_role("button")).to_have_count(0)
    read(page).get_by_role("button", name="price < 30, read from “below 30 euros”: take it back").click()
    settled(page)
    expect(page.get_by_role("heading", name="“is blue and for a wedding”")).to_be_visible()
    expect(read(page).first).to_have_text("color: blue")
    read(page).get_by_role("button", name="color: blue, read from “blue”: take it back").click()
    settled(page)
    expect(
        page.get_by_text("Your words were not understood, so these results look like your picture.")
    ).to_be_visible()


def test_a_slip_can_be_put_right(page, service):
    visit(page, service)
    ask(page, "is gren")
    expect(read(page).first).to_have_text("color: green")
    read(page).get_by_role("button", name="Did you mean “green”? “gren” was read this way").click()
    settled(page)
    expect(page.get_by_role("heading", name="“is green”")).to_be_visible()
    expect(read(page)).to_have_text(["color: green"])


def test_another_language_and_a_lacking_column_are_said(page, service):
    visit(page, service)
    ask(page, "ein blaues Kleid mit langen Ärmeln")
    expect(page.locator("#reading-note")).to_contain_text(
        "This looks like German: only names of values are read"
    )
    page.get_by_role("button", name="Undo").click()
    ask(page, "is blue and newer than 2019")
    expect(page.locator("#reading-note")).to_have_text(
        "No picture here has a year, so “newer than 2019” had no effect."
    )


def test_more_of_the_wall_and_more_answers(page, service):
    page.goto(service)
    tiles = page.locator(".wall li")
    expect(tiles).to_have_count(48)
    page.get_by_role("button", name="Show more").click()
    expect(tiles).to_have_count(96)
    assert len(set(tiles.evaluate_all("tiles => tiles.map(tile => tile.dataset.id)"))) == 96
    visit(page, service, text="is blue")
    few = found(page)
    page.get_by_role("button", name="Show more").click()
    expect(cards(page)).to_have_count(48)
    assert found(page)[: len(few)] == few


@pytest.mark.parametrize("way", ["chosen", "dropped", "pasted"])
def test_a_picture_of_ones_own(page, service, shop, way):
    picture = shop / REFERENCE
    page.goto(service)
    expect(page.locator(".wall li").first).to_be_visible()
    if way == "chosen":
        page.get_by_label("Choose a picture").set_input_files(picture)
    else:
        event, holder = {"dropped": ("drop", "dataTransfer"), "pasted": ("paste", "clipboardData")}[way]
        page.evaluate(
            (HERE / "give.js").read_text(),
            [base64.b64encode(picture.read_bytes()).decode(), event, holder],
        )
    settled(page)
    assert REFERENCE in found(page)[:3]  # the same picture is in the index
    expect(page.get_by_text("Your own picture is not part of the link.")).to_be_visible()
    expect(page.get_by_role("img", name="Your start: your own picture")).to_be_visible()
    ask(page, "is blue")
    expect(page.get_by_role("heading", name="“is blue”")).to_be_visible()


def test_a_heavy_photo_is_made_smaller_before_it_is_sent(page, service, tmp_path):
    from PIL import Image

    Image.effect_noise((3000, 2000), 120).convert("RGB").save(tmp_path / "photo.jpg", quality=99)
    heavy = (tmp_path / "photo.jpg").stat().st_size
    page.goto(service)
    with page.expect_response("**/v1/search") as answered:
        page.get_by_label("Choose a picture").set_input_files(tmp_path / "photo.jpg")
    assert answered.value.ok
    sent = int(answered.value.request.all_headers()["content-length"])
    assert heavy > 5_000_000 > 2_500_000 > sent > 10_000


def test_suggestions_by_keyboard(page, service):
    visit(page, service)
    typed = field(page)
    with page.expect_response(re.compile(r"/v1/suggestions\?text=is\+bl&")):
        typed.press_sequentially("is bl")
    options = page.get_by_role("listbox", name="Suggestions").get_by_role("option")
    expect(options.first).to_be_visible()
    expect(typed).to_have_attribute("aria-expanded", "true")
    expect(options.filter(has_not_text="bl")).to_have_count(0)
    typed.press("ArrowDown")
    expect(typed).to_have_attribute("aria-activedescendant", "suggestion-0")
    expect(options.first).to_have_attribute("aria-selected", "true")
    chosen = options.first.inner_text()
    typed.press("Escape")
    expect(options).to_have_count(0)
    expect(typed).to_have_value("is bl")
    typed.press("ArrowDown")
    expect(options.first).to_be_visible()
    typed.press("ArrowDown")
    typed.press("Enter")
    expect(page.get_by_role("heading", name=f"“{chosen}”")).to_be_visible()
    expect(typed).to_have_value("")


def test_example_changes_are_there_to_be_pressed(page, service):
    visit(page, service)
    example = page.get_by_role("group", name="Examples of changes").get_by_role("button").first
    words = example.inner_text()
    example.click()
    expect(page.get_by_role("heading", name=f"“{words}”")).to_be_visible()
    settled(page)


def test_sliders_rank_anew_at_once_and_give_way_to_the_text_again(page, service, table):
    visit(page, service, text="is blue and has long sleeves")
    as_the_text_says = found(page)
    slider = page.get_by_role("slider", name="colour")
    own = slider.input_value()
    with page.expect_response("**/v1/search"):
        slider.fill("0")
    settled(page)
    expect(page.locator(".weight.mine")).to_have_count(1)
    expect(page.locator(".weight.mine")).to_contain_text("the text says")
    blue = [
        [table[item]["color"] for item in items[:12]].count("blue")
        for items in (as_the_text_says, found(page))
    ]
    assert blue[1] < blue[0]
    assert '"weights":{"colour":0}' in unquote(page.url)
    with page.expect_response("**/v1/search"):
        page.get_by_role("button", name="Back to the text’s own weights").click()
    settled(page)
    assert found(page) == as_the_text_says
    expect(slider).to_have_value(own)


def test_sliders_end_at_the_weight_that_the_service_tells(page, service):
    def lower(route):
        about = route.fetch().json()
        about["limits"]["weight"] = 1.5
        route.fulfill(json=about)

    page.route("**/v1/about", lower)
    with page.expect_request("**/v1/search") as asked:
        page.goto(address(service, text="is blue", weights={"colour": 9}))
    assert asked.value.post_data_json["weights"] == {"colour": 1.5}
    expect(page.get_by_role("slider", name="colour")).to_have_attribute("max", "1.5")


def test_an_attribute_may_have_the_name_of_what_every_object_has(page, service):
    def named(route):
        about = route.fetch().json()
        about["attributes"]["constructor"] = {
            "values": ["March", "Lola"],
            "numeric": False,
            "role": "attribute",
            "numbers": None,
        }
        route.fulfill(json=about)

    page.route("**/v1/about", named)
    visit(page, service, text="is blue")
    page.get_by_text("constructor", exact=False).first.click()
    with page.expect_request("**/v1/search") as asked:
        page.get_by_role("checkbox", name="Lola").check()
    assert asked.value.post_data_json["filters"] == [{"attribute": "constructor", "values": ["Lola"]}]


def test_not_this_and_more_like_this(page, service):
    visit(page, service, text="is blue")
    first, second, *_ = found(page)
    page.locator(f'[data-id="{first}"]').get_by_role("button", name="Not this").click()
    expect(page.locator(f'.card[data-id="{first}"]')).to_have_count(0)
    settled(page)
    expect(page.locator(f'[data-id="{second}"] .less')).to_be_focused()
    before = found(page)
    liked = before[6]
    page.locator(f'[data-id="{liked}"]').get_by_role("button", name="More of this").click()
    expect(page.get_by_role("group", name="More of").get_by_role("button")).to_have_count(1)
    settled(page)
    assert found(page) != before
    page.get_by_role("button", name="Take back “Not”").click()
    settled(page)
    page.get_by_role("button", name="Take back “More of”").click()
    settled(page)
    expect(page.locator(f'.card[data-id="{first}"]')).to_have_count(1)


def test_a_trail_is_walked_on_back_and_shared(page, open_page, service):
    visit(page, service, text="is blue")
    picked = found(page)[2]
    cards(page).nth(2).get_by_role("button", name="Find similar to").click()
    crumbs = page.get_by_role("navigation", name="Trail of your search").locator("li")
    expect(crumbs).to_have_count(2)
    settled(page)
    expect(page.get_by_role("combobox", name="What should change?")).to_be_focused()
    ask(page, "has long sleeves")
    answers = found(page)
    assert picked not in answers
    expect(crumbs.last).to_have_text("has long sleeves")

    other = open_page()
    other.goto(page.url)
    settled(other)
    assert found(other) == answers
    expect(other.get_by_role("navigation", name="Trail of your search").locator("li")).to_have_count(2)

    page.go_back()
    expect(page.get_by_role("heading", name="Looks alike")).to_be_visible()
    expect(crumbs).to_have_count(2)
    page.go_back()
    expect(crumbs).to_have_count(1)
    settled(page)
    expect(page.get_by_role("heading", name="“is blue”")).to_be_visible()
    page.go_forward()
    page.go_forward()
    settled(page)
    assert found(page) == answers
    crumbs.first.get_by_role("button").click()
    expect(crumbs).to_have_count(1)
    settled(page)
    expect(page.get_by_role("heading", name="“is blue”")).to_be_visible()


def test_the_address_can_be_copied(open_page, service):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    visit(page, service, text="is blue")
    page.get_by_role("button", name="Copy the link").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == page.url


def test_an_uploaded_picture_is_in_no_address(page, open_page, service, shop):
    page.goto(service)
    page.get_by_label("Choose a picture").set_input_files(shop / REFERENCE)
    settled(page)
    other = open_page()
    other.goto(page.url)
    expect(other.get_by_role("alert")).to_contain_text("links do not contain such pictures")
    expect(other.locator(".wall li").first).to_be_visible()


def test_filters_by_boxes_ranges_and_words(page, service, table):
    visit(page, service, text="has long sleeves")
    page.locator('.group[data-attribute="color"] summary').click()
    for colour in ("red", "blue"):
        with page.expect_response("**/v1/search"):
            page.locator('.group[data-attribute="color"]').get_by_label(colour, exact=True).check(force=True)
    settled(page)
    assert {table[item]["color"] for item in found(page)} == {"red", "blue"}
    page.locator('.group[data-attribute="price"] summary').click()
    with page.expect_response("**/v1/search"):
        page.get_by_label("price to").fill("30")
    settled(page)
    assert all(float(table[item]["price"]) <= 30 for item in found(page))
    page.locator("#advanced summary").click()
    expression = page.get_by_label("Only products that match this expression")
    expect(expression).to_have_value("")
    expression.fill("not color = red and price < 20")
    expression.press("Enter")
    expect(page.get_by_text("Applies in addition to the boxes above.")).to_be_visible()
    settled(page)
    assert all(table[item]["color"] == "blue" and float(table[item]["price"]) < 20 for item in found(page))
    page.reload()
    settled(page)
    expect(page.locator("#filter-count")).to_have_text("3")
    page.locator("#advanced summary").click()
    expression.fill("colr = red")
    expression.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("colr")
    page.get_by_role("alert").get_by_role("button", name="Clear the filter").click()
    expect(page.get_by_role("alert")).to_be_empty()
    settled(page)
    assert len(found(page)) == 24


def test_a_filter_holds_for_the_wall_too(page, service, table):
    page.goto(service)
    page.locator('.group[data-attribute="color"] summary').click()
    with page.expect_response("**/v1/items?*"):
        page.locator('.group[data-attribute="color"]').get_by_label("green", exact=True).check(force=True)
    green = [item for item, row in table.items() if row["color"] == "green"]
    expect(page.locator(".wall li")).to_have_count(len(green))
    shown = page.locator(".wall li").evaluate_all("tiles => tiles.map(tile => tile.dataset.id)")
    assert sorted(shown) == sorted(green)


def test_where_it_looked(page, service):
    visit(page, service, text="is red")
    look = cards(page).nth(1).get_by_role("button", name="Why this")
    look.click()
    expect(look).to_have_attribute("aria-pressed", "true")
    expect(cards(page).nth(1).locator("canvas")).to_have_count(1)
    expect(page.locator("#reference-frame canvas")).to_have_count(1)
    shades = page.locator("#reference-frame canvas").evaluate(
        "map => new Set(map.getContext('2d').getImageData(0, 0, map.width, map.height).data).size"
    )
    assert shades > 8
    page.get_by_role("button", name="Why these?").click()
    expect(page.locator("canvas")).to_have_count(0)
    expect(look).to_have_attribute("aria-pressed", "false")


def test_two_methods_side_by_side(page, service):
    visit(page, service, text="is red")
    page.locator("#methods summary").click()
    page.get_by_label("Compare with").select_option("random")
    expect(page.locator(".pane")).to_have_count(2)
    settled(page)
    expect(cards(page, 1)).to_have_count(24)
    assert found(page, 0) != found(page, 1)
    assert "against" in unquote(page.url)
    places = (
        page.locator(".pane").first.locator(".rank").evaluate_all("ranks => ranks.map(r => r.dataset.beside)")
    )
    expected = [
        str(found(page, 1).index(item) + 1) if item in found(page, 1) else "" for item in found(page, 0)
    ]
    assert places == expected
    page.route("**/v1/search", refused_by_the_second)
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator(".pane").nth(1)).to_contain_text("This method cannot.")
    expect(cards(page, 0)).to_have_count(24)
    page.get_by_label("Compare with").select_option("")
    expect(page.locator(".pane")).to_have_count(1)


def refused_by_the_second(route):
    if json.loads(route.request.post_data)["method"] == "random":
        route.fulfill(status=422, json={"detail": "This method cannot."})
    else:
        route.continue_()


def test_a_drawing_stands_beside_what_was_found(page, service):
    """Only the page is tested, because the service draws nothing without a checkpoint."""
    drawing = "data:image/gif;base64,R0lGODlhAQABAIAAAP8AAP///yH5BAAAAAAALAAAAAABAAEAAAICRAEAOw=="

    def able(route):
        told = route.fetch().json()
        route.fulfill(json={**told, "can_edit": True})

    asked = []
    page.route("**/v1/about", able)
    page.route(
        "**/v1/edits",
        lambda route: (
            asked.append(json.loads(route.request.post_data)),
            route.fulfill(json={"image": drawing}),
        ),
    )
    visit(page, service, text="is red")
    page.locator("#edits summary").click()
    page.get_by_label("Start from", exact=True).select_option("best")
    page.get_by_role("button", name="Draw it").click()
    expect(page.get_by_role("img", name="Drawn: is red")).to_be_visible()
    expect(page.locator(".edited figure")).to_have_count(2)
    assert asked[0]["source"] == "best" and asked[0]["item"] == REFERENCE and asked[0]["text"] == "is red"


def test_a_garbled_address_still_opens(page, service):
    page.goto(f"{address(service, text='is red')[:-9]}")
    settled(page)
    expect(page.get_by_role("heading", name="Looks alike")).to_be_visible()
    page.goto(f"{service}/#item=images%2F999.jpg")
    expect(page.get_by_role("alert")).not_to_be_empty()


def test_sold_out_products_are_shown_where_they_are_asked_for(page, with_sold_out, table):
    visit(page, with_sold_out.address)
    gone = {item for item in table if item.endswith("0.jpg") and item != REFERENCE}
    assert not gone & set(found(page))
    expect(page.locator("#meta")).to_contain_text(f"{len(gone)} sold out, not shown")
    page.get_by_label("Show sold-out products, too").check()
    expect(page.locator("#meta")).not_to_contain_text("sold out")
    settled(page)
    shown = found(page)
    assert gone & set(shown)
    expect(cards(page).nth(shown.index(next(iter(gone & set(shown)))))).to_contain_text("sold out")
    page.reload()  # the address keeps it
    settled(page)
    assert found(page) == shown
