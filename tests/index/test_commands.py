"""The commands of an index: build, filter, add, delete, info."""

import json
import shutil

import pytest
from PIL import Image

from dqecir.data.cells import UNKNOWN


@pytest.fixture
def dqecir(dqecir):
    """Return the command line with its output on one line, because the console wraps lines."""

    def run(*arguments) -> tuple[int, str, str]:
        code, out, err = dqecir(*arguments)
        return code, " ".join(out.split()), err

    return run


@pytest.fixture
def with_store(monkeypatch, request):
    """Set up the server or the database of an engine."""

    def set_up(engine: str) -> None:
        monkeypatch.setenv("DQECIR_QDRANT_URL", ":memory:")
        if engine == "postgres":
            request.getfixturevalue("database")

    return set_up


@pytest.fixture
def shop(tmp_path):
    folder = tmp_path / "shop"
    (folder / "images").mkdir(parents=True)
    rows = ["image,color,price,sleeves"]
    for number, (color, price, sleeves) in enumerate(
        [("red", "30", "long"), ("pink", "35", "short"), ("red", "60", ""), ("dark blue", "5", UNKNOWN)]
    ):
        Image.new("RGB", (16, 16), (60 * number, 0, 99)).save(folder / "images" / f"{number}.png")
        rows.append(f"./images/{number}.png,{color},{price},{sleeves}")
    (folder / "attributes.csv").write_text("\n".join(rows))
    return folder


@pytest.mark.parametrize("engine", ["exact", "server", "postgres"])
def test_an_index_from_its_catalogue_to_its_last_item(
    engine, dqecir, shop, one_vector_folder, tmp_path, with_store
):
    with_store(engine)
    index, model = tmp_path / "index", ("--model", one_vector_folder)

    def found(where):
        asked = ("--image", tmp_path / "other.png", "--text", "is red", "--where", where)
        code, out, err = dqecir("search", "--index", index, *asked, "--json", *model)
        return sorted(answer["id"] for answer in json.loads(out)["answers"]) if code == 0 else err

    Image.new("RGB", (16, 16)).save(tmp_path / "other.png")
    built = ("index", "build", "--images", shop, "--out", index, "--engine", engine)
    assert dqecir(*built, *model)[0] == 0
    assert found("color in {red, pink} and price < 40 and not sleeves = long") == ["images/1.png"]
    assert found("sleeves != long") == ["images/1.png", "images/2.png", "images/3.png"]
    assert "did you mean 'color'" in found("colour = red")
    assert "brace after color in is not closed" in found("color in {red")

    more = tmp_path / "more"
    (more / "images").mkdir(parents=True)
    shutil.copy(shop / "images" / "0.png", more / "images" / "9.png")
    shutil.copy(shop / "images" / "0.png", more / "images" / "0.png")
    code, out, _ = dqecir("index", "add", "--index", index, "--images", more, *model)
    assert (code, "2 images added" in out) == (0, True)
    # The new 0.png came without a table, and has taken the place of the red one.
    assert found("color = red") == ["images/2.png"]
    code, out, _ = dqecir("index", "delete", "--index", index, "images/9.png", "images/2.png", "nobody")
    assert (code, out) == (0, "2 items deleted, 1 not found: nobody")
    code, out, _ = dqecir("index", "info", "--index", index)
    facts = json.loads(out)
    assert (facts["items"], facts["attributes"]) == (3, ["color", "price", "sleeves"])
    assert facts["engine"] == engine


