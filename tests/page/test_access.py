"""Use by keyboard, by screen reader, on a phone, in light and dark."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.page.states import STATES
from tests.page.visiting import address, cards, found, settled, visit

HERE = Path(__file__).parent


def unfolded(page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")


def test_a_search_by_keyboard_alone(page, service):
    page.goto(service)
    expect(page.locator(".wall li").first).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the pictures")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # the button for other pictures
    expect(page.get_by_role("button", name="Other products")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator(".wall button").first).to_be_focused()
    page.keyboard.press("Enter")
    settled(page)
    expect(page.get_by_role("combobox", name="What should change?")).to_be_focused()
    page.keyboard.type("is red")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="“is red”")).to_be_visible()
    settled(page)
    before = found(page)
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        name = page.evaluate(
            "document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"
        )
        outline = page.evaluate(
            """() => {
              const seen = document.activeElement.closest(".box") ?? document.activeElement;
              const shown = seen.type === "file" ? document.querySelector(`label[for=${seen.id}]`) : seen;
              return getComputedStyle(shown).outlineStyle;
            }"""
        )
        reached.append(name)
        assert outline != "none", f"nothing shows that {name!r} has the focus"
        if name.startswith("Not this"):
            break
    assert any(name.startswith("Find similar to") for name in reached)
    page.keyboard.press("Enter")
    expect(page.locator(f'.card[data-id="{before[0]}"]')).to_have_count(0)
    settled(page)
    expect(page.locator(".less:focus")).to_have_count(1)  # of the card that followed
    for _ in range(3):
        page.keyboard.press("Shift+Tab")
    expect(page.locator(".again:focus")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.get_by_role("navigation", name="Trail of your search").locator("li")).to_have_count(2)
    expect(page.get_by_role("combobox", name="What should change?")).to_be_focused()


WALL = """
- link "Skip to the pictures"
- banner:
  - heading "dqecir" [level=1]
- main:
  - region "What you search for":
    - search "What should change":
      - combobox "What are you looking for?"
      - button "Search"
  - region "Or start from one of these":
    - heading "Or start from one of these" [level=2]
    - button "Other products"
    - list "Products to start from":
      - listitem:
        - button /^Start from/
"""
RESULTS = """
- main:
  - region "What you search for":
    - search "What should change":
      - combobox "What else?"
      - button "Search"
    - group:
      - text: Filter
  - region "“a blue dress”":
    - navigation "Trail of your search":
      - list:
        - listitem:
          - 'button "Turn 1: a blue dress. Change these words"'
      - button "Undo"
      - button "Copy the link"
    - heading "“a blue dress”" [level=2]
    - list "How your words were read":
      - listitem:
        - 'button /^color: blue, read from .*: take it back$/'
      - listitem:
        - 'button /^garment: dress, read from .*: take it back$/'
    - status: Found without a picture, by the properties that you named.
    - list "Results":
      - listitem:
        - 'button /^Show larger: blue dress/'
        - paragraph:
          - link /blue dress/
        - paragraph: /€/
        - 'button /^Find similar to: blue dress/'
        - 'button /^Combine with: blue dress/'
        - 'button /^More of this: blue dress/'
        - 'button /^Not this: blue dress/'
        - 'button /^Why this: blue dress/'
- status: "24 products for “a blue dress”. Read as: color: blue, garment: dress."
"""
SECOND_TURN = """
- navigation "Trail of your search":
  - list:
    - listitem:
      - 'button "Turn 1: a blue dress"'
    - listitem:
      - 'button "Turn 2: now in red. Change these words"'
  - button "Undo"
"""
PRODUCT = """
- dialog "Product":
  - button "Close"
  - button "Zoom in"
  - heading /dress/ [level=2]
  - paragraph: /€/
  - link "To the product"
  - button "Similar"
  - term: garment
  - definition: dress
