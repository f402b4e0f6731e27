"""Hooks of mkdocs.yml: documents outside docs/ become pages, and links between documents stay in the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "THIRD_PARTY_NOTICES.md": "third-party-notices.md",
    "src/dqecir/assets/dqecir-small/README.md": "model-card.md",
}
"""File of the repository -> page of the site."""
_LINK = re.compile(r"\[(?P<text>[^\]\[]*)\]\((?P<to>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
_PICTURE = re.compile(r'(?<=src=")docs/')
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(?=<code>)")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside docs/."""
    for source, page in OUTSIDE.items():
        text = _FRONT_MATTER.sub("", (ROOT / source).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Point links at pages of the site; a link to a file that is not a page becomes its text."""
    source = next((own for own, name in OUTSIDE.items() if name == page.file.src_uri), None)
    folder = posixpath.dirname(source or f"docs/{page.file.src_uri}")
    return _PICTURE.sub("", _LINK.sub(lambda link: _within(link, folder), markdown))


def on_page_content(html: str, **_: Any) -> str:
    """Remove the roles that docstrings have before names."""
    return _ROLE.sub("", html)


def _within(link: re.Match[str], folder: str) -> str:
    place = posixpath.normpath(posixpath.join(folder, link["to"]))
    if ":" in link["to"] or not (ROOT / place).exists():
        return link[0]  # an address, or a mistake that --strict names
    page = OUTSIDE.get(place)
    if page is None and place.startswith("docs/"):
        page = place.removeprefix("docs/")
    return link["text"] if page is None else f"[{link['text']}]({page}{link['anchor'] or ''})"
