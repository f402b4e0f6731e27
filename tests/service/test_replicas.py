"""Services on one index: each shows what the others changed at once, without a search before."""

import io

import pytest
from PIL import Image

from tests.service.conftest import form, put, refused


@pytest.fixture
def replicas(serving):
    with serving() as one, serving() as other:
        yield one, other


def ids(client, **query) -> list[str]:
    return [item["id"] for item in client.get("/v1/items", params=query).json()["items"]]


def test_an_item_of_another_service_is_shown_at_once(replicas, picture):
    one, other = replicas
    before = other.get("/v1/about").json()["items"]
    assert put(one, "new", picture, {"shade": "teal"}).status_code == 201
    assert other.get("/v1/items/new").json() == one.get("/v1/items/new").json()
    assert other.get("/v1/images/new").content == one.get("/v1/images/new").content
    assert ids(other, where="shade = teal") == ["new"]
    assert other.get("/v1/about").json()["items"] == before + 1
    assert other.post("/v1/search", json={"item": "new", "text": "is red", "k": 1}).status_code == 200
    assert other.get("/v1/suggestions", params={"item": "new"}).status_code == 200


@pytest.mark.parametrize(
    "address", ["/v1/items/new", "/v1/images/new", "/v1/suggestions?item=new"], ids=["item", "image", "text"]
)
def test_each_route_sees_what_another_service_added_and_deleted(replicas, picture, address):
    one, other = replicas
    put(one, "new", picture)
    assert other.get(address).status_code == 200
    assert one.delete("/v1/items/new").status_code == 204
    refused(other.get(address), 404)


@pytest.mark.parametrize("route", ["search", "embeddings"])
def test_the_first_search_sees_what_another_service_did(replicas, picture, route):
    one, other = replicas
    put(one, "new", picture)
    asked = {"item": "new", "text": "is red"}
    assert other.post(f"/v1/{route}", json=asked).status_code == 200
    one.delete("/v1/items/new")
    refused(other.post(f"/v1/{route}", json=asked), 404)


def test_the_first_search_finds_what_another_service_added(replicas, picture):
    one, other = replicas
    put(one, "new", picture)
    assert other.post("/v1/search", **form({"k": 1}, picture)).json()["answers"][0]["id"] == "new"
    one.delete("/v1/items/new")
    assert other.post("/v1/search", **form({"k": 1}, picture)).json()["answers"][0]["id"] != "new"


def test_pages_go_on_where_another_service_left_off(replicas, picture):
    one, other = replicas
    for number in range(6):
        put((one, other)[number % 2], f"new{number}", picture, {"lot": "a"})
    first = one.get("/v1/items", params={"where": "lot = a", "limit": 4}).json()
    assert [item["id"] for item in first["items"]] == ["new0", "new1", "new2", "new3"]
    one.delete("/v1/items/new4")
    assert ids(other, where="lot = a", limit=4, after=first["next"]) == ["new5"]


def test_a_picture_that_another_service_replaced_is_the_new_one(replicas, picture, settings):
    one, other = replicas
    put(one, "new", picture)
    before = other.get("/v1/images/new").content
    written = io.BytesIO()
    Image.new("RGB", (50, 90), "green").save(written, "PNG")
    # The second service has not looked since, and has to remove the first one's picture.
    assert put(other, "new", written.getvalue()).status_code == 200
    after = one.get("/v1/images/new")
    assert after.status_code == 200 and after.content != before
    stored = [path for path in settings.upload_folder.iterdir() if path.suffix]
    assert len(stored) == 1


def test_what_another_service_added_is_replaced_and_deleted_with_its_picture(replicas, picture, settings):
    one, other = replicas
    assert put(one, "new", picture).status_code == 201
    assert put(other, "new", picture, {"shade": "teal"}).status_code == 200
    assert one.get("/v1/items/new").json()["attributes"] == {"shade": "teal"}
    assert one.delete("/v1/items/new").status_code == 204
    assert other.delete("/v1/items/new").status_code == 404
    assert not [path for path in settings.upload_folder.iterdir() if path.suffix]
