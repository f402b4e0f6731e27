"""For any input, the service responds in a sentence, keeps running, and stays within its limits."""

import asyncio
import io
import json
import socket
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress

import pytest
import schemathesis
import uvicorn
from hypothesis import given, settings
from hypothesis.errors import Unsatisfiable
from PIL import Image, ImageFile
from schemathesis.generation import GenerationMode

from dqecir.errors import EngineError
from dqecir.service.app import create_app
from dqecir.service.configuration import Limits
from tests.conftest import PATIENCE
from tests.service.conftest import form, put, refused


@pytest.fixture
def api(settings):
    """Yield the OpenAPI description of a running service."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            port = listening.getsockname()[1]
            yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/v1/openapi.json")
        finally:
            server.should_exit = True
            thread.join(PATIENCE)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_what_its_own_description_allows_and_what_it_forbids(api, mode):
    asked = []
    for found in api.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=15)
        def holds(case):
            told = case.call(timeout=PATIENCE)
            # What is not there to edit with is said so; nothing else is the service's fault.
            assert told.status_code < 500 or (case.path, told.status_code) == ("/v1/edits", 501), told.text
            asked.append((case.method, case.path, told.status_code))

        with suppress(Unsatisfiable):  # where nothing is sent, nothing that is sent can be wrong
            holds()
    assert len({path for _, path, _ in asked}) >= (12 if mode is GenerationMode.POSITIVE else 8)


def bomb() -> bytes:
    """Return a PNG of a few kilobytes with 9,000 x 9,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 9_000, 9_000, 1, 0, 0, 0, 0)
    data = zlib.compress(bytes(1126 * 9_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg(size: tuple[int, int]) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", size).save(written, "JPEG")
    return written.getvalue()


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"", "empty"),
        (b"no picture", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (b"%PDF-1.4", "not a picture"),
        (jpeg((64, 64))[:300], "truncated"),
        (bomb(), "9,000 x 9,000 pixels"),
        (jpeg((7000, 7000)), "at most 40,000,000"),
    ],
)
def test_what_is_no_picture_is_refused_before_it_costs_anything(client, image, said, monkeypatch):
    decoded, load = [], ImageFile.ImageFile.load
    monkeypatch.setattr(
        ImageFile.ImageFile, "load", lambda picture: decoded.append(picture.size) or load(picture)
    )
    assert said in refused(client.post("/v1/search", **form({"text": "is red"}, image)), 422)
    assert said in refused(put(client, "a", image), 422)
    # That one is cut off is only found by reading it.
    assert set(decoded) <= {(64, 64)}
    refused(client.get("/v1/items/a"), 404)


@pytest.fixture
def small(serving):
    """Yield a service with small limits."""
    limits = Limits(bytes=50_000, body=5_000)
    with serving(limits=limits.model_dump()) as client:
        yield client


def test_too_large_a_picture_and_too_large_a_body(small, picture):
    assert "larger than" in refused(small.post("/v1/search", **form({}, bytes(60_000))), 413)
    assert "at most" in refused(small.post("/v1/search", **form({}, bytes(52_000))), 413)
    text = json.dumps({"item": "a", "text": "x" * 6_000})
    headers = {"content-type": "application/json"}
    refused(small.post("/v1/search", content=text, headers=headers), 413)
    refused(small.post("/v1/items:delete", content=text, headers=headers), 413)
    # Without a length, as it is streamed.
    refused(small.post("/v1/search", content=(b"x" * 1000 for _ in range(10)), headers=headers), 413)
    # A long field beside a small picture.
    refused(small.post("/v1/search", **form({"text": "x" * 6_000}, picture)), 400)


