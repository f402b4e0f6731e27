"""The page for shoppers: products with price and link, two languages, clear states."""

from __future__ import annotations

import json
import re
import shutil

from playwright.sync_api import expect

from dqecir import ComposedRetriever
from tests.page.conftest import HOSTILE, TITLES, UNLINKED, Service
from tests.page.visiting import REFERENCE, ask, cards, field, found, settled, visit


def of_link(link: str) -> dict[str, dict[str, list[str]]]:
    """Return a filter that selects one product."""
    return {"link": {"values": [link]}}


def test_a_card_has_title_price_link_and_details(page, shop_page, table):
    visit(page, shop_page, text="is blue")
    first = cards(page).first
    row = table[found(page)[0]]
    link = first.get_by_role("link", name=row["title"])
    expect(link).to_have_attribute("href", row["link"])
    expect(link).to_have_attribute("rel", "noopener")
    expect(link).to_have_attribute("target", "_blank")
    expect(first.locator(".price")).to_have_text(f"€{row['price']}.00")
    expect(first.locator("img")).to_have_attribute("alt", re.compile(f"^{row['title']}, .*{row['color']}"))
    # Nothing that only makers want to see.
    expect(page.locator("#meta")).to_have_text("")
    expect(page.locator("#advanced")).to_be_hidden()
    expect(page.locator('.group[data-attribute="sku"]')).to_have_count(0)
    text = page.locator("main").inner_text()
    assert not re.search(r"\bms\b|score|A-00\d\d|images/", text)
    first.get_by_text("Details").click()
    expect(first.locator(".details")).to_contain_text(row["color"])
    expect(first.locator(".details")).not_to_contain_text("A-0")
    first.get_by_role("button", name="Why this").click()
    expect(first.locator(".reason")).to_contain_text(re.compile("It fits best in: .*color"))
    expect(first.locator("canvas")).to_have_count(1)

    first.get_by_role("button", name="Show larger").click()
    viewer = page.get_by_role("dialog", name="Product")
    expect(viewer.get_by_role("link", name="To the product")).to_have_attribute("href", row["link"])
    picture = viewer.get_by_role("button", name="Zoom in")
    picture.click()
    expect(picture).to_have_attribute("aria-pressed", "true")
    assert picture.evaluate("frame => frame.scrollWidth > frame.clientWidth")
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(first.get_by_role("button", name="Show larger")).to_be_focused()
    first.get_by_role("button", name="Show larger").click()
    viewer.get_by_role("button", name="Similar").click()
    expect(page.locator("#crumbs li")).to_have_count(2)


def test_further_pictures_of_a_product_are_shown_large(page, shop, tmp_path):
    (tmp_path / "shop").mkdir()
    rows = ["Handle,Title,Image Src,Option1 Name,Option1 Value,Variant Price"]
    for number, picture in enumerate(sorted((shop / "images").glob("*.jpg"))[:12]):
        shutil.copy(picture, tmp_path / "shop" / f"{number}.jpg")
        product, view = divmod(number, 3)
        title = f"Product {product}" if view == 0 else ""
        rows.append(f"product-{product},{title},{number}.jpg,Size,{'SML'[view]},{20 - view}.00")
    (tmp_path / "shop" / "products_export.csv").write_text("\n".join([*rows, ""]))
    ComposedRetriever.from_pretrained().build_index(tmp_path / "shop", tmp_path / "index", quiet=True)
    running = Service(tmp_path / "log", "--index", tmp_path / "index")
    try:
        visit(page, running.address, item="product-0")
        expect(page.locator("#reference-name")).to_have_text("Product 0")
        assert len(found(page)) == 3  # each product once, and not the reference
        expect(page.locator("#stock")).to_have_text("4 products")
        card = cards(page).first
        expect(card.locator(".views")).to_have_text("2 more pictures")
        expect(card.locator(".price")).to_have_text(re.compile(r"^from \D?18"))
        card.get_by_role("button", name="Show larger").press("Enter")
        viewer = page.get_by_role("dialog", name="Product")
        views = viewer.get_by_role("group", name="Further pictures").get_by_role("button")
        expect(views).to_have_count(3)
        expect(views.first).to_have_attribute("aria-pressed", "true")
        large = viewer.get_by_role("button", name="Zoom in").locator("img")
        shown = [large.get_attribute("src")]
        for place in (1, 2):
            views.nth(place).press("Enter")
            expect(views.nth(place)).to_have_attribute("aria-pressed", "true")
            expect(large).not_to_have_attribute("src", shown[-1])
            expect(large).not_to_have_js_property("naturalWidth", 0)
            shown.append(large.get_attribute("src"))
        assert len(set(shown)) == 3
    finally:
        running.kill()


