"""Every text of the page is in its language files, in each language."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import dqecir.service

PAGE = Path(dqecir.service.__file__).parent / "page"
FILES = sorted(PAGE.glob("words.*.json"))
WORDS = {path.name.split(".")[1]: json.loads(path.read_text(encoding="utf-8")) for path in FILES}
SCRIPTS = sorted(PAGE.glob("*.js"))

NOT_SHOWN = {
    "AbortError",
    "ArrowDown",
    "ArrowUp",
    "Authorization",
    "Bearer ",
    "Content-Type",
    "English",  # as the service calls the language of a text
    "Enter",
    "Escape",
    "Files",
    "Retry-After",
    "Tab",
    "the embedding of the text",  # as the service names what decided
}
"""Strings of scripts that look like texts and name something of the web."""


def places(text: str | dict[str, str]) -> set[str]:
    """Return the placeholders of a text, in any of its forms."""
    forms = text.values() if isinstance(text, dict) else [text]
    return {name for form in forms for name in re.findall(r"\{(\w+)\}", form)}


def test_every_language_has_every_text_with_the_same_values():
    assert set(WORDS) == {"en", "de"}
    english = WORDS["en"]
    for language, words in WORDS.items():
        assert words.keys() == english.keys(), language
        for key, text in words.items():
            assert places(text) == places(english[key]), f"{language}: {key}"
            assert all(form.strip() for form in (text.values() if isinstance(text, dict) else [text]))


def named_keys() -> set[str]:
    """Return the keys that scripts and the document name; for composed keys, a pattern."""
    found: set[str] = set()
    for path in SCRIPTS:
        text = path.read_text(encoding="utf-8")
        for call in re.findall(r"\bword(?:Or)?\(([^,)]*(?:\([^)]*\))?[^,)]*)", text):
            found.update(re.findall(r"[\"`]([^\"`]+)[\"`]", call))
        found.update(re.findall(r'"((?:problem)\.[a-z]+)"', text))
    document = (PAGE / "index.html").read_text(encoding="utf-8")
    return found | set(re.findall(r'data-words(?:-[a-z-]+)?="([^"]+)"', document))


def test_no_text_is_lacking_and_none_is_left_over():
    named = named_keys()
    whole = {key for key in named if "${" not in key}
    patterns = [re.sub(r"\\\$\\\{.*?\\\}", "[A-Za-z]+", re.escape(key)) for key in named if "${" in key]
    assert whole - WORDS["en"].keys() == {"key"}  # the name of the argument
    used = {key for key in WORDS["en"] if key in whole or any(re.fullmatch(one, key) for one in patterns)}
    assert WORDS["en"].keys() - used == set()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_text_stands_in_a_script(path):
    code = re.sub(r"/\*.*?\*/|(?<![:\"'`])//[^\n]*", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    strings = [one for pair in re.findall(r"\"([^\"\n]*)\"|`([^`]*)`", code) for one in pair if one]
    texts = {re.sub(r"\$\{[^}]*\}", "", one) for one in strings}
    shown = {
        one
        for one in texts
        if re.match(r"[A-Z][a-z]", one.strip()) or re.search(r"[a-z]+ [a-z]+ [a-z]+ ", one)
    }
    assert {one for one in shown if one not in NOT_SHOWN and not one.startswith("(")} == set()


def test_no_text_stands_in_the_document_or_the_style():
    document = (PAGE / "index.html").read_text(encoding="utf-8")
    body = re.sub(r"<noscript>.*?</noscript>", "", document[document.index("<body>") :], flags=re.DOTALL)
    contents = {text.strip() for text in re.findall(r">([^<]+)<", body)} - {"", "dqecir"}
    assert contents == set()
    assert re.findall(r'\s(?:aria-label|title|alt)="[^"]+"', body) == []
    assert re.findall(r'content: "[^"]*[A-Za-z]{2}', (PAGE / "style.css").read_text(encoding="utf-8")) == []


def test_the_document_asks_for_all_its_scripts_at_once():
    """Otherwise the browser finds them one after the other, through imports."""
    document = (PAGE / "index.html").read_text(encoding="utf-8")
    asked = set(re.findall(r'<link rel="modulepreload" href="page/([a-z]+\.js)">', document))
    imported: set[str] = set()
    waiting = {"main.js"}
    while waiting:
        script = (PAGE / waiting.pop()).read_text(encoding="utf-8")
        found = set(re.findall(r'^(?:import\b.*|\}) from "\./([a-z]+\.js)"', script, re.MULTILINE))
        waiting |= found - imported
        imported |= found
    assert asked == imported
