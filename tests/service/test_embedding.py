"""Pages of a shop may only read, within limits, and leave no data of shoppers."""

from __future__ import annotations

import io
import logging

import pytest
from PIL import Image
from starlette.datastructures import Headers

from dqecir.errors import DataError
from dqecir.service import keys
from dqecir.service.keys import Keys
from dqecir.service.middleware import JsonLines
from dqecir.service.problems import Problem
from tests.service.conftest import Process, form, put, refused

SHOP, OTHER = "https://shop.example", "https://elsewhere.example"
EMBED, READ, WRITE = "e" * 20, "r" * 20, "w" * 20


def lines(*given: str):
    return "".join(f"{line}\n" for line in given)


@pytest.fixture
def keys_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text(lines(f"embed:{EMBED} origin={SHOP},https://www.shop.example", f"write:{WRITE}"))
    return path


def asked(key: str | None = None, origin: str | None = SHOP, **more: str) -> dict[str, str]:
    bearer = {} if key is None else {"authorization": f"Bearer {key}"}
    return {**bearer, **({} if origin is None else {"origin": origin}), **more}


def test_an_allowed_origin_reads_and_does_nothing_else(serving, picture):
    with serving(origins=(SHOP,)) as client:
        assert client.get("/v1/about").headers["vary"] == "Origin"
        item = client.get("/v1/items", headers=asked()).json()["items"][0]["id"]
        for address in (
            "/v1/about",
            "/v1/items",
            f"/v1/images/{item}",
            "/page/product.js",
            "/page/words.en.json",
        ):
            assert client.get(address, headers=asked()).headers["access-control-allow-origin"] == SHOP
            assert (
                "access-control-allow-origin" not in client.get(address, headers=asked(origin=OTHER)).headers
            )
        found = client.post("/v1/search", headers=asked(), **form({"text": "is red"}, picture))
        assert found.headers["access-control-allow-origin"] == SHOP
        for method, address, status in (
            ("POST", "/v1/search", 204),
            ("GET", "/v1/about", 204),
            ("GET", f"/v1/images/{item}", 204),
            ("PUT", "/v1/items/a", 405),
            ("DELETE", "/v1/items/a", 405),
            ("POST", "/v1/items:delete", 405),
            ("POST", "/v1/edits", 405),
            ("GET", "/metrics", 405),
        ):
            before = asked(**{"access-control-request-method": method})
            told = client.options(address, headers=before)
            assert told.status_code == status, (method, address)
            assert ("access-control-allow-origin" in told.headers) == (status == 204)
            other = client.options(address, headers={**before, "origin": OTHER})
            assert "access-control-allow-origin" not in other.headers
        for address in ("/metrics", "/"):
            assert "access-control-allow-origin" not in client.get(address, headers=asked()).headers
        # A page from elsewhere writes nothing, and frames nothing.
        assert "page" in refused(put(client, "a", picture, headers=asked()), 403)
        assert "frame-ancestors 'none'" in client.get("/").headers["content-security-policy"]
        script = client.get("/page/embed.js")
        assert script.headers["cross-origin-resource-policy"] == "cross-origin"
        assert client.get("/page/main.js").headers["cross-origin-resource-policy"] == "same-origin"


def test_a_key_to_embed_reads_from_pages_of_its_origins_alone(serving, keys_file, picture):
    with serving(keys=keys_file) as client:
        told = client.get("/v1/about", headers=asked(EMBED))
        assert told.status_code == 200
        assert told.headers["access-control-allow-origin"] == SHOP
        assert told.json()["key_needed"] == {"read": True, "write": True}
        for origin in (OTHER, None, "null", "http://shop.example", f"{SHOP}:8443"):
            assert "origins" in refused(client.get("/v1/about", headers=asked(EMBED, origin)), 403)
        refused(client.get("/v1/about", headers=asked()), 401)
        refused(client.get("/metrics", headers=asked(EMBED)), 401)
        refused(client.post("/v1/edits", headers=asked(EMBED), json={"item": "a", "text": "b"}), 401)
        refused(put(client, "a", picture, headers=asked(EMBED)), 401)
        refused(client.delete("/v1/items/a", headers=asked(EMBED)), 401)