def test_texts_and_links_of_a_table_do_nothing(page, shop_page):
    visit(page, shop_page, item="images/000022.jpg", filters=of_link("javascript:window.hurt=1"))
    assert found(page) == [HOSTILE]
    card = cards(page).first
    expect(card.locator(".what")).to_have_text(TITLES[HOSTILE])
    expect(card.locator(".what a, .what img, .what b")).to_have_count(0)
    card.get_by_role("button", name="Show larger").click()
    expect(page.get_by_role("dialog").get_by_role("heading")).to_have_text(TITLES[HOSTILE])
    expect(page.get_by_role("dialog").get_by_role("link")).to_have_count(0)
    assert page.evaluate("window.hurt") is None
    # An address without its host leads nowhere from here.
    visit(page, shop_page, item="images/000022.jpg", filters=of_link("/products/21"))
    page.reload()
    settled(page)
    assert found(page) == [UNLINKED]
    expect(cards(page).first.get_by_role("link")).to_have_count(0)


def test_links_open_where_the_shop_says(page, index, tmp_path):
    running = Service(tmp_path / "log", "--index", index, "--link-target", "_top")
    try:
        visit(page, running.address, text="is blue")
        expect(cards(page).first.get_by_role("link")).to_have_attribute("target", "_top")
    finally:
        running.kill()


def test_file_names_do_nothing(page, shop, tmp_path):
    """Names of pictures are shown to experts, and are part of addresses."""
    names = [
        "<img src=x onerror='window.hurt=1'>.jpg",
        '"><script>window.hurt=1\u2215\u2215.jpg',
        "'&#63;%2F..%2F?item=1#turns=[].jpg",
        "ümläut ☃ \u202egpj.jpg",
        *(f"plain {place}.jpg" for place in range(4)),
    ]
    pictures = sorted((shop / "images").glob("*.jpg"))[: len(names)]
    (tmp_path / "shop").mkdir()
    for name, picture in zip(names, pictures, strict=True):
        shutil.copy(picture, tmp_path / "shop" / name)
    ComposedRetriever.from_pretrained().build_index(tmp_path / "shop", tmp_path / "index", quiet=True)
    running = Service(tmp_path / "log", "--index", tmp_path / "index", "--expert")
    try:
        for name in names[:4]:
            visit(page, running.address, item=name)
            assert {name, *found(page)} == set(names)
            expect(page.locator("#reference-name")).to_have_text(name)
            for picture in page.locator("main img").all():
                expect(picture).not_to_have_js_property("naturalWidth", 0)
        page.locator(f'.card[data-id="{names[4]}"]').get_by_role("button", name="Combine with").click()
        settled(page)
        page.reload()
        settled(page)
        expect(page.get_by_role("group", name="Combined with").get_by_role("button")).to_have_count(1)
        upload = {"name": names[0], "mimeType": "image/jpeg", "buffer": pictures[0].read_bytes()}
        page.get_by_label("Choose a picture").set_input_files(upload)
        expect(page.get_by_role("img", name="Your start: your own picture")).to_be_visible()
        settled(page)
        assert page.evaluate("window.hurt") is None
    finally:
        running.kill()


def test_a_german_browser_is_spoken_to_in_german(open_page, shop_page, table):
    page = open_page(locale="de-AT")
    visit(page, shop_page, text="is blue")
    assert page.evaluate("document.documentElement.lang") == "de"
    expect(page.get_by_role("combobox", name="Was soll noch anders sein?")).to_be_visible()
    expect(page.locator("#status")).to_have_text("24 Produkte für „is blue“. Gelesen als: color: blue.")
    expect(cards(page).first.locator(".price")).to_have_text(
        re.compile(rf"^€\s{table[found(page)[0]]['price']},00$")
    )
    expect(page.get_by_role("button", name=re.compile("^Nicht so: "))).to_have_count(24)
    page.get_by_role("combobox", name="Reihenfolge").select_option("Niedrigster Preis zuerst")
    settled(page)
    # No text of the page is lacking or English.
    page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
    shown = page.locator("body").inner_text()
    assert not re.search(r"undefined|\{\w+\}|\b(?:the|Filter by|Show|Search|Similar|Price)\b", shown)


