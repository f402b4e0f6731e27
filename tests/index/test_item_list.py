"""The list of a segment's items: written items are read again by row, by id and by column."""

import os
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dqecir.errors import EngineError
from dqecir.index import item_list as items
from dqecir.index.item_list import ItemsWriter, open_items
from dqecir.index.payload_columns import Columns

VALUES = st.one_of(st.text(max_size=4), st.integers(-3, 3), st.floats(-2, 2), st.booleans(), st.none())
PAYLOADS = st.dictionaries(st.sampled_from(["color", "price", "", "ß "]), VALUES, max_size=4)
# Names of files may hold bytes that are no text, which Python keeps as lone surrogates.
IDS = st.text(st.characters(codec=None), min_size=1, max_size=3)


def write(place, entries):
    with closing(ItemsWriter(place)) as writer:
        for start in range(0, len(entries), 2):
            writer.add(entries[start : start + 2])
        writer.finish()


@given(st.dictionaries(IDS, PAYLOADS, min_size=1, max_size=12), st.sets(IDS, max_size=4))
def test_what_is_written_is_read_again(tmp_path_factory, found, others):
    place = tmp_path_factory.mktemp("items")
    write(place, list(found.items()))
    stored = open_items(place)
    assert [stored.entry(row) for row in range(len(stored))] == list(found.items())
    ids = [*others, *found]
    assert stored.rows(ids).tolist() == [list(found).index(one) if one in found else -1 for one in ids]
    columns = Columns.of(list(found.values()))
    assert stored.columns.names == columns.names
    for name in ("color", "price", "", "ß ", "unheard"):
        one, other = stored.columns[name], columns[name]
        assert one.codes.tolist() == other.codes.tolist()
        assert list(map(repr, one.values)) == list(map(repr, other.values))
        assert one.has_numbers == other.has_numbers
        bounds = [(np.less, 40.0)]
        np.testing.assert_array_equal(one.between(bounds), other.between(bounds))


def test_ids_of_one_hash_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(items, "hash_of", lambda item_id: len(item_id))
    write(tmp_path, [("a", {}), ("b", {}), ("cc", {}), ("d", {})])
    assert open_items(tmp_path).rows(["d", "c", "cc", "a", "ab"]).tolist() == [3, -1, 2, 0, -1]


def test_it_is_read_on_after_its_files_are_gone(tmp_path):
    write(tmp_path, [("a", {"color": "red"}), ("b", {"color": "blue"})])
    stored = open_items(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    assert stored.entry(1) == ("b", {"color": "blue"})
    assert stored.columns["color"].matching(["RED"]).tolist() == [True, False]


@pytest.mark.parametrize("name", [items.LINES, items.LOOKUP])
def test_a_cut_off_file_is_refused(tmp_path, name):
    write(tmp_path, [("a", {})])
    os.truncate(tmp_path / name, 0)
    with pytest.raises(EngineError, match=name):
        open_items(tmp_path)


@pytest.mark.parametrize("first", range(1, 60, 7))
def test_the_first_values_of_a_column_are_read_without_the_others(tmp_path, monkeypatch, first):
    monkeypatch.setattr(items, "FIRST", first)
    values = [1234, "a title", [5.25, "x, y"], 'with "quotes"', 99.5, True, -7, "é", "end"] * 3
    write(tmp_path, [(f"i{n}", {"mixed": value}) for n, value in enumerate(values)])
    read = open_items(tmp_path).columns["mixed"].values
    right = values[:9]
    if first > 20:
        assert read[0] == right[0]
        assert "_all" not in vars(read)
    assert [read[place] for place in (8, 0, -1)] == [right[place] for place in (8, 0, -1)]
    assert list(read) == right
    assert len(read) == 9
