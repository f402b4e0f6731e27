"""Searches in a shop whose products have several pictures."""

import json

import pytest
from PIL import Image, ImageDraw

from dqecir import ComposedRetriever
from dqecir.search.engine import SearchEngine
from dqecir.search.search_request import SearchRequest
from tests.conftest import tiny_model

COLOURS = ("red", "blue", "green", "black", "white", "orange")


@pytest.fixture
def retriever() -> ComposedRetriever:
    return ComposedRetriever(tiny_model().with_method("dqe", {}))


@pytest.fixture
def shop(tmp_path):
    """Return six products with two views, two sizes and two prices each; the last two share a third
    picture.
    """
    folder = tmp_path / "shop"
    folder.mkdir()
    rows = ["id,image,further images,color,size,price"]
    for number, colour in enumerate(COLOURS):
        for view in range(2):
            picture = Image.new("RGB", (32, 32), colour)
            ImageDraw.Draw(picture).rectangle((4, 4, 9 + 8 * view, 12), fill="grey")
            picture.save(folder / f"{colour}{view}.png")
        further = f"{colour}1.png" + (", chart.png" if number > 3 else "")
        rows.append(f'p{number},{colour}0.png,"{further}",{colour},S,{20 + number}')
        rows.append(f"p{number},{colour}0.png,,{colour},M,{40 + number}")
    Image.new("RGB", (32, 32), "yellow").save(folder / "chart.png")
    (folder / "attributes.csv").write_text("\n".join([*rows, ""]), encoding="utf-8")
    return folder


@pytest.fixture
def built(retriever, shop, tmp_path):
    retriever.build_index(shop, tmp_path / "index", quiet=True)
    return retriever


def ask(retriever, request):
    """Search as the service does, without excluding the reference's file."""
    return SearchEngine(retriever.model, retriever.index).search(request)


def test_a_result_is_a_product_and_names_its_views(built, shop):
    found = built.search(shop / "red1.png", "is blue", k=5).results
    assert sorted(one.product for one in found) == ["p1", "p2", "p3", "p4", "p5"]
    first = next(one for one in found if one.product == "p4")
    assert {first.id, *first.other_views} == {"white0.png", "white1.png", "chart.png"}
    said = first.as_json(path=False)
    assert (said["product"], said["views"]) == ("p4", list(first.other_views))
    # Both variants name the first picture; the further ones are of the first variant alone.
    assert said["attributes"]["size"] == (["S", "M"] if first.id == "white0.png" else "S")
    assert said["attributes"]["price"] == ["24", "44"]
    assert "dqecir:product" not in said["attributes"]


def test_filters_ask_of_any_variant(built, shop):
    def found(where):
        return [one.product for one in built.search(shop / "red0.png", where=where).results]

    assert sorted(found("price < 23")) == ["p1", "p2"]
    assert sorted(found("price > 43 and size = m")) == ["p4", "p5"]
    assert found("price > 30 and price < 40 and size = s") == []


def test_sold_out_products_are_counted_and_not_their_views(retriever, shop, tmp_path):
    table = shop / "attributes.csv"
    rows = table.read_text(encoding="utf-8").splitlines()
    stock = ["stock", *("0" if row.startswith(("p1,", "p2,")) else "3" for row in rows[1:])]
    # One variant of p2 can be ordered.
    stock[-7] = "2" if rows[-7].startswith("p2,") else stock[-7]
    table.write_text("\n".join(f"{row},{one}" for row, one in zip(rows, stock, strict=True)) + "\n", "utf-8")
    retriever.build_index(shop, tmp_path / "index", quiet=True)
    response = ask(retriever, SearchRequest(item="p0"))
    assert sorted(one.product for one in response.results) == ["p2", "p3", "p4", "p5"]
    assert response.sold_out_hidden == 1


def test_words_compare_with_the_price_from_which_the_reference_is_sold(built):
    response = ask(built, SearchRequest(text="is cheaper", item="green1.png"))
    assert sorted(one.product for one in response.results) == ["p0", "p1"]
    assert response.filters == ("price < 22",)


def test_a_product_is_a_reference_by_its_id_and_is_not_found_itself(built):
    by_product, by_view = (ask(built, SearchRequest(item=name)).results for name in ("p4", "white0.png"))
    assert by_product == by_view
    assert sorted(one.product for one in by_view) == ["p0", "p1", "p2", "p3", "p5"]
    # The picture that it shares with another product is not found there either.
    chart = ask(built, SearchRequest(item="chart.png")).results
    assert sorted(one.product for one in chart) == ["p0", "p1", "p2", "p3", "p5"]
    assert not {one.id for one in chart} & {"chart.png", "chart.png@p5"}


def test_what_is_excluded_or_disliked_is_excluded_with_all_its_views(built):
    request = SearchRequest(item="p0", exclude=("blue1.png",), less=("p2",))
    found = ask(built, request).results
    assert sorted(one.product for one in found) == ["p3", "p4", "p5"]


def test_pictures_that_are_added_join_their_product(built, shop, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    Image.new("RGB", (32, 32), "darkred").save(more / "dark.png")
    (more / "attributes.csv").write_text("id,image,color\np0,dark.png,red\n", encoding="utf-8")
    built.add_pictures(more, quiet=True)
    assert built.index.views(["p0"]) == {"p0": ["red0.png", "red1.png", "dark.png"]}


def test_an_index_of_single_pictures_knows_no_products(retriever, shop, tmp_path, dqecir):
    rows = ["id,image,color", *(f"p{number},{colour}0.png,{colour}" for number, colour in enumerate(COLOURS))]
    (shop / "attributes.csv").write_text("\n".join([*rows, ""]), encoding="utf-8")
    retriever.build_index(shop, tmp_path / "index", quiet=True)
    assert retriever.index.payload("red0.png").keys() == {"path", "id", "color", "dqecir:content"}
    found = retriever.search(shop / "red0.png", k=3).results
    assert not any({"product", "views"} & set(one.as_json(path=True)) for one in found)
    _, said, _ = dqecir("index", "info", "--index", tmp_path / "index")
    assert not {"products", "pictures"} & set(json.loads(said))


def test_index_info_counts_products_and_pictures(built, tmp_path, dqecir):
    _, said, _ = dqecir("index", "info", "--index", tmp_path / "index")
    info = json.loads(said)
    assert (info["products"], info["pictures"]) == (6, 14)


def test_a_product_is_deleted_by_its_id_with_all_its_views(built, tmp_path, dqecir):
    _, said, _ = dqecir("index", "delete", "--index", tmp_path / "index", "p4", "red0.png", "nobody")
    assert "4 items deleted, 1 not found: nobody" in said
    built.index.refresh()
    assert sorted(built.index.views(["p4", "p0"]).items()) == [("p0", ["red1.png"])]
