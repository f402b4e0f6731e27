"""Services on one database: docs/database.md works, replicas agree, and a database may go and come back."""

import json
import re
import shlex
import shutil
from pathlib import Path

import httpx
import pytest
import torch

from dqecir.index.engines import open_index
from dqecir.service import readiness
from dqecir.service.configuration import ServiceSettings
from tests.conftest import PATIENCE
from tests.service.conftest import Process, form, put, refused

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'dqecir[postgres]'")

DOCUMENT = Path(__file__).parents[2] / "docs" / "database.md"


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return found


@pytest.fixture
def built(database, dqecir, garments_folder, one_vector_folder, tmp_path, monkeypatch) -> Path:
    """Run the document's command that builds an index, with a small model, and return the index."""
    (tmp_path / "SHOP").symlink_to(garments_folder)
    monkeypatch.chdir(tmp_path)
    (line,) = (line for line in block("").splitlines() if line.startswith("dqecir index build"))
    code, _, err = dqecir(*shlex.split(line)[1:], "--model", one_vector_folder)
    assert code == 0, err
    return tmp_path / "INDEX"


@pytest.fixture
def settings(built, one_vector_folder) -> ServiceSettings:
    return ServiceSettings(index=built, model=one_vector_folder)


@pytest.fixture
def replicas(serving, built, tmp_path):
    """Two services of two machines: each has a folder of its own, and both the same database."""
    shutil.copytree(built, tmp_path / "other" / "INDEX")
    uploads = tmp_path / "uploads"
    other = serving(index=tmp_path / "other" / "INDEX", uploads=uploads)
    with serving(uploads=uploads) as one, other as second:
        yield one, second


def test_the_sql_of_the_document_finds_what_the_shop_has(built, one_vector_folder, database, tmp_path):
    index = open_index(built)
    ids = index.ids()
    view = index.info()["view"]
    folder = view.partition(".")[0]
    with psycopg.connect(database) as connection:
        connection.execute(f'SET search_path = "{folder}"')
        connection.execute(
            "CREATE TABLE products (sku text, title text, price numeric, stock int, picture text)"
        )
        rows = [(f"s{n}", f"Piece {n}", n % 70, n % 3, item) for n, item in enumerate(ids)]
        connection.cursor().executemany("INSERT INTO products VALUES (%s, %s, %s, %s, %s)", rows)
    started = Process(tmp_path, "--index", built, "--model", one_vector_folder)
    try:
        names = {
            "SERVICE": started.address,
            "ITEM": ids[3],
            "DATABASE": f"{database}&options=-csearch_path%3D{folder},ext",
            "VIEW": view,
        }
        exec(compile(block("python"), DOCUMENT.name, "exec"), names)
    finally:
        started.stop()
        started.process.stdout.close()
    found = names["found"]
    scores = (index.tokens(ids).float()[:, 0] @ torch.tensor(names["query"])).tolist()
    allowed = [
        n for n in range(len(ids)) if n % 70 < 40 and n % 3 > 0 and ids[n] not in names["reply"]["exclude"]
    ]
    best = sorted(allowed, key=lambda n: -scores[n])[:10]
    assert [row[0] for row in found] == [f"s{n}" for n in best]
    assert [row[3] for row in found] == pytest.approx([scores[n] for n in best], abs=2e-3)


def test_what_one_service_changed_all_of_them_show(replicas, picture):
    one, other = replicas
    before = other.get("/v1/about").json()["items"]
    assert put(one, "new", picture, {"shade": "teal", "size": "S"}).status_code == 201
    assert other.get("/v1/items/new").json() == one.get("/v1/items/new").json()
    assert other.get("/v1/images/new").content == one.get("/v1/images/new").content
    listed = other.get("/v1/items", params={"where": "shade = teal"}).json()["items"]
    assert [item["id"] for item in listed] == ["new"]
    assert other.get("/v1/about").json()["items"] == before + 1
    assert other.post("/v1/search", **form({"k": 1}, picture)).json()["answers"][0]["id"] == "new"
    assert put(other, "new", picture, {"shade": "navy"}).status_code == 200
    assert one.get("/v1/items/new").json()["attributes"] == {"shade": "navy"}
    assert one.delete("/v1/items/new").status_code == 204
    refused(other.get("/v1/items/new"), 404)
    refused(other.delete("/v1/items/new"), 404)


def test_writers_on_both_services_lose_nothing(replicas, picture):
    for number in range(6):
        assert put(replicas[number % 2], f"new{number}", picture, {"lot": "a"}).status_code == 201
    for client in replicas:
        listed = client.get("/v1/items", params={"where": "lot = a"}).json()["items"]
        assert [item["id"] for item in listed] == [f"new{number}" for number in range(6)]


def test_a_database_that_was_away_is_used_again_without_a_restart(replicas, postgres, picture):
    one, _ = replicas
    asked = {"item": open_index(one.app.state.service.settings.index).ids()[0], "text": "is green", "k": 3}
    right = one.post("/v1/search", json=asked).json()["answers"]
    postgres.stop(crash=True)
    try:
        for client in replicas:
            assert "index" in refused(client.get("/readyz"), 503)
            refused(client.post("/v1/search", json=asked), 503)
            refused(client.get("/v1/items"), 503)
            refused(put(client, "new", picture), 503)
            assert client.get("/healthz").status_code == 200
            assert "dqecir_items NaN" in client.get("/metrics").text
    finally:
        postgres.start()
    for client in replicas:
        for _ in range(int(PATIENCE / readiness.SECONDS)):
            if client.get("/readyz").status_code == 200:
                break
        assert client.post("/v1/search", json=asked).json()["answers"] == right
    assert put(one, "new", picture).status_code == 201


def test_a_service_that_is_killed_leaves_the_other_all_that_it_acknowledged(
    serving, built, one_vector_folder, picture, tmp_path
):
    started = Process(
        tmp_path, "--index", built, "--model", one_vector_folder, "--uploads", tmp_path / "kept"
    )
    with serving(uploads=tmp_path / "kept") as other:
        with httpx.Client(base_url=started.address, timeout=PATIENCE) as client:
            for number in range(3):
                told = client.put(
                    f"/v1/items/new{number}",
                    data={"attributes": json.dumps({"lot": "a"})},
                    files={"image": ("a.png", picture)},
                )
                assert told.status_code == 201
        started.process.kill()
        started.process.wait()
        started.process.stdout.close()
        listed = other.get("/v1/items", params={"where": "lot = a"}).json()["items"]
        assert [item["id"] for item in listed] == ["new0", "new1", "new2"]
        assert other.get("/v1/images/new2").status_code == 200
        assert other.delete("/v1/items/new0").status_code == 204