def test_the_best_are_ordered_by_price_and_filtered_by_both_ends(page, shop_page, table):
    visit(page, shop_page, text="is blue")
    best = found(page)
    page.get_by_role("combobox", name="Order").select_option("Lowest price first")
    expect(page).to_have_url(re.compile("cheap"))
    settled(page)
    assert found(page) == sorted(best, key=lambda item: (int(table[item]["price"]), best.index(item)))
    page.get_by_role("combobox", name="Order").select_option("Highest price first")
    settled(page)
    prices = [int(table[item]["price"]) for item in found(page)]
    assert prices == sorted(prices, reverse=True)
    page.locator('.group[data-attribute="price"] summary').click()
    group = page.locator('.group[data-attribute="price"]')
    expect(group.get_by_role("img", name="price between 10 and 59")).to_be_visible()
    expect(group.get_by_label("price from")).to_have_attribute("placeholder", "10")
    group.get_by_label("price from").fill("20")
    with page.expect_response("**/v1/search"):
        group.get_by_label("price to").fill("30")
    settled(page)
    expect(page.locator("#filter-count")).to_have_text("1")
    assert all(20 <= int(table[item]["price"]) <= 30 for item in found(page))
    assert group.locator(".histogram .outside").count() in range(10, 19)


def test_suggestions_that_come_late_do_not_open_over_results(page, shop_page):
    page.clock.install()
    visit(page, shop_page)
    field(page).fill("is bl")
    page.keyboard.press("Enter")
    page.clock.run_for(1000)
    settled(page)
    expect(field(page)).to_have_attribute("aria-expanded", "false")
    expect(page.locator("#suggestions li")).to_have_count(0)


def test_an_upload_outlives_a_reload_and_a_broken_one_changes_nothing(page, shop_page, shop, tmp_path):
    page.goto(shop_page)
    page.get_by_label("Choose a picture").set_input_files(shop / REFERENCE)
    settled(page)
    ask(page, "is blue")
    answers, where = found(page), page.url
    page.reload()
    settled(page)
    assert found(page) == answers
    (tmp_path / "letter.png").write_text("Dear shop, this is no picture.")
    page.get_by_label("Choose a picture").set_input_files(tmp_path / "letter.png")
    expect(page.get_by_role("alert")).to_contain_text("This file cannot be used as a picture.")
    assert (page.url, found(page)) == (where, answers)
    expect(page.locator("#edits")).to_be_hidden()  # no pipeline draws here


def test_results_of_an_earlier_search_are_greyed(page, shop_page):
    visit(page, shop_page, text="is blue")
    before = found(page)
    page.route("**/v1/search", lambda route: route.fulfill(status=503, json={"detail": "No."}))
    field(page).fill("is red")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The service is busy.")
    expect(page.get_by_text("These are the results of your earlier search.")).to_be_visible()
    expect(page.locator(".panes")).to_have_class(re.compile("stale"))
    assert found(page) == before
    expect(page.locator("#reading")).to_be_hidden()  # the chips were of the earlier text
    page.unroute("**/v1/search")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".panes")).not_to_have_class(re.compile("stale"))


def test_a_wall_of_an_earlier_filter_is_greyed(page, shop_page, table):
    page.goto(shop_page)
    tiles = page.locator(".wall li")
    expect(tiles).to_have_count(48)
    page.route("**/v1/items?*", lambda route: route.fulfill(status=503, json={"detail": "No."}))
    page.locator('.group[data-attribute="color"] summary').click()
    page.locator('.group[data-attribute="color"]').get_by_label("green", exact=True).check(force=True)
    expect(page.get_by_role("alert")).to_contain_text("The service is busy.")
    expect(page.locator(".panes")).to_have_class(re.compile("stale"))
    expect(tiles.first).to_have_css("filter", "grayscale(1)")
    page.unroute("**/v1/items?*")
    page.get_by_role("button", name="Try again").click()
    expect(tiles).to_have_count(sum(row["color"] == "green" for row in table.values()))
    expect(page.locator(".panes")).not_to_have_class(re.compile("stale"))


def test_counts_follow_the_index(page, index, tmp_path, shop):
    shutil.copytree(index, tmp_path / "index")
    running = Service(tmp_path / "log", "--index", tmp_path / "index")
    try:
        page.clock.install()
        visit(page, running.address)
        expect(page.locator("#stock")).to_have_text("160 products")
        form = {
            "attributes": json.dumps({"title": "New", "price": 999}),
            "image": {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": (shop / REFERENCE).read_bytes()},
        }
        assert page.request.put(f"{running.address}/v1/items/new", multipart=form).ok
        ask(page, "is blue")
        expect(page.locator("#stock")).to_have_text("161 products")
        expect(page.get_by_label("price to")).to_have_attribute("placeholder", "999")
        # Without a search, too, after a while.
        assert page.request.delete(f"{running.address}/v1/items/new").ok
        page.clock.fast_forward("00:30")
        expect(page.locator("#stock")).to_have_text("160 products")
    finally:
        running.kill()


def test_a_long_text_is_cut_visibly(page, shop_page):
    visit(
        page, shop_page, filters={"title": {"values": [TITLES[REFERENCE].strip()]}}, item="images/000011.jpg"
    )
    title = cards(page).first.locator(".what")
    assert title.evaluate("text => text.scrollHeight > text.clientHeight")
