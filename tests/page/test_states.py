"""The messages of the page if something is wrong, slow, full or locked."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.page.visiting import REFERENCE, address, ask, cards, field, found, settled, visit


def test_a_file_that_is_too_large_is_not_sent(page, service, tmp_path):
    page.goto(service)
    expect(page.locator(".wall li").first).to_be_visible()
    limit = page.evaluate("fetch('/v1/about').then(a => a.json()).then(a => a.limits.bytes)")
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(limit + 1)
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    page.get_by_label("Choose a picture").set_input_files(tmp_path / "large.png")
    expect(page.get_by_role("alert")).to_contain_text("At most")
    assert not [url for url in sent if url.endswith("/v1/search")]


def test_a_dead_service_and_its_return(page, service):
    visit(page, service, text="is blue")
    before = found(page)
    page.context.set_offline(True)
    field(page).fill("is red")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    assert found(page) == before
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_be_empty()
    settled(page)
    assert found(page) != before


def test_words_that_were_sent_before_the_service_answered_are_searched(page, service):
    held = []
    page.route("**/v1/about", lambda route: held.append(route))
    with page.expect_request("**/v1/about"):
        page.goto(service)
    field(page).fill("a red dress")
    page.keyboard.press("Enter")
    held[0].continue_()
    settled(page)
    expect(page.get_by_role("heading", name="“a red dress”")).to_be_visible()


def test_a_slow_service_can_be_cancelled(page, service):
    visit(page, service, text="is blue")
    before = found(page)
    held = []
    page.route("**/v1/search", lambda route: held.append(route))
    field(page).fill("is red")
    page.keyboard.press("Enter")
    expect(page.locator(".grid")).to_have_attribute("aria-busy", "true")
    expect(page.locator("#waiting")).to_contain_text("The service is slow")
    assert found(page) == before  # what was found before stays
    expect(page.locator("#reading")).to_be_hidden()  # how its text was read does not
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("alert")).to_contain_text("Cancelled")
    expect(page.locator("#waiting")).to_be_empty()
    page.unroute("**/v1/search")
    page.get_by_role("button", name="Search again").click()
    expect(page.get_by_role("alert")).to_be_empty()
    settled(page)
    assert found(page) != before


def test_shapes_hold_the_place_of_first_answers(page, service):
    held = []
    page.route("**/v1/search", lambda route: held.append(route))
    page.goto(f"{service}/#item={REFERENCE}")
    expect(page.locator(".skeleton").first).to_be_visible()
    expect(page.locator("#waiting")).to_contain_text("The service is slow")
    held[0].continue_()
    settled(page)
    expect(page.locator(".skeleton")).to_have_count(0)


def test_a_late_answer_to_an_earlier_question_is_dropped(page, service):
    visit(page, service)
    held = []
    page.route("**/v1/search", lambda route: route.continue_() if held else held.append(route))
    field(page).fill("is yellow")
    page.keyboard.press("Enter")
    expect(page.locator(".grid")).to_have_attribute("aria-busy", "true")
    # The page also drops suggestions that it asked for while the text was typed.
    with page.expect_event("requestfailed", lambda request: request == held[0].request):
        ask(page, "is red")
    answers = found(page)
    held[0].continue_()
    assert found(page) == answers
    expect(page.get_by_role("heading", name="“is red”")).to_be_visible()


def test_a_busy_service_is_asked_again_when_it_said(page, service):
    page.clock.install()
    visit(page, service)
    refused = []

    def overloaded(route):
        if refused:
            route.continue_()
            return
        refused.append(route)
        route.fulfill(
            status=429,
            headers={"Retry-After": "30"},
            content_type="application/problem+json",
            json={"title": "Busy", "status": 429, "detail": "The queue is full."},
        )

    page.route("**/v1/search", overloaded)
    field(page).fill("is red")
    page.keyboard.press("Enter")
    expect(page.locator("#waiting")).to_contain_text("starts again by itself")
    page.clock.fast_forward("00:30")
    settled(page)
    expect(page.locator("#waiting")).to_be_empty()
    expect(cards(page)).to_have_count(24)
    assert len(refused) == 1


def test_a_thumbnail_that_was_refused_is_asked_for_again(page, service):
    refused = set()

    def once(route):
        if route.request.url in refused:
            route.continue_()
        else:
            refused.add(route.request.url)
            route.fulfill(status=429, headers={"Retry-After": "1"}, json={"detail": "Too many pictures."})

    page.route("**/v1/images/**", once)
    visit(page, service, text="is blue")
    expect(cards(page).first.locator("img")).not_to_have_js_property("naturalWidth", 0)
    assert refused
    expect(page.locator(".broken")).to_have_count(0)


def test_nothing_fulfils_the_filter(page, service):
    page.goto(address(service, text="is blue", where="price > 1000"))
    expect(page.get_by_role("alert")).to_contain_text("No picture fulfils price > 1000.")
    page.get_by_role("button", name="Clear the filter").first.click()
    settled(page)
    expect(cards(page)).to_have_count(24)


def test_a_key_is_asked_for_and_a_killed_service_is_noticed(page, guarded):
    page.goto(guarded.address)
    dialog = page.get_by_role("dialog", name="This service asks for a key")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Key").fill("wrong")
    dialog.get_by_role("button", name="Use this key").click()
    expect(dialog).to_be_visible()
    expect(dialog.get_by_label("Key")).to_have_value("")
    dialog.get_by_label("Key").fill("open-the-shop-please")
    dialog.get_by_role("button", name="Use this key").click()
    page.locator(".wall button").first.click()
    settled(page)
    picture = cards(page).first.locator("img")
    expect(picture).not_to_have_js_property("naturalWidth", 0)
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    guarded.kill()
    field(page).fill("is red")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
