"""A search means the same whatever engine holds the index, and says where it does not."""

import csv
import random
import shutil

import pytest

from dqecir.index.contract import Index
from dqecir.index.engines import move_index
from dqecir.index.exact import ExactIndex
from dqecir.index.filters import parse_filter
from dqecir.search.engine import SearchEngine
from dqecir.search.retriever import ComposedRetriever
from dqecir.search.search_request import SearchRequest

SIZES = ("S", "M", "L", "XL")


@pytest.fixture(scope="module")
def exact(one_vector_folder, garments_folder, tmp_path_factory) -> SearchEngine:
    """120 products of two pictures: titles, brands, several sizes and prices; some are sold out."""
    shop, draw = tmp_path_factory.mktemp("shop"), random.Random(0)
    shutil.copytree(garments_folder / "images", shop / "images")
    with (garments_folder / "attributes.csv").open(encoding="utf-8") as file:
        garments = list(csv.DictReader(file))
    rows = []
    for number in range(0, 240, 2):
        first, second = (garments[place].pop("image") for place in (number, number + 1))
        shown = {name: cell for name, cell in garments[number].items() if name != "split"}
        title = f"{draw.choice(('Linen', 'Leather', 'Woven'))} piece no. {number}"
        brand, price = draw.choice(("Kestrel", "Nørd", "O'Hara & Sons")), draw.randrange(10, 90)
        left = draw.choice(("0", "4", "9"))
        for size in draw.sample(SIZES, 2):
            own = {"size": size, "price": f"{price + SIZES.index(size)}.50", "stock": left}
            rows.append({"id": f"p{number}", "image": first, "title": title, "brand": brand, **shown, **own})
            rows[-1]["further images"] = second
    with (shop / "attributes.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    retriever = ComposedRetriever.from_pretrained(one_vector_folder)
    retriever.build_index(shop, tmp_path_factory.mktemp("engines") / "exact", quiet=True)
    return SearchEngine(retriever.model, retriever.index)


@pytest.fixture(params=["server", "postgres"])
def other(request, exact, tmp_path, monkeypatch) -> SearchEngine:
    """The same index in another engine."""
    if request.param == "postgres":
        request.getfixturevalue("database")
    else:
        pytest.importorskip("qdrant_client")
        monkeypatch.setenv("DQECIR_QDRANT_URL", ":memory:")
    index = move_index(exact.index.folder, tmp_path / "moved", request.param)
    return SearchEngine(exact.model, index)


ITEM = "images/000010.jpg"

REQUESTS = {
    "a picture": SearchRequest(item=ITEM),
    "a product": SearchRequest(item="p10", text="is green"),
    "its second view": SearchRequest(item="images/000011.jpg", text="is teal and has long sleeves"),
    "more than there are": SearchRequest(item=ITEM, text="is green", k=500),
    "a garment": SearchRequest(item=ITEM, text="a white dress", k=30),
    "no preferences": SearchRequest(item=ITEM, text="a white dress", strictness=0),
    "words alone": SearchRequest(text="a yellow shirt with short sleeves", k=20),
    "a brand": SearchRequest(item=ITEM, text="by Kestrel", k=200),
    "another brand": SearchRequest(item=ITEM, text="not by Kestrel", k=200),
    "a price": SearchRequest(item=ITEM, text="under 40 euros", k=200),
    "cheaper": SearchRequest(item=ITEM, text="is cheaper", k=200),
    "one of several sizes": SearchRequest(item=ITEM, where=parse_filter("size = xl"), k=200),
    "none of several sizes": SearchRequest(item=ITEM, where=parse_filter("not size in {S, M}"), k=200),
    "one of several prices": SearchRequest(
        item=ITEM, where=parse_filter("price >= 30 and price < 31"), k=200
    ),
    "sold out as well": SearchRequest(item=ITEM, text="is green", sold_out=True, k=200),
    "several turns": SearchRequest(item=ITEM, text="cheaper than 50", earlier=("is green", "is teal"), k=50),
    "less and more": SearchRequest(item=ITEM, less=("p20",), more=("p30",), exclude=("images/000041.jpg",)),
    "a typing error": SearchRequest(item=ITEM, text="is gren", k=20),
    "a value that nothing has": SearchRequest(item=ITEM, text="is red", k=20),
}


def told(engine: SearchEngine, request: SearchRequest) -> dict:
    """What a search says, but for its times and its state."""
    found = engine.search(request).as_json()
    for name in ("timings", "generation"):
        found.pop(name, None)
    return found


@pytest.mark.parametrize("name", REQUESTS)
def test_a_search_means_what_it_means_with_the_exact_engine(exact, other, name):
    right, found = told(exact, REQUESTS[name]), told(other, REQUESTS[name])
    pairs = list(zip(found.pop("answers"), right.pop("answers"), strict=True))
    assert [one["id"] for one, _ in pairs] == [one["id"] for _, one in pairs]
    for one, expected in pairs:
        assert one.pop("score") == pytest.approx(expected.pop("score"), abs=1e-4)
        assert one == expected
    if found["sold_out_hidden"] is None:
        # The server counts no items.
        right["sold_out_hidden"] = None
    if found["no_text"]:
        # Whether any title has a word is what other engines cannot know.
        assert not right["searched"]["words"]
        for name in ("no_text", "sentence"):
            assert "cannot search words of titles" in found.pop(name) + right.pop(name)
    assert found == right


def test_words_of_titles_are_searched_or_it_is_said_that_they_are_not(exact, other, monkeypatch):
    request = SearchRequest(item=ITEM, text="is green, in leather", k=30)
    assert told(exact, request)["searched"] == {"words": ["leather"], "columns": ["title"]}
    found = told(other, request)
    assert f"The engine {other.index.info()['engine']} cannot search words of titles" in found.pop("sentence")
    # Nothing else differs from an index of the engine exact without words.
    for name in ("text", "why_no_text"):
        monkeypatch.setattr(ExactIndex, name, getattr(Index, name))
    right = told(exact, request)
    assert found["searched"] == right["searched"] == {"words": [], "columns": []}
    assert [one["id"] for one in found["answers"]] == [one["id"] for one in right["answers"]]
