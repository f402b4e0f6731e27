"""A service over a shop whose products have several pictures."""

import json

import pytest
from PIL import Image

from dqecir.index.exact import ExactIndex
from dqecir.search.retriever import ComposedRetriever
from dqecir.service.configuration import ServiceSettings

COLOURS = ("red", "blue", "green")


@pytest.fixture
def settings(served, tmp_path) -> ServiceSettings:
    """Return settings with three products of three pictures, each in two sizes and at two prices, and one
    of one picture.
    """
    shop = tmp_path / "shop"
    shop.mkdir()
    rows = ["Handle,Title,Image Src,Option1 Name,Option1 Value,Variant Price"]
    for number, colour in enumerate(COLOURS):
        for view in range(3):
            Image.new("RGB", (32, 32 + view), colour).save(shop / f"{colour}{view}.png")
        rows.append(f"{colour},A {colour} tee,{colour}0.png,Size,S,{10 + number}.00")
        rows += [f"{colour},,{colour}1.png,,M,{20 + number}.00", f"{colour},,{colour}2.png,,,"]
    Image.new("RGB", (32, 32), "gold").save(shop / "cap.png")
    rows.append("cap,A cap,cap.png,Title,Default Title,5")
    (shop / "products_export.csv").write_text("\n".join([*rows, ""]), encoding="utf-8")
    retriever = ComposedRetriever.from_pretrained(served[0])
    retriever.build_index(shop, tmp_path / "index", quiet=True)
    return ServiceSettings(index=tmp_path / "index", model=served[0])


def listed(client, **query) -> list[dict]:
    return client.get("/v1/items", params=query).json()["items"]


def test_the_list_has_each_product_once_with_all_its_pictures(client):
    found = listed(client)
    assert [one["product"] for one in found] == ["blue", "cap", "green", "red"]
    red = next(one for one in found if one["product"] == "red")
    assert (red["id"], red["views"]) == ("red0.png", ["red1.png", "red2.png"])
    assert red["attributes"]["size"] == ["S", "M"]
    assert red["attributes"]["price"] == ["10.00", "20.00"]
    about = client.get("/v1/about").json()
    assert (about["items"], about["pictures"]) == (4, 10)
    assert about["attributes"]["size"] == {
        "values": ["M", "S"],
        "numeric": False,
        "role": "attribute",
        "numbers": None,
    }
    assert "dqecir:product" not in about["attributes"]


def test_a_list_goes_on_after_a_product(client):
    first = client.get("/v1/items", params={"limit": 3}).json()
    rest = client.get("/v1/items", params={"limit": 3, "after": first["next"]}).json()
    assert len({one["product"] for one in first["items"] + rest["items"]}) == 4
    assert rest["next"] is None


def test_a_range_of_prices_asks_for_one_price_between_its_ends(client):
    where = json.dumps([{"attribute": "price", "least": 12, "most": 19}])
    assert [one["product"] for one in listed(client, filters=where)] == ["green"]


def test_an_answer_is_a_product_and_names_its_other_pictures(client):
    told = client.post("/v1/search", json={"item": "red", "text": "is blue", "k": 3}).json()
    assert sorted(one["product"] for one in told["answers"]) == ["blue", "cap", "green"]
    for answer in told["answers"]:
        number = 0 if answer["product"] == "cap" else 2
        assert len(answer["views"]) == number
        assert answer["id"] not in answer["views"]


def test_a_product_is_looked_at_by_its_id(client):
    told = client.get("/v1/items/red").json()
    assert (told["id"], told["product"]) == ("red0.png", "red")
    assert client.get("/v1/images/red?size=32").content == client.get("/v1/images/red0.png?size=32").content
    assert client.get("/v1/items/nobody").status_code == 404


def test_a_product_is_deleted_with_all_its_pictures(client):
    assert client.delete("/v1/items/red").status_code == 204
    assert client.delete("/v1/items/red").status_code == 404
    assert client.get("/v1/about").json()["items"] == 3
    assert client.delete("/v1/items/blue1.png").status_code == 204
    views = {one["product"]: [one["id"], *one["views"]] for one in listed(client)}
    assert views == {"blue": ["blue0.png", "blue2.png"], "green": views["green"], "cap": ["cap.png"]}


def test_what_is_put_under_the_id_of_a_product_takes_the_place_of_its_pictures(client, picture, monkeypatch):
    # By one change: no search finds the new picture beside the old ones.
    monkeypatch.setattr(ExactIndex, "delete", None)
    put = client.put("/v1/items/red", files={"image": picture}, data={"attributes": '{"color": "teal"}'})
    assert put.status_code == 200
    told = client.get("/v1/items/red").json()
    assert (told["id"], told["product"], told["views"]) == ("red", "red", [])
    assert client.get("/v1/items/red0.png").status_code == 404
    # A second picture for one of its views stays one.
    client.put("/v1/items/blue1.png", files={"image": picture})
    assert client.get("/v1/items/blue1.png").json()["product"] == "blue"
    assert len(listed(client)) == 4


def test_the_products_own_field_is_no_attribute(client, picture):
    put = client.put(
        "/v1/items/new", files={"image": picture}, data={"attributes": json.dumps({"dqecir:product": "red"})}
    )
    assert put.status_code == 422
    assert "cannot be named dqecir:product" in put.json()["detail"]