"""


def test_keyboard_and_screen_reader_lead_through_a_search(page, shop_page):
    page.goto(shop_page)
    expect(page.locator(".wall li").first).to_be_visible()
    expect(page.locator("body")).to_match_aria_snapshot(WALL)
    for _ in range(3):  # the link to skip, the name of the page, the field
        page.keyboard.press("Tab")
    page.keyboard.type("a blue dress")
    page.keyboard.press("Enter")
    settled(page)
    expect(page.locator("body")).to_match_aria_snapshot(RESULTS)
    expect(page.get_by_role("combobox", name="What else?")).to_be_focused()
    page.keyboard.type("now in red")
    page.keyboard.press("Enter")
    expect(page.locator("body")).to_match_aria_snapshot(SECOND_TURN)
    settled(page)
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.locator(".card .frame:focus").count():
            break
    page.keyboard.press("Enter")
    expect(page.locator("body")).to_match_aria_snapshot(PRODUCT)
    page.keyboard.press("Escape")
    expect(page.locator(".card .frame:focus")).to_have_count(1)


def test_every_control_and_picture_has_a_name(page, service):
    visit(page, service, text="is red", more=["images/000003.jpg"])
    unfolded(page)
    nameless = page.evaluate((HERE / "nameless.js").read_text())
    assert nameless == []
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator(".card img[alt='']").count() == 0
    twice = page.evaluate(
        """() => { const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
                   return ids.filter((id, place) => ids.indexOf(id) !== place); }"""
    )
    assert twice == []


def test_landmarks_headings_and_what_is_said(page, service):
    visit(page, service, text="is red")
    for role in ("banner", "main", "search"):
        assert page.get_by_role(role).count() == 1, role
    assert page.get_by_role("region", name="What you search for").count() == 1
    assert page.get_by_role("navigation", name="Trail of your search").count() == 1
    headings = page.locator("h1, h2, h3").filter(visible=True)
    levels = [int(tag[1]) for tag in headings.evaluate_all("headings => headings.map(h => h.tagName)")]
    assert levels[0] == 1 and all(now <= before + 1 for before, now in pairwise(levels))
    expect(page.locator("#status")).to_have_text("24 products for “is red”. Read as: color: red.")
    assert page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_its_ground(open_page, service, scheme):
    page = open_page(color_scheme=scheme, reduced_motion="reduce")
    page.goto(address(service, text="is red", where="colr = red"))
    expect(page.get_by_role("alert")).not_to_be_empty()
    visit(page, service, text="is red", where="color in {red, blue}", more=["images/000003.jpg"])
    unfolded(page)
    cards(page).first.get_by_role("button", name="Why this").click()
    expect(page.locator("canvas")).to_have_count(2)
    settled(page)
    seen, weak = page.evaluate((HERE / "weak_contrast.js").read_text())
    assert seen > 100
    assert weak == []


def test_a_phone_shows_everything_without_scrolling_sideways(open_page, service):
    page = open_page(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    page.goto(service)
    expect(page.locator(".wall li").first).to_be_visible()
    expect(page.get_by_text("Take a photo")).to_be_visible()
    assert page.get_by_label("Take a photo").get_attribute("capture") == "environment"
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator(".wall button").first.tap()
    settled(page)
    # No keyboard springs up over the answers.
    expect(page.get_by_role("combobox", name="What should change?")).not_to_be_focused()
    page.get_by_role("combobox", name="What should change?").tap()
    page.keyboard.type("is red")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="“is red”")).to_be_visible()
    settled(page)
    unfolded(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    small = page.evaluate((HERE / "small.js").read_text())
    assert small == []
    cards(page).first.get_by_role("button", name="Find similar to").tap()
    settled(page)
    assert page.evaluate("scrollY") == 0


NARROW = {
    "320 pixels": (320, 640, "100%"),
    "1280 pixels at 200 %": (640, 425, "100%"),
    "letters of twice the size": (1280, 850, "200%"),
}


def told(page) -> set[str]:
    """Return the words that the page shows; the seconds that a person waits change."""
    return {word for word in page.locator("body").inner_text().split() if not word.isdigit()}


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_small_windows_and_large_letters_lose_nothing(open_page, service, state):
    page = open_page(reduced_motion="reduce")
    state(page, service)
    words = told(page)
    for name, (width, height, letters) in NARROW.items():
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate("size => { document.documentElement.style.fontSize = size; }", letters)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.evaluate((HERE / "out_of_sight.js").read_text()) == [], name
        assert words <= told(page), name


def test_german_words_fit_into_a_small_window(open_page, service):
    page = open_page(locale="de", viewport={"width": 320, "height": 640}, is_mobile=True, has_touch=True)
    visit(page, service, text="is gren, qwerty", more=["images/000003.jpg"], also=["images/000004.jpg"])
    unfolded(page)
    cards(page).first.get_by_role("button", name="Warum dieses").click()
    expect(page.locator("canvas")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.evaluate((HERE / "out_of_sight.js").read_text()) == []
    cut = page.locator("button:visible").evaluate_all(
        "buttons => buttons.filter((b) => b.scrollWidth > b.clientWidth + 1).map((b) => b.innerText)"
    )
    assert cut == []


def test_long_words_stay_in_a_small_window_and_are_cut_visibly(open_page, service):
    page = open_page(viewport={"width": 320, "height": 640})
    long = "x" * 400
    page.goto(address(service, text=f"is blue, {long}", where=f"{long} = red"))
    expect(page.get_by_role("alert")).to_contain_text(long[:40])
    assert page.evaluate((HERE / "out_of_sight.js").read_text()) == []
    page.get_by_role("alert").get_by_role("button", name="Clear the filter").click()
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.evaluate((HERE / "out_of_sight.js").read_text()) == []
    turn = page.locator(".crumb span")
    assert turn.evaluate("text => text.scrollWidth > text.clientWidth")
    expect(turn).to_have_css("text-overflow", "ellipsis")
    heading = page.locator("#results")
    assert heading.evaluate("text => text.scrollHeight > text.clientHeight")


def test_nothing_moves_for_who_wants_no_motion(open_page, service):
    page = open_page(reduced_motion="reduce")
    visit(page, service, text="is red")
    with page.expect_response("**/v1/search"):
        page.get_by_role("slider", name="colour").fill("0")
    settled(page)
    running = page.evaluate(
        "document.getAnimations().filter(moved => moved.effect.getComputedTiming().duration > 10).length"
    )
    assert running == 0
