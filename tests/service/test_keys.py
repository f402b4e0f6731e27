"""Rights to read and to write."""

import hmac
import json

import pytest
from starlette.datastructures import Headers

from dqecir.errors import DataError
from dqecir.service.keys import Keys
from tests.service.conftest import HERE, put, refused

READ, WRITE = "r" * 20, "w" * 20


@pytest.fixture
def keys_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# of the shop\nread:{READ}\n\nread:{'s' * 20}\nwrite:{WRITE}\n")
    return path


def bearer(key: str) -> dict:
    return {"Authorization": f"Bearer {key}"}


def test_reading_and_writing_are_apart(serving, keys_file, picture):
    with serving(keys=keys_file) as client:
        for address in (
            "/v1/about",
            "/v1/items",
            "/v1/items/a",
            "/v1/images/a",
            "/v1/suggestions",
            "/metrics",
        ):
            assert "key" in refused(client.get(address), 401)
            refused(client.get(address, headers=bearer("x" * 20)), 401)
            refused(client.get(address, headers=bearer("")), 401)
            assert client.get(address, headers=bearer(READ)).status_code in (200, 404)
            assert client.get(address, headers={"X-API-Key": READ}).status_code in (200, 404)
        for address in ("/", "/page/main.js", "/healthz", "/readyz"):
            assert client.get(address).status_code == 200
        refused(client.post("/v1/search", json={"item": "a"}), 401)
        for wrong in ({}, bearer(READ), bearer(f"{WRITE}x"), {"Authorization": WRITE}):
            refused(put(client, "a", picture, headers=wrong), 401)
            refused(client.delete("/v1/items/a", headers=wrong), 401)
            refused(client.post("/v1/items:delete", json={"ids": ["a"]}, headers=wrong), 401)
        assert put(client, "a", picture, headers=bearer(WRITE)).status_code == 201
        assert client.get("/v1/items/a", headers=bearer(WRITE)).status_code == 200
        assert client.get("/v1/about", headers=bearer(READ)).json()["key_needed"] == {
            "read": True,
            "write": True,
        }


def test_a_key_that_is_not_text_is_a_wrong_key(serving, keys_file):
    with serving(keys=keys_file) as client:
        refused(client.get("/v1/about", headers={"X-API-Key": b"\xff\xfe"}), 401)


def test_every_key_is_compared_whichever_is_right(keys_file, monkeypatch):
    compared = []

    def counted(one, other):
        compared.append(len(one) == len(other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", counted)
    keys = Keys.read(keys_file, local=False)
    for key in (READ, "s" * 20, WRITE):
        compared.clear()
        keys.check_read(Headers({"x-api-key": key}))
        assert compared == [True] * 3


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "shop.example"},
        {"host": "shop.example:8000"},
        {"host": "10.0.0.7"},
        {"host": "127.0.0.1", "x-forwarded-for": "10.0.0.7"},
        {"host": "localhost", "forwarded": "for=10.0.0.7"},
        *({"host": "localhost", name: "1"} for name in ("via", "x-real-ip", "x-forwarded-proto", "cf-ray")),
        *({"host": "localhost", name: "1"} for name in ("True-Client-IP", "X-Client-IP", "X-Forwarded-Port")),
        *({"host": "localhost", name: "1"} for name in ("Forwarded-For", "X-Original-Forwarded-For")),
        *({"host": "localhost", name: "1"} for name in ("X-Original-URL", "X-Amzn-Trace-Id", "X-Scheme")),
        {"host": "localhost", "X-Appengine-User-IP": "1"},
        *({"host": "localhost", name: "1"} for name in ("X-Rewrite-URL", "Front-End-Https", "X-Url-Scheme")),
        *({"host": "localhost", name: "1"} for name in ("X-Request-Start", "X-Varnish", "X-NginX-Proxy")),
        *(
            {"host": "localhost", name: "1"}
            for name in ("X-Host", "Max-Forwards", "X-Forward-For", "X-Real-Ip")
        ),
        *(
            {"host": "localhost", name: "1"}
            for name in ("Fastly-SSL", "CDN-Loop", "X-Proxy-Id", "X-Coming-From")
        ),
        *({"host": "localhost", name: "1"} for name in ("X-Remote-Addr", "X-Originating-IP", "X-Proxy")),
        *({"host": "localhost", name: "1"} for name in ("Ngrok-Trace-Id", "Tailscale-User-Login")),
    ],
)
def test_without_keys_only_this_machine_writes(client, picture, headers):
    assert "--keys" in refused(put(client, "a", picture, headers=headers), 403)
    assert client.get("/v1/about", headers=headers).status_code == 200


@pytest.mark.parametrize("origin", ["http://elsewhere.example", "http://127.0.0.1:9000", "null"])
def test_a_page_from_elsewhere_deletes_nothing_by_a_form(client, retriever, origin):
    """Browsers send forms to other origins without a preflight request, but with their origin."""
    item = next(iter(retriever.index.entries()))[0]
    form = {"files": {"request": (None, json.dumps({"ids": [item]}))}, "headers": {"origin": origin}}
    assert "page" in refused(client.post("/v1/items:delete", **form), 403)
    form["headers"] = {"sec-fetch-site": "cross-site"}
    assert "page" in refused(client.post("/v1/items:delete", **form), 403)
    assert client.get(f"/v1/items/{item}").status_code == 200
    form["headers"] = {"origin": HERE, "sec-fetch-site": "same-origin"}
    assert client.post("/v1/items:delete", **form).json() == {"deleted": 1}


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000"])
def test_this_machine_writes_under_all_its_names(client, picture, host):
    assert put(client, "a", picture, headers={"host": host}).status_code == 201


def test_nobody_writes_to_a_service_that_others_reach_without_keys(serving, picture):
    with serving(host="0.0.0.0") as client:
        assert "write key" in refused(put(client, "a", picture), 403)
        assert client.get("/v1/about").json()["can_write"] is False


def test_keys_for_writing_alone_leave_reading_open(serving, tmp_path, picture):
    (tmp_path / "keys").write_text(f"write:{WRITE}\n")
    with serving(keys=tmp_path / "keys") as client:
        assert client.get("/v1/about").json()["key_needed"] == {"read": False, "write": True}
        refused(put(client, "a", picture), 401)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no key"),
        ("# none\n", "has no key"),
        ("read:short\n", "line 1: the key has 5 characters: write at least 16"),
        (f"\nadmin:{READ}\n", "line 2: write read:KEY"),
        (READ, "line 1: write read:KEY"),
    ],
)
def test_a_file_that_holds_no_keys_is_refused(tmp_path, text, sentence):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(DataError, match=sentence):
        Keys.read(tmp_path / "keys", local=True)
