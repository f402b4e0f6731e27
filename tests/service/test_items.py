"""Items are listed, shown, put and deleted; no other file is accessible."""

import asyncio
import io
import logging
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image

from dqecir.errors import EngineError
from dqecir.index.contract import ItemBatch
from dqecir.index.engines import open_index
from dqecir.index.locking import write_lock
from dqecir.search.retriever import ComposedRetriever
from tests.conftest import PATIENCE
from tests.service.conftest import form, put, refused


def other_picture() -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (50, 50), "blue").save(written, "JPEG")
    return written.getvalue()


def uploaded(settings) -> list[str]:
    """Return the names of the pictures that the service stores."""
    return [path.name for path in settings.upload_folder.glob("[!.]*")]


def listed(client, **query) -> list[str]:
    """Return ids over all pages."""
    ids, after = [], {}
    while True:
        page = client.get("/v1/items", params={"limit": 50, **query, **after}).json()
        ids += [item["id"] for item in page["items"]]
        if page["next"] is None:
            return ids
        after = {"after": page["next"]}


def test_all_items_come_page_by_page(client, retriever):
    everything = [item_id for item_id, _ in retriever.index.entries()]
    assert listed(client) == everything
    drawn = listed(client, seed=3)
    assert sorted(drawn) == sorted(everything)
    assert drawn != everything
    assert listed(client, seed=3) == drawn != listed(client, seed=4)


def test_a_filter_and_its_mistakes(client, retriever):
    red = [item_id for item_id, payload in retriever.index.entries() if payload.get("color") == "red"]
    assert listed(client, where="color = red", limit=7) == red
    assert listed(client, where="color = nosuch") == []
    assert "color" in refused(client.get("/v1/items", params={"where": "colr = red"}), 422)
    assert "start again from the beginning" in refused(
        client.get("/v1/items", params={"after": "none/such"}), 422
    )


def test_attributes_are_told(client, retriever):
    told = client.get("/v1/about").json()
    assert told["items"] == len(retriever.index)
    assert "path" not in told["attributes"]
    colours = {payload["color"] for _, payload in retriever.index.entries()}
    assert told["attributes"]["color"]["values"] == sorted(colours)
    assert not told["attributes"]["color"]["numeric"]
    assert told["weights"] == ["colour", "shape", "pattern"]
    assert told["key_needed"] == {"read": False, "write": False}


def test_an_item_that_is_put_is_found_at_once_and_kept(client, settings, picture):
    made = put(client, "new/é ä.png", picture, {"color": "red", "price": 3.5})
    assert made.status_code == 201
    assert made.json()["attributes"] == {"color": "red", "price": 3.5}
    found = client.post("/v1/search", **form({"text": "", "k": 1}, picture)).json()["answers"][0]
    assert found["id"] == "new/é ä.png"
    assert client.get("/v1/items/new/é ä.png").json()["attributes"]["price"] == 3.5
    assert client.get(found["image"]).headers["content-type"] == "image/jpeg"
    assert listed(client, where="price < 4") == ["new/é ä.png"]
    # Another process sees it.
    assert "new/é ä.png" in open_index(settings.index)


def test_a_picture_is_replaced_and_the_old_one_removed(client, settings, picture):
    assert put(client, "a", picture, {"color": "red"}).status_code == 201
    before = client.post("/v1/search", json={"item": "a", "k": 3}).json()["answers"]
    assert put(client, "a", other_picture()).status_code == 200
    assert client.get("/v1/items/a").json()["attributes"] == {}
    assert client.post("/v1/search", json={"item": "a", "k": 3}).json()["answers"] != before
    assert len(uploaded(settings)) == 1
    assert client.delete("/v1/items/a").status_code == 204
    assert uploaded(settings) == []
    refused(client.get("/v1/items/a"), 404)
    refused(client.delete("/v1/items/a"), 404)


def test_an_item_that_is_deleted_and_put_again_at_once_keeps_its_picture(
    client, settings, picture, monkeypatch
):
    assert put(client, "a", picture).status_code == 201
    writer = client.app.state.service.writer
    change, asked = writer.change, threading.Semaphore(0)

    async def counted(*arguments):
        done = asyncio.ensure_future(change(*arguments))
        await asyncio.sleep(0)  # Now the change waits for the writer's thread.
        asked.release()
        return await done

    monkeypatch.setattr(writer, "change", counted)
    with ThreadPoolExecutor(2) as pool:
        changes = []
        with write_lock(settings.index):
            for send in (lambda: client.delete("/v1/items/a"), lambda: put(client, "a", picture)):
                changes.append(pool.submit(send))
                assert asked.acquire(timeout=PATIENCE)
        assert [sent.result().status_code for sent in changes] == [204, 201]
    assert client.get("/v1/images/a").status_code == 200
    assert len(uploaded(settings)) == 1


