"""A release has one version everywhere, and notices for every asset."""

import re
from pathlib import Path

import yaml

from dqecir import __version__

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "src" / "dqecir" / "assets"


def test_the_version_is_the_newest_of_the_changelog_and_that_of_the_citation():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)[0] == __version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == __version__


def test_the_notices_name_every_asset_that_holds_weights():
    notices = (ROOT / "THIRD_PARTY_NOTICES.md").read_text(encoding="utf-8")
    weights = {path.relative_to(ASSETS).parts[0] for path in ASSETS.rglob("*.safetensors")}
    assert weights
    assert [name for name in weights if f"`assets/{name}`" not in notices] == []
