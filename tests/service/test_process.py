"""The service as a process: it starts, stops without losing accepted changes, and keeps secrets."""

import json
import socket
import threading
import urllib.request

import pytest

from dqecir.index.engines import open_index
from tests.conftest import PATIENCE
from tests.service.conftest import Process, form, put

httpx = pytest.importorskip("httpx")


def test_what_was_accepted_is_answered_though_the_end_is_asked_for(process, retriever, picture):
    items = [item_id for item_id, _ in retriever.index.entries()][:40]
    answers: list[object] = []
    begun, answered = threading.Barrier(9), threading.Event()

    def ask(place: int) -> None:
        with httpx.Client(base_url=process.address, timeout=PATIENCE) as client:
            begun.wait(PATIENCE)
            for item in items[place::8]:
                try:
                    told = client.post("/v1/search", json={"item": item, "text": "is red", "k": 3})
                except (httpx.NetworkError, httpx.RemoteProtocolError):
                    # It was not accepted any more; the log has to bear this out.
                    return
                answers.append((told.status_code, len(told.json().get("answers", []))))
                answered.set()

    def guarded(place: int) -> None:
        try:
            ask(place)
        except Exception as error:
            answers.append(error)

    threads = [threading.Thread(target=guarded, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    begun.wait(PATIENCE)
    assert answered.wait(PATIENCE), answers
    code = process.stop()
    for thread in threads:
        thread.join(PATIENCE)
    assert code == 0
    assert set(answers) <= {(200, 3)}, answers
    # The log accounts for every request, and holds neither ids nor texts.
    lines = process.lines()
    asked = [line for line in lines if line["event"] == "request" and line["route"] == "/v1/search"]
    assert len(asked) == len(answers)
    assert asked[0]["text"] == len("is red")
    assert not [line for line in lines if "is red" in json.dumps(line) or items[0] in json.dumps(line)]


def test_what_was_put_before_the_end_is_there_after_it(process, settings, picture):
    with httpx.Client(base_url=process.address, timeout=PATIENCE) as client:
        assert put(client, "kept", picture).status_code == 201
    process.process.kill()
    process.process.wait()
    assert "kept" in open_index(settings.index)


def test_no_answer_is_wrong_or_lost_while_items_come_and_go(process, retriever, picture):
    everything = {item_id for item_id, _ in retriever.index.entries()}
    item = min(everything)
    wrong: list[object] = []
    done = threading.Event()
    counts = {"searches": 0, "changes": 0}

    def change() -> None:
        with httpx.Client(base_url=process.address, timeout=PATIENCE) as client:
            # Until the others have searched meanwhile, however long that takes them.
            while not wrong and (counts["changes"] < 12 or counts["searches"] < 10):
                name = f"new{counts['changes'] % 3}"
                if put(client, name, picture).status_code not in (200, 201):
                    wrong.append("put")
                # A change that was acknowledged counts.
                best = client.post("/v1/search", **form({"k": 1}, picture)).json()["answers"][0]["id"]
                if not best.startswith("new"):
                    wrong.append(best)
                if client.delete(f"/v1/items/{name}").status_code != 204:
                    wrong.append("delete")
                left = client.post("/v1/search", **form({"k": 1}, picture)).json()["answers"][0]["id"]
                if left.startswith("new"):
                    wrong.append(left)
                counts["changes"] += 1

    def search() -> None:
        request = {"item": item, "text": "is red", "k": 200}
        with httpx.Client(base_url=process.address, timeout=PATIENCE) as client:
            first = client.post("/v1/search", json=request).json()["answers"]
            right = [answer["id"] for answer in first if not answer["id"].startswith("new")][:150]
            while not done.is_set():
                told = client.post("/v1/search", json=request)
                ids = [answer["id"] for answer in told.json()["answers"]]
                old = [item_id for item_id in ids if not item_id.startswith("new")]
                if told.status_code != 200 or old[:150] != right or len(ids) != 200:
                    wrong.append(ids)
                counts["searches"] += 1

    def guarded(work) -> None:
        try:
            work()
        except Exception as error:
            wrong.append(error)

    searching = [threading.Thread(target=guarded, args=(search,)) for _ in range(3)]
    for thread in searching:
        thread.start()
    guarded(change)
    done.set()
    for thread in searching:
        thread.join(PATIENCE)
    assert not wrong


def test_a_body_that_is_never_sent_holds_nobody_up(process):
    with socket.create_connection(("127.0.0.1", process.port)) as slow:
        slow.sendall(b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
        slow.sendall(b"Content-Length: 100\r\n\r\n{")
        assert json.load(urllib.request.urlopen(f"{process.address}/readyz")) == {"status": "ready"}


def test_what_cannot_be_served_ends_as_a_sentence(dqecir, settings, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, said = dqecir("serve", "--index", settings.index, "--port", port)
        assert code == 1
        assert "cannot listen on" in said
    model = ["--model", settings.model]
    for arguments, sentence in (
        (["--index", tmp_path / "none", *model], "is not an index"),
        # The shipped model has not made it.
        (["--index", settings.index], "another model"),
        (["--index", settings.index, *model, "--keys", tmp_path / "none"], "keys"),
        (
            ["--index", settings.index, *model, "--also", f"dqe_values={settings.index}@{model[1]}"],
            "two methods",
        ),
        (["--index", settings.index, *model, "--also", f"!={settings.index}"], "--also"),
    ):
        code, _, said = dqecir("serve", "--port", 0, *arguments)
        assert code == 1
        assert sentence in said


def test_a_search_on_a_server_prints_what_one_in_its_index_does(process, settings, dqecir, garments_folder):
    image = sorted((garments_folder / "images").iterdir())[0]
    asked = ("search", "--image", image, "--text", "is red", "-k", 5)
    code, out, _ = dqecir(*asked, "--server", process.address)
    assert code == 0
    _, own, _ = dqecir(*asked, "--index", settings.index, "--model", settings.model)
    assert out.splitlines()[-1] == own.splitlines()[-1]
    assert len(out.splitlines()) == len(own.splitlines())
    code, _, err = dqecir(*asked, "--server", process.address, "--where", "colr = red")
    assert code == 1 and "did you mean" in err
    code, _, err = dqecir(*asked, "--server", "http://127.0.0.1:1")
    assert code == 1 and "does not answer" in err
    code, _, err = dqecir(*asked, "--server", "shop.example")
    assert code == 1 and "is not the address" in err
    code, _, err = dqecir(*asked)
    assert code == 1 and "--server" in err
    code, _, err = dqecir(*asked, "--server", process.address, "--model", settings.model)
    assert code == 1 and "--model" in err


def test_two_processes_serve_one_index_and_see_each_other_s_changes(process, settings, picture, tmp_path):
    (tmp_path / "second").mkdir()
    second = Process(tmp_path / "second", "--index", settings.index, "--model", settings.model)
    try:
        with (
            httpx.Client(base_url=process.address, timeout=PATIENCE) as one,
            httpx.Client(base_url=second.address, timeout=PATIENCE) as other,
        ):
            for number in range(4):
                writer = (one, other)[number % 2]
                told = writer.put(
                    f"/v1/items/shared-{number}",
                    data={"attributes": json.dumps({"n": number})},
                    files={"image": ("a.png", picture)},
                )
                assert told.status_code == 201
            for client in (one, other):
                assert len(client.get("/v1/items?where=n+>=+0").json()["items"]) == 4
                found = client.post("/v1/search", **form({"where": "n >= 0"}, picture)).json()["answers"]
                assert {answer["id"] for answer in found} == {f"shared-{number}" for number in range(4)}
                assert client.get("/v1/images/shared-1").status_code == 200
            assert other.delete("/v1/items/shared-0").status_code == 204
            assert one.get("/v1/items/shared-0").status_code == 404
    finally:
        second.stop()
        second.process.stdout.close()