def test_pictures_of_the_catalogue_are_never_removed(client, retriever):
    item, payload = next(iter(retriever.index.entries()))
    assert client.delete(f"/v1/items/{item}").status_code == 204
    assert retriever.index.picture_path(payload).is_file()


def test_many_items_are_deleted_at_once(client, retriever):
    ids = [item_id for item_id, _ in retriever.index.entries()][:5]
    assert client.post("/v1/items:delete", json={"ids": [*ids, "none/such"]}).json() == {"deleted": 5}
    assert not set(ids) & set(listed(client))
    refused(client.post("/v1/items:delete", json={"ids": []}), 422)


def test_what_another_process_wrote_is_seen(client, settings, retriever):
    item = next(iter(retriever.index.entries()))[0]
    open_index(settings.index).delete([item])
    assert item not in listed(client)
    ids = [
        a["id"]
        for a in client.post("/v1/search", json={"item": listed(client)[3], "k": 200}).json()["answers"]
    ]
    assert item not in ids
    refused(client.get(f"/v1/items/{item}"), 404)


@pytest.mark.parametrize(
    "item_id",
    [
        "../../../../etc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "....//....//etc/passwd",
        "a%00.png",
        "C:%5Cwindows",
        "a" * 513,
    ],
)
def test_an_id_reaches_no_file(client, settings, picture, item_id):
    for address in (f"/v1/images/{item_id}", f"/v1/items/{item_id}", f"/page/{item_id}"):
        assert client.get(address).status_code in (404, 422)
    before = {path for path in settings.index.parent.rglob("*") if path.is_file()}
    assert put(client, item_id, picture).status_code in (201, 404, 405, 422)
    new = {path for path in settings.index.parent.rglob("*") if path.is_file()} - before
    assert all(settings.index in path.parents or path.parent == settings.upload_folder for path in new)


def test_what_an_index_names_and_is_no_picture_is_not_shown(client, settings):
    # An index is trusted to name pictures, and what it names is shown as a picture or not at all.
    index = open_index(settings.index)
    item, payload = next(iter(index.entries()))
    index.add(ItemBatch(["odd"], index.tokens([item]), [{**payload, "path": "/etc/passwd"}]))
    client.post("/v1/search", json={"item": item})
    told = client.get("/v1/images/odd")
    assert "root:" not in told.text
    assert "/etc" not in refused(told, 404)
    refused(client.post("/v1/search", json={"item": "odd"}), 404)


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ('{"path": "/etc/passwd"}', "path"),
        ('{"price": NaN}', "price"),
        ('{"price": [1]}', "price"),
        ('{"price": null}', "price: null is not a value: leave out the attribute"),
        ('{"price": {"a": 1}}', "price: a value must be a text, a number, true or false"),
        ('{"price": 1e999}', "price: a number must be finite"),
        ('{"ean": 123456789012345678}', "ean: JSON cannot hold a number of this size"),
        ('{"ean": -9007199254740993}', "ean: JSON cannot hold a number of this size"),
        ('{"price": 1E-400}', "price: JSON cannot hold this number exactly: send it as a text, in quotes"),
        ('{"ean": 9007199254740993.0}', "ean: JSON cannot hold this number exactly"),
        ('{"price": 0.123456789012345678}', "price: JSON cannot hold this number exactly"),
        ('{"color": "red", "color": "blue"}', "color: the name comes several times: keep one"),
        ('{"color": "a\\u0000b"}', "color: a text may not contain control characters: remove them"),
        ('{" ": "x"}', "an attribute cannot be named ' ': use visible characters"),
        ('{"a\\nb": "x"}', "an attribute cannot be named 'a\\nb': use visible characters"),
        ('["a"]', "object"),
        ("{", "JSON"),
        ('{"": "x"}', "the name '': String should have at least 1 character"),
        ('{"Color": "red", " color": "blue"}', "color: the name comes several times: keep one"),
    ],
)
def test_attributes_that_are_none(client, picture, attributes, said):
    told = client.put("/v1/items/a", data={"attributes": attributes}, files={"image": ("a.png", picture)})
    assert said in refused(told, 422)
    refused(client.get("/v1/items/a"), 404)