def test_a_length_that_is_a_lie(small):
    for length in ("-1", "many", "9" * 40, "9" * 5000, "²".encode("latin-1")):
        told = small.post(
            "/v1/search",
            content=b"{}",
            headers={"content-type": "application/json", "content-length": length},
        )
        assert told.status_code in (400, 413, 422)


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "application/json", 422),
        (b"{", "application/json", 422),
        (b"[]", "application/json", 422),
        (b"null", "application/json", 422),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 4_000, "application/json", 422),
        (b'{"item": "\\ud800"}', "application/json", 422),
        (b'{"item": "a\\u0000b"}', "application/json", 404),
        (b"{}", "text/plain", 415),
        (b"{}", "", 415),
        (b"{}", "application/x-www-form-urlencoded", 415),
        (b"{}", "multipart/form-data", 400),
        (b"{}", "multipart/form-data; boundary=x", 400),
        (b"--x\r\nnonsense", "multipart/form-data; boundary=x", 400),
        (
            b'--x\r\nContent-Disposition: form-data; name="request"\r\n\r\n{}',
            "multipart/form-data; boundary=x",
            422,
        ),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\n{}\r\n--x--", "multipart/form-data; boundary=x", 400),
        (b"--x--", "multipart/form-data; boundary=\xff", 400),
    ],
)
def test_bodies_that_cannot_be_read(client, content, kind, status):
    headers = {"content-type": kind.encode("latin-1")} if kind else {}
    told = client.post("/v1/search", content=content, headers=headers)
    refused(told, told.status_code)
    assert told.status_code == status or (status, told.status_code) in {(422, 400), (400, 422)}, told.text


def test_a_body_may_begin_with_a_byte_order_mark(client, picture):
    request = b"\xef\xbb\xbf" + json.dumps({"text": "is red", "k": 1}).encode()
    files = [("request", ("q.json", request, "application/json")), ("image", ("a.png", picture))]
    assert client.post("/v1/search", files=files).status_code == 200
    content = b"\xef\xbb\xbf" + json.dumps({"text": "red dress", "k": 1}).encode()
    headers = {"content-type": "application/json"}
    assert client.post("/v1/search", content=content, headers=headers).status_code == 200


def test_a_body_that_is_compressed_or_says_a_thing_twice_is_refused(client):
    headers = {"content-type": "application/json"}
    said = client.post("/v1/search", content=b"\x1f\x8b", headers={**headers, "content-encoding": "gzip"})
    assert "without Content-Encoding" in refused(said, 415)
    twice = b'{"text": "is red", "text": "is blue"}'
    said = client.post("/v1/search", content=twice, headers=headers)
    assert refused(said, 422) == "text: the name comes several times: keep one"


def test_a_form_may_have_a_picture_or_a_request_alone(client, picture):
    assert client.post("/v1/search", files={"image": ("a.png", picture)}).status_code == 200
    unchosen = (
        b'--x\r\nContent-Disposition: form-data; name="request"\r\n\r\n{"text": "red dress"}\r\n'
        b'--x\r\nContent-Disposition: form-data; name="image"; filename=""\r\n\r\n\r\n--x--'
    )
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/search", content=unchosen, headers=headers).status_code == 200


def test_a_form_of_other_fields(client, picture):
    both = [("image", ("a.png", picture)), ("image", ("b.png", picture))]
    refused(client.post("/v1/search", data={"request": "{}"}, files=both), 422)
    refused(
        client.post("/v1/search", data={"request": "{}", "url": "http://example.org/a.png"}, files=both[:1]),
        422,
    )
    field = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nhttp://example.org/a.png\r\n--x--'
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert "file" in refused(client.post("/v1/search", content=field, headers=headers), 422)


def test_a_slow_body_is_cut(serving):
    async def ask(app) -> list[dict]:
        sent = []
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/search",
            "raw_path": b"/v1/search",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        }

        async def receive():
            # A little at a time, and never to the end.
            await asyncio.sleep(0.01)
            return {"type": "http.request", "body": b"", "more_body": True}

        async def send(message):
            sent.append(message)

        async with asyncio.timeout(PATIENCE):
            await app(scope, receive, send)
        return sent

    # In a thread of its own, because a browser's tests leave a loop running in this one.
    with serving(limits={"body_seconds": 0.3}) as client, ThreadPoolExecutor(1) as beside:
        assert beside.submit(asyncio.run, ask(client.app)).result()[0]["status"] == 408


