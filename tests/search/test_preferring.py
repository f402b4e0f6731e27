"""Results keep requested values and the garment by the table, and texts alone are searches."""

import csv
import json

import pytest
import torch
from PIL import Image

from dqecir import ComposedRetriever
from dqecir.errors import DataError
from dqecir.language.reader import Ask
from dqecir.search.engine import SearchEngine
from dqecir.search.preferring import ASKED, KEPT, of_reference, of_requests
from dqecir.search.search_request import SearchRequest

GARMENTS = ("dress", "hoodie", "t-shirt")
COLORS = ("red", "blue", "black")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Return (retriever, folder) of pictures of noise, so that only the table contains attributes."""
    folder = tmp_path_factory.mktemp("kept") / "shop"
    folder.mkdir()
    draw = torch.Generator().manual_seed(0)
    rows = []
    for number in range(36):
        pixels = (torch.rand(12, 12, 3, generator=draw) * 255).byte().numpy()
        Image.fromarray(pixels).resize((48, 48)).save(folder / f"{number:02}.png")
        garment, color = GARMENTS[number % 3], COLORS[number // 3 % 3]
        row = {"image": f"{number:02}.png", "garment": garment, "color": color, "title": f"Piece {number}"}
        # Of a third of the reds nobody knows the colour.
        rows.append(row | ({"color": "?"} if color == "red" and number % 4 == 0 else {}))
    rows[0]["title"] = "Velvet piece"
    with (folder / "attributes.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    retriever = ComposedRetriever.from_pretrained()
    retriever.build_index(folder, folder.parent / "index", quiet=True)
    return retriever, folder


def cells(answer, column):
    return [hit.payload.get(column) for hit in answer.results]


@pytest.mark.parametrize("garment", GARMENTS)
def test_a_named_garment_comes_first(shop, garment):
    retriever, folder = shop
    other = next(number for number, own in enumerate(GARMENTS) if own != garment)
    answer = retriever.search(folder / f"{other:02}.png", f"is a {garment}", k=12)
    assert cells(answer, "garment")[:11] == [garment] * 11


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_garment_of_the_reference_is_kept_while_the_colour_changes(shop, number):
    retriever, folder = shop
    answer = retriever.search(folder / f"{number:02}.png", "in blue", k=4)
    assert cells(answer, "garment") == [GARMENTS[number]] * 4
    assert cells(answer, "color") == ["blue"] * 4
    # With too few of them, others follow, and no result is lost.
    assert len(retriever.search(folder / f"{number:02}.png", "in blue", k=30).results) == 30


def test_a_known_cell_counts_before_what_a_head_sees(shop):
    retriever, folder = shop
    answer = retriever.search(folder / "01.png", "in red", k=35)
    # The pictures are noise, so the heads are wrong of many; of some the cell is unknown.
    hoodies = [hit.payload.get("color") for hit in answer.results if hit.payload["garment"] == "hoodie"]
    known = [color == "red" for color in hoodies if color is not None]
    assert known == sorted(known, reverse=True) and True in known and None in hoodies


def test_strictness_zero_leaves_it_to_the_model(shop):
    retriever, folder = shop
    loose = retriever.search(folder / "01.png", "is a dress", k=12, strictness=0)
    assert set(cells(loose, "garment")) != {"dress"}
    with pytest.raises(DataError, match="strictness must be between 0 and 3, not 4"):
        retriever.search(folder / "01.png", "is a dress", strictness=4)


def test_a_text_alone_is_a_search(shop):
    retriever, _ = shop
    answer = retriever.search(text="red dress", k=3)
    # Of some cells nobody knows the colour, and the picture may look red.
    assert set(cells(answer, "garment")) == {"dress"}
    assert {"red"} <= set(cells(answer, "color")) <= {"red", None}
    assert answer.reading.decided_by == ("requested values",)
    assert (
        "There is no reference image: the results are decided by requested values."
        in answer.reading.sentence()
    )
    velvet = retriever.search(text="velvet", k=3)
    assert velvet.results[0].id == "00.png"
    assert velvet.reading.decided_by == ("words of title",)
    both = retriever.search(text="velvet hoodie")
    assert both.reading.decided_by == ("requested values", "words of title")
    nothing = retriever.search(text="asdf qwerty")
    assert nothing.reading.decided_by == ()
    assert "The text was not understood, so the items are in the order" in nothing.reading.sentence()
    with pytest.raises(DataError, match="a picture, an item of the index or a text: give at least one"):
        retriever.search(text="  ")


def test_texts_alone_and_with_pictures_are_answered_together(shop):
    retriever, folder = shop
    engine = SearchEngine(retriever.model, retriever.index)
    requests = [
        SearchRequest(text="red dress", k=3),
        SearchRequest(folder / "01.png", "in blue", k=3),
        SearchRequest(folder / "02.png", k=3),
    ]
    together = engine.answer([engine.prepare(request) for request in requests])
    for one, request in zip(together, requests, strict=True):
        alone = engine.search(request)
        assert [hit.id for hit in one.results] == [hit.id for hit in alone.results]
        assert one.reading == alone.reading
    assert together[1].reading.decided_by is None


def test_an_encoder_with_texts_decides_by_the_embedding_of_the_text(model, shop, tmp_path):
    _, folder = shop
    retriever = ComposedRetriever(model.with_method("image_plus_text", {}).eval())
    retriever.build_index(folder, tmp_path / "index", quiet=True)
    answer = retriever.search(text="is a dress", k=3)
    assert "the embedding of the text" in answer.reading.decided_by
    assert len({round(hit.score, 6) for hit in answer.results}) > 1


def test_a_value_that_nothing_has_is_said(shop):
    retriever, folder = shop
    answer = retriever.search(folder / "01.png", "in purple")
    assert [(one.attribute, one.value) for one in answer.reading.nowhere] == [("color", "purple")]
    assert "No item has color: purple." in answer.reading.sentence()
    assert answer.as_json()["nowhere"][0]["value"] == "purple"
    assert retriever.search(folder / "01.png", "in red").reading.nowhere == ()


def test_the_command_line_searches_by_text_alone(shop, dqecir):
    _, folder = shop
    asked = ("search", "--index", folder.parent / "index", "--text", "red dress")
    code, out, _ = dqecir(*asked, "-k", 2, "--json")
    assert code == 0 and json.loads(out)["decided_by"] == ["requested values"]
    code, _, err = dqecir(*asked, "--sheet", folder / "sheet.png")
    assert code == 1 and "a contact sheet shows the reference image" in err
    code, _, err = dqecir("search", "--index", folder.parent / "index")
    assert code == 1 and "give at least one" in err


def test_preferences_are_worked_out_by_hand():
    asks = [Ask("color", "is", "red", "red"), Ask("color", "is not", "blue", "not blue")]
    [cell] = of_requests(asks, (), 1.0)
    assert cell.values == {"red": ASKED, "blue": -ASKED} and cell.others == -ASKED
    [refused] = of_requests([Ask("color", "is not", "blue", "not blue")], (), 2.0)
    assert refused.values == {"blue": -2 * ASKED} and refused.others == 0
    assert of_requests([Ask("length", "more", None, "longer")], (), 1.0) == []
    [kept] = of_reference({"garment": {"dress": 0.75, "skirt": 0.25}}, 1.0)
    assert kept.values == {"dress": 0.5 * KEPT, "skirt": -0.5 * KEPT} and kept.others == -KEPT


def test_a_turn_keeps_what_earlier_ones_asked(shop, dqecir):
    retriever, folder = shop
    answer = retriever.search(folder / "01.png", "now in blue", k=3, earlier=["is a dress", "in red"])
    assert set(zip(cells(answer, "garment"), cells(answer, "color"), strict=True)) == {("dress", "blue")}
    assert answer.reading.together == "is a dress, in blue"
    asked = ("search", "--index", folder.parent / "index", "-k", 3, "--earlier", "a red dress")
    code, out, _ = dqecir(*asked, "--earlier", "now in blue", "--text", "no, not that", "--json")
    found = json.loads(out)
    assert {one["attributes"].get("color") for one in found["answers"]} <= {"red", None}
    assert code == 0 and found["together"]
