"""The command that reads a file of texts: its output, and one sentence for every bad input."""

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from dqecir.errors import DataError
from dqecir.index.column_facts import facts_of_columns, facts_of_counts
from dqecir.index.payload_columns import PayloadColumn
from dqecir.search.text_reading import MANY_VALUES, read_texts, reader_of_facts

GOOD = '{"id": "a/1", "text": "is red with a bow", "category": "dress"}\n'


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_text_is_written_with_its_asks_and_unread_words(tmp_path, dqecir):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(GOOD + '\n{"id": "2", "text": "gren\u2028", "other": 3}\n', encoding="utf-8")
    assert dqecir("read", source, "--out", out)[0] == 0
    first, second = rows(out)
    assert (first["id"], first["text"]) == ("a/1", "is red with a bow")
    assert first["asks"] == [{"column": "color", "op": "is", "value": "red", "words": "red"}]
    assert first["unread"] == ["bow"]
    assert second["asks"][0]["value"] == "green"
    assert second["corrections"] == [{"word": "gren", "read_as": "green"}]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"text": "is red"}', "line 1 has no 'id': write "),
        (GOOD + '{"id": "2"}', "line 2 has no 'text': write "),
        ('{"id": 5, "text": "is red"}', "line 1 has no text in quotes as its 'id': write "),
        (GOOD + "is red", "line 2 is not JSON"),
        ("[1]", "line 1 is not an object"),
        ('{"id": "1", "text": "red", "category": 4}', "line 1 has a 'category' that is not a text"),
        ("  \n", "is empty"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, content, sentence):
    source = tmp_path / "in.jsonl"
    source.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=sentence) as caught:
        read_texts(source, tmp_path / "out.jsonl")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_the_command_ends_with_one_sentence_and_exit_1(tmp_path, dqecir):
    code, _, error = dqecir("read", tmp_path / "none.jsonl", "--out", tmp_path / "out.jsonl")
    assert (code, error.count("dqecir:")) == (1, 1)
    assert "cannot be read" in error


def test_a_missing_file_or_folder_is_said(tmp_path):
    source = tmp_path / "in.jsonl"
    with pytest.raises(DataError, match="cannot be read"):
        read_texts(source, tmp_path / "out.jsonl")
    source.write_bytes(b'{"id": "\xff"}')
    with pytest.raises(DataError, match="is not UTF-8"):
        read_texts(source, tmp_path / "out.jsonl")
    with pytest.raises(DataError, match="does not exist"):
        read_texts(source, tmp_path / "none" / "out.jsonl")


def test_an_index_or_a_model_is_read_but_not_both(tmp_path):
    with pytest.raises(DataError, match="not both"):
        read_texts(tmp_path / "in", tmp_path / "out", tmp_path, tmp_path)


def test_an_index_is_read_by_its_attributes_and_numbers_and_the_commoner_spelling():
    values = {
        "title": Counter(f"Kestrel jacket no. {n} with a zip" for n in range(4)),
        "brand": Counter(["Kestrel", "KESTREL", "Kestrel", "Nike"]),
        "price": Counter(["0", "10", "20", "30"]),
    }
    reader = reader_of_facts({name: facts_of_counts(own, 1000, 1) for name, own in values.items()})
    reading = reader.read("from kestrel, under 20 euros")
    assert [(ask.column, ask.operation, ask.value) for ask in reading.asks] == [("brand", "is", "Kestrel")]
    assert [(bound.column, bound.order, bound.number) for bound in reading.constraints] == [
        ("price", "<", 20)
    ]
    assert set(reader.linker.values) == {"brand"}


def test_a_model_is_read_by_the_columns_of_its_heads(tmp_path, model_folder, dqecir):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"id": "1", "text": "is red"}', encoding="utf-8")
    assert dqecir("read", source, "--out", out, "--model", model_folder)[0] == 0
    assert [ask["value"] for ask in rows(out)[0]["asks"]] == ["red"]


class _Titles(Sequence):
    """More titles than are read."""

    def __len__(self):
        return 3 * MANY_VALUES

    def __getitem__(self, place):
        assert place <= MANY_VALUES
        return f"Jacket no. {place}"


def test_of_a_column_of_many_texts_the_first_are_read():
    column = PayloadColumn(np.arange(1, 3 * MANY_VALUES + 1), _Titles())
    facts = facts_of_columns([(column, column.codes > 0)], MANY_VALUES, 1)
    assert not reader_of_facts({"title": facts}).linker.values