def test_a_rate_limits_a_key_and_no_other(tmp_path, monkeypatch):
    (tmp_path / "keys").write_text(lines(f"embed:{EMBED} origin={SHOP} rate=3", f"read:{READ} rate=1"))
    read = Keys.read(tmp_path / "keys", local=False)
    now = [50.0]
    monkeypatch.setattr(keys.time, "monotonic", lambda: now[0])
    embedded = Headers(asked(EMBED))
    for _ in range(3):
        read.check_read(embedded)
    read.check_read(Headers(asked(READ)))
    with pytest.raises(Problem, match="3 requests a minute") as refusal:
        read.check_read(embedded)
    assert (refusal.value.status, refusal.value.headers) == (429, {"Retry-After": "20"})
    read.check_read(embedded, counted=False)
    now[0] += 20
    read.check_read(embedded)
    with pytest.raises(Problem):
        read.check_read(embedded)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"embed:{EMBED}", "origin="),
        (f"read:{READ} origin={SHOP}", "origin="),
        (f"embed:{EMBED} origin=shop.example", "without a path"),
        (f"embed:{EMBED} origin={SHOP}/search", "without a path"),
        (f"embed:{EMBED} origin=*", "without a path"),
        (f"read:{READ} rate=0", "rate=0"),
        (f"read:{READ} rate=many", "rate=many"),
        (f"read:{READ} colour=red", "keys"),
        ("embed:short origin=https://shop.example", "16 characters"),
    ],
)
def test_a_line_that_is_no_key_is_refused(tmp_path, line, said):
    (tmp_path / "keys").write_text(f"{line}\n")
    with pytest.raises(DataError, match=said):
        Keys.read(tmp_path / "keys", local=False)


def test_an_origin_to_allow_is_checked(serving):
    with pytest.raises(DataError, match="--allow-origin"), serving(origins=("https://shop.example/",)):
        pass


TEXT = "zebrafarbenes Abendkleid"


def test_pictures_and_texts_of_shoppers_reach_neither_disk_nor_logs(settings, tmp_path, monkeypatch):
    """Every file that the service can write is searched for both, after searches that worked and failed."""
    httpx = pytest.importorskip("httpx")
    written = io.BytesIO()
    Image.effect_noise((400, 400), 90).convert("RGB").save(written, "JPEG", quality=95)
    picture = written.getvalue()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    running = Process(tmp_path, "--index", settings.index, "--model", settings.model)
    try:
        with httpx.Client(base_url=running.address, timeout=60) as client:
            ids = [item["id"] for item in client.get("/v1/items").json()["items"]]
            for request in (
                {"text": TEXT},
                {"text": f"{TEXT} under 3 euros", "where": f"nothing = '{TEXT}'"},
                {"text": TEXT, "target": ids[0]},
                {"text": TEXT, "unknown": TEXT},
            ):
                for address in ("/v1/search", "/v1/explanations", "/v1/embeddings", "/v1/edits"):
                    client.post(address, **form(request, picture))
                    client.post(address, **form(request, picture[: len(picture) // 2]))
            client.get("/v1/suggestions", params={"text": TEXT})
            client.get(f"/v1/items/{TEXT}")
    finally:
        running.stop()
        running.process.stdout.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert running.log in files and running.lines()
    parts = [TEXT.encode(), TEXT.split()[0].encode(), TEXT.replace(" ", "%20").encode(), picture[2000:2100]]
    for path in files:
        data = path.read_bytes()
        assert not any(part in data for part in parts), path


def test_an_error_nobody_foresaw_is_logged_without_its_words():
    try:
        raise ValueError(TEXT) from KeyError(TEXT)
    except ValueError as error:
        said = type(error), error, error.__traceback__
    record = logging.LogRecord("dqecir.service", logging.ERROR, __file__, 1, "failed", None, said)
    line = JsonLines().format(record)
    assert TEXT not in line
    assert "ValueError" in line and "KeyError" in line and "test_an_error_nobody_foresaw" in line