def test_too_many_are_told_to_come_again_and_the_others_answered(serving, picture, monkeypatch):
    with serving(queue=2) as client:
        service = client.app.state.service
        held, begun, within = threading.Event(), threading.Event(), threading.Semaphore(0)
        composer = service.main.composer
        compose, entered = composer.compose, service.gate.entered

        def slow(*asked):
            begun.set()
            held.wait(PATIENCE)
            return compose(*asked)

        @asynccontextmanager
        async def counted():
            async with entered():
                within.release()
                yield

        monkeypatch.setattr(composer, "compose", slow)
        monkeypatch.setattr(service.gate, "entered", counted)
        answers = []
        threads = [
            threading.Thread(
                target=lambda: answers.append(
                    client.post("/v1/search", **form({"k": 1}, picture)).status_code
                )
            )
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        assert begun.wait(PATIENCE)
        for _ in threads:
            assert within.acquire(timeout=PATIENCE)
        told = client.post("/v1/search", **form({"k": 1}, picture))
        assert "again" in refused(told, 429)
        assert int(told.headers["retry-after"]) >= 1
        # What needs no model is answered meanwhile.
        assert client.get("/readyz").status_code == 200
        assert "dqecir_queue_depth 2.0" in client.get("/metrics").text
        held.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert answers == [200, 200]


def test_what_takes_too_long_is_given_up(serving, picture, monkeypatch):
    with serving(limits={"seconds": 0.3}) as client:
        composer = client.app.state.service.main.composer
        held = threading.Event()
        compose = composer.compose
        monkeypatch.setattr(composer, "compose", lambda *asked: held.wait(PATIENCE) and compose(*asked))
        assert "0.3 seconds" in refused(client.post("/v1/search", **form({"k": 1}, picture)), 504)
        held.set()
        monkeypatch.undo()
        client.app.state.service.limits = Limits()
        assert client.post("/v1/search", **form({"k": 1}, picture)).status_code == 200


def test_a_failure_nobody_foresaw_is_told_without_its_words(client, picture, monkeypatch, caplog):
    def broken(*asked):
        raise RuntimeError("secret words")

    monkeypatch.setattr(client.app.state.service.main.composer, "compose", broken)
    detail = refused(client.post("/v1/search", **form({}, picture)), 500)
    assert "secret" not in detail
    assert "secret words" in caplog.text
    assert detail.split()[-1] in str([record.__dict__.get("fields") for record in caplog.records])


def test_an_index_that_fails_is_no_fault_of_who_asks(client, picture, monkeypatch, caplog):
    def broken(*_):
        raise EngineError("/secret/folder is damaged")

    index = client.app.state.service.main.index
    for name in ("search", "add"):
        monkeypatch.setattr(index, name, broken)
    for told in (client.post("/v1/search", **form({}, picture)), put(client, "a", picture)):
        assert "secret" not in refused(told, 503)
        assert int(told.headers["retry-after"]) >= 1
    reasons = [record.__dict__.get("fields", {}).get("reason") for record in caplog.records]
    assert reasons.count("/secret/folder is damaged") == 2


def test_every_answer_has_the_headers_of_safety(client):
    for address in ("/", "/page/main.js", "/v1/about", "/nothing", "/v1/items/none"):
        headers = client.get(address).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_nothing_is_shared_with_pages_from_elsewhere(client):
    told = client.get("/v1/about", headers={"origin": "http://elsewhere.example"})
    assert "access-control-allow-origin" not in told.headers
    asked = {"origin": "http://elsewhere.example", "access-control-request-method": "PUT"}
    assert client.options("/v1/items/a", headers=asked).status_code == 405
