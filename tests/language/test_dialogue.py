"""Dialogues, the requests of all their turns together, and the words that later turns take back."""

from pathlib import Path

import pytest
import yaml

from dqecir.language.dialogue import in_one
from dqecir.language.reader import Reader
from dqecir.language.spoken import USUAL

DIALOGUES = yaml.safe_load((Path(__file__).parent / "dialogues.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def reader() -> Reader:
    values = {column: USUAL[column] for column in ("garment", "color", "pattern", "sleeves")}
    return Reader({**values, "brand": ["Kestrel", "Marlow"]}, ["price"])


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda dialogue: " | ".join(dialogue["turns"]))
def test_turns_are_read_together(reader, dialogue):
    said = in_one(dialogue["turns"], reader)
    read = reader.read(said.text)
    asks = sorted(f"{ask.column} {ask.operation} {ask.value}" for ask in read.asks)
    assert asks == sorted(dialogue["asks"])
    assert list(read.unread) == dialogue.get("unread", [])
    numbers = [f"{one.column} {one.order} {one.number:g}" for one in read.constraints]
    assert numbers == dialogue.get("constraints", [])
    expected = dialogue.get("taken_back", {})
    assert {place: list(words) for place, words in enumerate(said.taken_back, 1) if words} == expected


def test_a_single_turn_stays_as_it_is(reader):
    assert in_one(["is red, for a wedding"], reader).text == "is red, for a wedding"
    assert in_one(["no stripes"], reader).text == "no stripes"
    assert in_one([], reader).text == ""


def test_a_turn_of_which_nothing_gives_way_stays_as_it_was_said(reader):
    assert (
        in_one(["with nothing printed on it", "in red"], reader).text == "with nothing printed on it, in red"
    )
    assert in_one(["in a short cut", "in red"], Reader({})).text == "in a short cut, in red"
    assert in_one(["in a blue dress", "in red"], reader).text == "dress, in red"
    assert in_one(["in red", "no, not that"], reader).text == ""
