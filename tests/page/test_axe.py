"""WCAG 2.2 AA by axe-core on each main state of the page: phone and desktop, light and dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.page.states import STATES

AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SIZES = {
    "desk": {"viewport": {"width": 1280, "height": 850}},
    "phone": {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True},
}


@pytest.fixture(scope="module")
def axe() -> str:
    if not AXE.is_file():
        pytest.skip("no axe-core: `make page` installs it in node_modules")
    return AXE.read_text(encoding="utf-8")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_axe_finds_nothing(open_page, service, axe, state: Callable[[Page, str], None], size):
    page = open_page(reduced_motion="reduce", **SIZES[size])
    state(page, service)
    page.evaluate(axe)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = page.evaluate(
            """async (values) => {
              const { violations } = await axe.run({ runOnly: values, preload: false });
              return violations.flatMap(({ id, nodes }) => nodes.map(
                (node) => `${id}: ${node.html.slice(0, 200)}: ${node.failureSummary}`));
            }""",
            RULES,
        )
        assert found == [], scheme