def test_names_of_attributes_are_those_of_columns(client, picture):
    columns = client.get("/v1/about").json()["attributes"].keys()
    put(client, "a", picture, {" Color": "Red", "Care   label": "x", "cafe\u0301": "y"})
    assert client.get("/v1/items/a").json()["attributes"] == {
        "color": "Red",
        "care label": "x",
        "caf\u00e9": "y",
    }
    assert client.get("/v1/about").json()["attributes"].keys() == columns | {"care label", "caf\u00e9"}


def test_attributes_may_begin_with_a_byte_order_mark(client, picture):
    given = ("a.json", b'\xef\xbb\xbf{"color": "red"}', "application/json")
    client.put("/v1/items/a", files={"attributes": given, "image": ("a.png", picture)})
    assert client.get("/v1/items/a").json()["attributes"] == {"color": "red"}


def test_values_come_back_as_they_came(client, picture):
    given = {
        "new": True,
        "old": False,
        "n": 9007199254740992,
        "m": -3,
        "price": 3.5,
        "whole": 2.0,
        "tenth": 0.1,
        "tiny": 1e-300,
        "note": "two\nlines",
        "code": "007",
    }
    assert put(client, "a", picture, given).status_code == 201
    kept = client.get("/v1/items/a").json()["attributes"]
    assert kept == given
    assert [type(value) for value in kept.values()] == [type(value) for value in given.values()]
    for where in ("new = true", "old = FALSE", "n = 9007199254740992", "code = 007"):
        assert listed(client, where=where) == ["a"]
    assert listed(client, where="code = 7 or new = 1") == []


@pytest.mark.parametrize(
    ("item_id", "said"),
    [
        *((name, "may not contain //") for name in ("x/%2e%2e/y", "%2e", "..%2fa", "a//b", "%2fa", "a/")),
        *((name, "visible characters") for name in ("a%0ab", "a%0a", "%0d", "a%c2%85", "a%e2%80%a8b", "%00")),
        *((name, "is not UTF-8") for name in ("a%ff", "%c3", "%c0%af", "%ed%a0%80", "caf%e9")),
    ],
)
def test_an_id_that_no_address_can_carry_is_refused(client, settings, picture, item_id, said):
    assert said in refused(put(client, item_id, picture), 422)
    assert uploaded(settings) == []


def test_a_line_break_behind_an_id_is_a_part_of_it(client, picture):
    assert put(client, "a", picture).status_code == 201
    refused(client.get("/v1/items/a%0a"), 404)
    refused(client.delete("/v1/items/a%0a"), 404)
    assert client.get("/v1/items/a").status_code == 200


def test_a_put_that_fails_leaves_nothing(client, settings, picture, monkeypatch):
    assert put(client, "a", picture).status_code == 201
    before = uploaded(settings)
    index = client.app.state.service.main.index

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index, "add", fail)
    for item_id in ("a", "b"):
        refused(put(client, item_id, other_picture()), 503)
        refused(put(client, item_id, picture), 503)
    assert uploaded(settings) == before
    assert client.get("/v1/images/a").status_code == 200


@pytest.mark.parametrize("change", ["add", "delete"])
def test_a_change_that_fails_at_the_second_index_is_taken_back_at_the_first(
    serving, settings, picture, tmp_path, monkeypatch, change
):
    shutil.copytree(settings.index, tmp_path / "second")
    beside = {"name": "again", "index": tmp_path / "second", "model": settings.model}
    with serving(also=[beside]) as client:
        assert put(client, "a", picture, {"color": "red"}).status_code == 201
        first, second = (engine.index for engine in client.app.state.service.engines.values())
        tokens, payload, count = first.tokens(["a"]), first.payload("a"), len(first)

        def fail(*_):
            raise EngineError("no space left")

        monkeypatch.setattr(second, change, fail)
        if change == "add":
            for item_id in ("a", "b"):
                refused(put(client, item_id, other_picture(), {"color": "blue"}), 503)
        else:
            refused(client.delete("/v1/items/a"), 503)
            refused(client.post("/v1/items:delete", json={"ids": ["a"]}), 503)
        assert torch.equal(first.tokens(["a"]), tokens)
        assert first.payload("a") == payload
        assert len(first) == count
        assert client.get("/v1/images/a").status_code == 200
        assert len(uploaded(settings)) == 1


