"""The words of items: found again after every change, and from any thread."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dqecir.errors import EngineError
from dqecir.index import exact, item_list, item_text, segments
from dqecir.index.contract import ItemBatch
from dqecir.index.engines import move_index
from dqecir.index.exact import ExactIndex
from dqecir.index.item_preferences import CellPreference, Preference
from tests.index.contract import HEADER

WORDS = ("leather", "Striped", "canvas", "Été", "dresses")
TITLES = st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.dictionaries(st.sampled_from("abcdef"), TITLES, min_size=1, max_size=3)),
        st.tuples(st.just("delete"), st.sets(st.sampled_from("abcdef"), max_size=2)),
    ),
    max_size=7,
)


def batch(titles, **more) -> ItemBatch:
    """Return items with these titles and equal tokens."""
    payloads = [{"title": title, **more} for title in titles.values()]
    return ItemBatch(list(titles), torch.ones(len(titles), 3, 8), payloads)


def built(folder, titles, **more) -> ExactIndex:
    return ExactIndex.build(folder, HEADER, iter([batch(titles, **more)]))


def found(index, *words, k=9) -> list[tuple[str, float]]:
    """Return the items with any of the words, the best first, and the scores that the words add."""
    [with_words] = index.search(torch.zeros(1, 1, 8), k, prefer=[Preference(words=words, word_weight=1.0)])
    return [(hit.id, round(hit.score, 4)) for hit in with_words if hit.score > 0]


@given(CHANGES)
def test_words_are_in_step_with_every_change(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("words")
    index = built(folder / "i", {"a": "leather", "z": "plain"})
    titles = {"a": "leather", "z": "plain"}
    for kind, change in changes:
        if kind == "add":
            index.add(batch(change))
            titles = {name: title for name, title in titles.items() if name not in change} | change
        else:
            index.delete(list(change))
            titles = {name: title for name, title in titles.items() if name not in change}
    fresh = built(folder / "fresh", titles)
    for one in (index, ExactIndex.open(folder / "i"), move_index(folder / "i", folder / "moved", "exact")):
        for word in WORDS:
            assert found(one, word) == found(fresh, word)
            assert one.text.knows(word) == fresh.text.knows(word)
    ExactIndex.verify(folder / "i")


def test_endings_accents_and_capitals_do_not_matter(tmp_path):
    index = built(tmp_path / "i", {"a": "LEATHER Dress", "b": "robe d’été", "c": "V-neck"})
    assert [name for name, _ in found(index, "dresses")] == ["a"]
    assert [name for name, _ in found(index, "ete")] == ["b"]
    assert [name for name, _ in found(index, "v-neck")] == ["c"]
    assert not index.text.knows("wedding") and not index.text.knows("!")


def test_rare_words_and_short_texts_count_more(tmp_path):
    titles = {
        "both": "red leather bag",
        "rare": "suede bag",
        "common": "leather bag",
        "long": "leather " + "x " * 9,
    }
    index = built(tmp_path / "i", titles)
    assert [name for name, _ in found(index, "leather")][-1] == "long"
    assert next(name for name, _ in found(index, "suede", "leather")) == "rare"
    # A word that no text holds takes nothing from the others.
    assert found(index, "leather", "asdf") == found(index, "leather")


def test_only_columns_of_texts_are_searched(tmp_path):
    notes = [f"kind {number} of a long note" for number in range(3)]
    payloads = [
        {
            "title": "Kestrel bag",
            "color": "red",
            "sku": "red-1",
            "link": "https://red.example/red",
            "note": note,
        }
        for note in notes
    ]
    payloads[0]["description"] = "<p class='red'>Soft <b>lining</b></p>" + " and more" * 20
    index = ExactIndex.build(
        tmp_path / "i", HEADER, iter([ItemBatch(["a", "b", "c"], torch.ones(3, 3, 8), payloads)])
    )
    assert index.info()["text"] == ["description", "note", "title"]
    assert not index.text.knows("red")
    assert index.text.knows("lining") and index.text.knows("note")


def test_cells_add_where_they_are_known(tmp_path):
    index = built(tmp_path / "i", {"a": "x", "b": "x"}, color="Red")
    index.add(batch({"c": "x"}, color="blue"))
    index.add(batch({"d": "x"}))
    prefer = Preference((CellPreference("color", {"red": 2.0}, others=-1.0),))
    [hits] = index.search(torch.zeros(1, 1, 8), 9, prefer=[prefer])
    assert [(hit.id, hit.score) for hit in hits] == [("a", 2.0), ("b", 2.0), ("d", 0.0), ("c", -1.0)]


def test_threads_search_while_segments_come_and_go(tmp_path):
    index = built(tmp_path / "i", {"a": "leather"})
    with ThreadPoolExecutor(4) as pool:
        searches = [pool.submit(found, index, "leather", k=99) for _ in range(20)]
        for number in range(12):
            index.add(batch({f"n{number}": "leather"}))
        assert all(search.result() for search in searches)
    assert len(found(index, "leather", k=99)) == 13


def test_an_index_of_an_earlier_version_says_that_it_has_no_words(tmp_path, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(item_list, "has_fts5", lambda: False)
        index = built(tmp_path / "i", {"a": "leather"})
    assert not (tmp_path / "i" / "s00000001" / "text.sqlite").exists()
    assert index.text is None and found(index, "leather") == []
    assert index.info()["text"] == index.why_no_text()
    assert "built without the words of its titles" in index.why_no_text()
    # What is written from now on has them, and a merge of all writes those of the others.
    for number in range(8):
        index.add(batch({f"n{number}": "leather"}))
    index.delete(["a", "n0"])
    assert index.text is not None or "build it again" in index.why_no_text()


def test_a_python_without_fts5_opens_and_says_so(tmp_path, monkeypatch):
    built(tmp_path / "i", {"a": "leather"})
    for module in (item_list, segments, exact):
        monkeypatch.setattr(module, "has_fts5", lambda: False)
    index = ExactIndex.open(tmp_path / "i")
    assert index.text is None and "has no FTS5" in index.why_no_text()
    index.add(batch({"b": "canvas"}))
    assert found(index, "canvas") == [] and len(index) == 2


def test_damage_is_told(tmp_path):
    index = built(tmp_path / "i", {"a": "leather"})
    file = tmp_path / "i" / "s00000001" / "text.sqlite"
    data = file.read_bytes()
    del index
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(EngineError, match=r"text\.sqlite is damaged: build the index again"):
        ExactIndex.verify(tmp_path / "i")
    file.write_bytes(b"no database" * 99)
    with pytest.raises(EngineError, match=r"words of .*s00000001 are damaged .*: build the index again"):
        ExactIndex.open(tmp_path / "i")
    file.unlink()
    with pytest.raises(EngineError, match=r"text\.sqlite is missing: build the index again"):
        ExactIndex.open(tmp_path / "i")


def test_the_file_is_never_written_to_again(tmp_path):
    index = built(tmp_path / "i", {"a": "leather", "b": "canvas"})
    file = tmp_path / "i" / "s00000001" / "text.sqlite"
    written = file.read_bytes()
    assert found(index, "leather")
    index.add(batch({"c": "leather"}))
    index.change_payloads({"b": {"title": "leather"}})
    assert {item for item, _ in found(index, "leather")} == {"a", "b", "c"}
    assert file.read_bytes() == written
    assert sorted(path.name for path in file.parent.glob("text*")) == ["text.sqlite"]


def test_of_many_titles_the_first_say_that_words_are_searched(tmp_path, monkeypatch):
    index = built(tmp_path / "i", {f"i{n}": f"Kestrel jacket no. {n}, with a zip" for n in range(3000)})
    monkeypatch.setattr(item_list, "FIRST", 1 << 16)
    monkeypatch.setattr(
        item_list.StoredValues, "_all", property(lambda values: pytest.fail("reads every title"))
    )
    index = ExactIndex.open(tmp_path / "i")
    assert index.text.columns == ("title",)
    assert index.column_facts(60, 20)["title"].values is None


def test_a_full_disk_is_told_as_by_other_files_and_the_index_stays(tmp_path, monkeypatch):
    index = built(tmp_path / "index", {"a": "leather"})
    opened = sqlite3.connect

    def small(*arguments, **options):
        database = opened(*arguments, **options)
        database.execute("PRAGMA max_page_count = 8")
        return database

    monkeypatch.setattr(item_text.sqlite3, "connect", small)
    with pytest.raises(
        EngineError, match=r"cannot be written to \(database or disk is full\): .* Free some space"
    ):
        index.add(batch({"b": " ".join(f"word{number}" for number in range(20_000))}))
    with pytest.raises(OSError, match="database or disk is full"):
        built(tmp_path / "new", {"b": " ".join(f"word{number}" for number in range(20_000))})
    monkeypatch.undo()
    assert not (tmp_path / "new").exists()
    assert ExactIndex.open(tmp_path / "index").ids() == ["a"]
