"""WCAG 2.2 AA by axe-core, and a screenshot, of each main state: phone and desktop, light and dark."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.page.conftest import SCREENSHOTS
from tests.page.states import STATES

SIZES = {
    "desk": {"viewport": {"width": 1280, "height": 850}},
    "phone": {"viewport": {"width": 320, "height": 740}, "is_mobile": True, "has_touch": True},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_axe_finds_nothing(open_page, service, violations, state: Callable[[Page, str], None], size):
    page = open_page(reduced_motion="reduce", **SIZES[size])
    state(page, service)
    SCREENSHOTS.mkdir(exist_ok=True)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.screenshot(animations="disabled", path=SCREENSHOTS / f"{state.__name__}-{size}-{scheme}.png")
        assert violations(page) == [], scheme
