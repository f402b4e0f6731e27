"""A search finds words of titles, shows them, and ranks equal items by the picture."""

import csv
import json

import pytest

from dqecir import ComposedRetriever
from dqecir.index.contract import Index
from dqecir.index.exact import ExactIndex


@pytest.fixture(scope="module")
def shop(garments_folder, tmp_path_factory):
    """Return twenty garments, three of which are of leather by their titles: (retriever, folder, index,
    rows)."""
    with (garments_folder / "attributes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:20]
    folder = tmp_path_factory.mktemp("shop")
    (folder / "images").mkdir()
    for number, row in enumerate(rows):
        (folder / row["image"]).write_bytes((garments_folder / row["image"]).read_bytes())
        row["title"] = f"Kestrel {'leather' if number in (7, 11, 15) else 'woven'} piece"
    with (folder / "attributes.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    retriever = ComposedRetriever.from_pretrained()
    retriever.build_index(folder, folder.parent / "index-of-words", quiet=True)
    return retriever, folder, folder.parent / "index-of-words", rows


def test_what_a_title_calls_leather_is_found_and_it_is_said(shop):
    retriever, folder, _, rows = shop
    reference = folder / rows[0]["image"]
    answer = retriever.search(reference, "in leather, for a wedding", k=5)
    assert {hit.id for hit in answer.results[:3]} == {rows[place]["image"] for place in (7, 11, 15)}
    assert answer.reading.unread == ("leather", "wedding")
    assert answer.reading.without_effect == ("wedding",)
    assert "Searched in titles: leather. Without effect: wedding." in answer.reading.sentence()
    assert answer.as_json()["searched"] == {"words": ["leather"], "columns": ["title"]}
    found = [hit.id for hit in answer.results[:3]]
    [query] = retriever.encode_query([reference], ["in leather, for a wedding"])
    alike = retriever.encode_images([folder / item for item in found])[:, 0] @ query[0]
    assert alike.tolist() == sorted(alike.tolist(), reverse=True)


def test_a_refused_word_is_not_searched(shop):
    retriever, folder, _, rows = shop
    answer = retriever.search(folder / rows[0]["image"], "not leather")
    assert answer.reading.searched == ()
    assert "leather" in answer.reading.without_effect


def test_a_filter_holds_for_words_too(shop):
    retriever, folder, _, rows = shop
    color = rows[7]["color"]
    answer = retriever.search(folder / rows[0]["image"], "in leather", k=20, where=f"not color = {color}")
    assert answer.results and all(hit.payload["color"] != color for hit in answer.results)


def test_the_command_line_says_it(shop, dqecir):
    _, folder, index, rows = shop
    asked = ("search", "--index", index, "--image", folder / rows[0]["image"])
    code, out, _ = dqecir(*asked, "--text", "in leather", "-k", 3)
    assert code == 0 and "Searched in titles: leather." in out
    code, out, _ = dqecir(*asked, "--text", "in leather", "--json")
    assert json.loads(out)["searched"]["words"] == ["leather"]
    code, out, _ = dqecir("index", "info", "--index", index)
    assert json.loads(out)["text"] == ["title"]


def test_another_engine_says_by_name_that_it_has_no_words(shop, monkeypatch):
    retriever, folder, index, rows = shop
    for name in ("text", "why_no_text"):
        monkeypatch.setattr(ExactIndex, name, getattr(Index, name))
    fresh = ComposedRetriever(retriever.model).open_index(index)
    answer = fresh.search(folder / rows[0]["image"], "in leather")
    assert "The engine exact cannot search words of titles: move" in answer.reading.sentence()