def test_a_change_that_cannot_be_taken_back_is_logged(
    serving, settings, picture, tmp_path, monkeypatch, caplog
):
    shutil.copytree(settings.index, tmp_path / "second")
    beside = {"name": "again", "index": tmp_path / "second", "model": settings.model}
    with serving(also=[beside]) as client:
        first, second = (engine.index for engine in client.app.state.service.engines.values())

        def fail(*_):
            raise EngineError("no space left")

        monkeypatch.setattr(second, "add", fail)
        monkeypatch.setattr(first, "delete", fail)
        monkeypatch.setattr(logging.getLogger("dqecir.service"), "propagate", True)
        refused(put(client, "b", picture, {"color": "blue"}), 503)
    [record] = [one for one in caplog.records if one.getMessage() == "change not taken back"]
    assert "still has a part of a change that failed: no space left" in record.fields["reason"]


def test_pictures_that_were_put_stay_out_of_a_later_build(serving, settings, served, picture, tmp_path):
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "a.png").write_bytes(picture)
    with serving(uploads=shop / "put") as client:
        assert put(client, "new", picture).status_code == 201
    summary = ComposedRetriever.from_pretrained(served[0]).build_index(shop, tmp_path / "again", quiet=True)
    assert summary.indexed == 1
    assert [refusal.path.name for refusal in summary.refusals] == ["put"]


def test_a_form_may_send_its_json_as_a_file(client, picture):
    files = {"request": ("blob", b'{"k": 1}', "application/json"), "image": ("a.png", picture)}
    assert len(client.post("/v1/search", files=files).json()["answers"]) == 1
    twice = [("request", ("blob", b"{}")), ("image", ("a.png", picture)), ("image", ("b.png", picture))]
    assert "either an item" in refused(client.post("/v1/search", files=twice), 422)
    assert "too many fields" in refused(client.put("/v1/items/a", files=twice[1:]), 422)


def test_addresses_lie_under_the_path_that_a_proxy_shows(serving, picture):
    with serving(root_path="/shop") as client:
        made = put(client, "a b", picture).json()
        assert made["image"] == "/shop/v1/images/a%20b"
        assert client.get("/v1/items/a b").json() == made
        answers = client.post("/v1/search", json={"item": "a b", "k": 2}).json()["answers"]
        assert all(answer["image"].startswith("/shop/v1/images/") for answer in answers)
        # A proxy may leave the path in front, or take it away.
        assert client.get(made["image"]).content == client.get("/v1/images/a b").content
        assert client.get("/v1/openapi.json").json()["servers"] == [{"url": "/shop"}]
        assert '"/page/' not in client.get("/").text


@pytest.mark.parametrize("address", ["/", "/healthz", "/v1/about", "/v1/items?limit=1", "/page/main.js"])
def test_head_is_answered_as_get_without_a_body(client, address):
    whole = client.get(address)
    head = client.head(address)
    assert head.status_code == whole.status_code
    assert head.content == b""
    same = ("content-type", "content-length", "content-security-policy")
    assert [head.headers.get(name) for name in same] == [whole.headers.get(name) for name in same]


def test_thumbnails_are_small_and_known_again(client, retriever):
    item = next(iter(retriever.index.entries()))[0]
    told = client.get(f"/v1/images/{item}", params={"size": 20})
    assert max(Image.open(io.BytesIO(told.content)).size) == 20
    tag = told.headers["etag"]
    assert client.get(f"/v1/images/{item}?size=20", headers={"if-none-match": tag}).status_code == 304
    refused(client.get(f"/v1/images/{item}?size=5000"), 422)


def test_files_of_the_page_are_sent_packed_where_they_may_be(serving):
    with serving(origins=("https://shop.example",)) as client:
        packed = client.get("/page/main.js", headers={"Origin": "https://shop.example"})
        plain = client.get("/page/main.js", headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    assert packed.content == plain.content
    assert "content-encoding" not in plain.headers
    assert packed.headers["etag"] != plain.headers["etag"]
    assert {"Accept-Encoding", "Origin"} == set(packed.headers["vary"].split(", "))