def test_an_index_changes_its_engine(dqecir, shop, model_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DQECIR_QDRANT_URL", ":memory:")
    first, moved = tmp_path / "first", tmp_path / "moved"
    assert dqecir("index", "build", "--images", shop, "--out", first, "--model", model_folder)[0] == 0
    code, out, _ = dqecir("index", "move", first, moved, "--engine", "server")
    assert (code, out.startswith("4 items in")) == (0, True)
    code, _, err = dqecir("index", "set", "--index", moved, "--candidates", 7)
    assert (code, "compares every item: the number of candidates cannot be set" in err) == (1, True)
    assert dqecir("index", "set", "--index", moved, "--candidates", 0)[0] == 0
    # Built again it keeps its engine.
    assert dqecir("index", "build", "--images", shop, "--out", moved, "--model", model_folder)[0] == 0
    facts = json.loads(dqecir("index", "info", "--index", moved)[1])
    assert (facts["engine"], facts["items"]) == ("server", 4)
    code, _, err = dqecir("index", "set", "--index", first, "--candidates", 7)
    assert (code, "scores every item" in err) == (1, True)
    assert dqecir("index", "set", "--index", first, "--candidates", 0)[0] == 0
    code, _, err = dqecir("index", "move", first, moved, "--engine", "sever")
    assert (code, "did you mean 'server'" in err) == (1, True)


def test_an_index_of_qdrant_edge_says_what_moves_it(dqecir, shop, model_folder, tmp_path):
    folder, model = tmp_path / "index", ("--model", model_folder)
    folder.mkdir()
    (folder / "manifest.json").write_text('{"format": 2, "engine": "edge"}')
    for arguments in (
        ("info", "--index", folder),
        ("move", folder, tmp_path / "new", "--engine", "exact"),
        ("build", "--images", shop, "--out", folder, *model),
    ):
        code, _, err = dqecir("index", *arguments)
        assert code == 1
        assert f"move it with version 0.1.0 (dqecir index move {folder} NEW --engine exact)" in err
    assert dqecir("index", "build", "--images", shop, "--out", folder, "--engine", "exact", *model)[0] == 0


def test_mistakes_end_as_one_sentence(dqecir, shop, model_folder, tmp_path):
    for arguments in (("delete", "--index", tmp_path / "no", "a"), ("info", "--index", tmp_path / "no")):
        code, _, err = dqecir("index", *arguments)
        assert (code, "is not an index" in err) == (1, True)
    table = shop / "attributes.csv"
    table.write_text(table.read_text().replace("color", "path"))
    code, _, err = dqecir(
        "index", "build", "--images", shop, "--out", tmp_path / "index", "--model", model_folder
    )
    assert (code, "has a column 'path'" in err) == (1, True)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("engine", ["exact", "server", "postgres"])
def test_sold_out_products_are_hidden_until_they_are_asked_for(
    engine, dqecir, shop, one_vector_folder, tmp_path, with_store
):
    with_store(engine)
    table, index = shop / "attributes.csv", tmp_path / "index"
    stocks = ["in stock?", "2", "0", "-1", ""]
    lines = zip(table.read_text().splitlines(), stocks, strict=True)
    table.write_text("\n".join(f"{line},{stock}" for line, stock in lines))
    Image.new("RGB", (16, 16)).save(tmp_path / "other.png")
    model = ("--model", one_vector_folder)
    assert dqecir("index", "build", "--images", shop, "--out", index, "--engine", engine, *model)[0] == 0
    search = ("search", "--index", index, "--image", tmp_path / "other.png", "--text", "is red", *model)

    def found(*more):
        answer = json.loads(dqecir(*search, "--json", *more)[1])
        return sorted(one["id"][7] for one in answer["answers"]), answer["sold_out_hidden"]

    counted = engine != "server"
    assert found() == (["0", "3"], 2 if counted else None)
    assert found("--where", "color = red") == (["0"], 1 if counted else None)
    assert found("--sold-out") == (["0", "1", "2", "3"], 0)
    assert f"{'2 ' if counted else ''}sold-out products are left out: --sold-out shows" in dqecir(*search)[1]
    assert "sold-out" not in dqecir(*search, "--sold-out")[1]
    told = json.loads(dqecir("index", "info", "--index", index)[1])
    assert told["attributes"] == ["color", "in stock?", "price", "sleeves"]
