"""Vocabulary files: what ships is whole, and a mistake is named."""

import pytest

from dqecir.data.triplets import DataError
from dqecir.data.vocabulary import SHIPPED, load_vocabulary


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_vocabularies_have_many_phrases_and_hold_some_out(name):
    for column in load_vocabulary(name).columns.values():
        kinds = [
            column.statements,
            *(value.statements for value in column.values.values() if value.statements),
        ]
        used = [phrases for phrases in kinds if phrases.all]
        assert used
        for phrases in used:
            assert phrases.seen
            assert phrases.held_out
            assert not set(phrases.seen) & set(phrases.held_out)


def test_lexicons_hold_words_for_values_and_comparisons():
    assert {"red", "navy", "darker"} <= load_vocabulary("colour").lexicon
    assert {"sleeves", "longer", "collar"} <= load_vocabulary("shape").lexicon
    assert "the" not in load_vocabulary("shape").lexicon


def test_orders_compare():
    sleeves = load_vocabulary("shape").columns["sleeves"].order
    assert sleeves.beyond("sleeveless", upwards=True) == {"short", "long"}
    assert sleeves.beyond("sleeveless", upwards=False) == frozenset()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: m\ncolums: {}\n", "did you mean 'columns'"),
        ("name: m\ncolumns: {m: {statements: ['is {valu}']}}\n", "did you mean 'value'"),
        ("name: m\ncolumns: {m: {values: [a, b], order: {values: [a, c]}}}\n", "order names the value 'c'"),
        ("name: [m\n", "not valid YAML"),
        ("- a\n", "must be a map"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_vocabulary(path)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(DataError, match="did you mean 'colour'"):
        load_vocabulary("color")
