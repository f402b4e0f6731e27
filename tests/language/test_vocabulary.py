"""Vocabulary files: shipped ones are complete, and errors name mistakes."""

import pytest

from dqecir.errors import DataError
from dqecir.language.vocabulary import SHIPPED, load_vocabulary, shipped_vocabularies
from dqecir.synthetic.garment_vectors import GARMENT_ATTRIBUTES
from dqecir.synthetic.scene_vectors import SCENE_ATTRIBUTES


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


def kinds_of(name):
    """Yield every set of phrases of a vocabulary: (its place, phrases)."""
    for title, column in load_vocabulary(name).columns.items():
        yield f"{title} statements", column.statements
        yield f"{title} negations", column.negations
        if column.order:
            yield f"{title} up", column.order.up
            yield f"{title} down", column.order.down
        for value, spoken in column.values.items():
            yield f"{title} {value} statements", spoken.statements
            yield f"{title} {value} negations", spoken.negations


@pytest.mark.parametrize("name", SHIPPED)
def test_about_two_in_five_phrases_of_every_kind_are_held_out(name):
    for where, phrases in kinds_of(name):
        if phrases and phrases.all:
            assert 0.33 <= len(phrases.held_out) / len(phrases.all) <= 0.45, where


def test_no_held_out_phrase_is_shown_anywhere_else():
    kinds = [phrases for name in SHIPPED for _, phrases in kinds_of(name) if phrases]
    seen = {template for phrases in kinds for template in phrases.seen}
    held_out = {template for phrases in kinds for template in phrases.held_out}
    assert not seen & held_out


def test_common_columns_have_nine_statements_or_more():
    for name, column in (
        ("colour", "color"),
        ("shape", "sleeves"),
        ("shape", "length"),
        ("pattern", "pattern"),
    ):
        assert len(load_vocabulary(name).columns[column].statements.all) >= 9


def test_every_value_of_drawn_garments_is_known():
    columns = {title: column for name in SHIPPED for title, column in load_vocabulary(name).columns.items()}
    for title, values in GARMENT_ATTRIBUTES.items():
        assert set(values) <= set(columns[title].values), title


def test_every_value_of_drawn_scenes_is_known():
    columns = {title: column for name in SHIPPED for title, column in load_vocabulary(name).columns.items()}
    for title, values in SCENE_ATTRIBUTES.items():
        assert set(columns[title].values) == set(values), title
    assert columns["figure_count"].order.values == (("1",), ("2",), ("3",), ("4",), ("5",))


def test_a_catalogue_is_spoken_of_by_the_vocabularies_that_know_its_columns():
    def names(columns):
        return [vocabulary.name for vocabulary in shipped_vocabularies(columns)]

    assert names(GARMENT_ATTRIBUTES) == ["colour", "shape", "pattern"]
    assert names(SCENE_ATTRIBUTES) == ["object_colour", "quantity", "appearance", "form"]
    assert names(["Colour", "weight"]) == ["colour"]
    assert shipped_vocabularies() == tuple(load_vocabulary(name) for name in SHIPPED)


def test_groups_part_tops_from_bottoms():
    garment = load_vocabulary("shape").columns["garment"]
    assert garment.group("dress") == garment.group("shirt") == "tops"
    assert garment.group("pants") == garment.group("skirt") != "tops"
    assert garment.group("monocle") == "monocle"


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
        ("name: m\ncolumns: {m: {statements: ['is {value']}}\n", "a brace outside of a slot"),
        ("name: m\ncolumns: {m: {statements: [is nice]}}\n", "names no value"),
        ("name: m\ncolumns: {m: {statements: ['{value} {owner}']}}\n", "the column no owner: add one"),
        ("name: m\ncolumns: {m: {values: [a], order: {values: [a], up: ['more {owner}']}}}\n", "no owner"),
        ("name: m\ncolumns: {m: {owner: {column: n}}}\n", "unknown: Field required"),
        ("name: m\ncolumns: {m: {values: [a], groups: {g: [a], h: [a]}}}\n", "names the value 'a' twice"),
        ("name: m\ncolumns: {m: {values: {a: {wrds: [b]}}}}\n", "did you mean 'words'"),
        ("name: m\nname: n\ncolumns: {}\n", "the key 'name' comes twice"),
        ("columns: {}\n", "name: Field required"),
        ("name: [m\n", "not valid YAML"),
        ("- a\n", "write a map"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_vocabulary(path)


def test_yes_and_no_are_words(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text("name: m\ncolumns: {lined: {values: {yes: [lined], no: [unlined]}}}\n")
    assert load_vocabulary(path).columns["lined"].values["no"].words == ("unlined",)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"material\.yaml cannot be read: No such file"):
        load_vocabulary(tmp_path / "material.yaml")
    (tmp_path / "m.yaml").write_bytes("name: gr\xfcn\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        load_vocabulary(tmp_path / "m.yaml")


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(DataError, match="did you mean 'colour'"):
        load_vocabulary("color")
