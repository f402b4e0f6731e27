"""An index finds its pictures in the folder that they were moved to."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from dqecir.data.picture_root import FILE, picture_path, read_root
from dqecir.errors import EngineError
from dqecir.index.contract import ItemBatch
from dqecir.index.engines import move_index, open_index
from dqecir.search.retriever import ComposedRetriever


@pytest.fixture
def place(tmp_path, model_folder) -> Path:
    """Return a folder with a shop of three pictures and its index beside it."""
    place = tmp_path / "old"
    (place / "shop" / "x").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "x/c.png")):
        Image.new("RGB", (8, 8), (80 * number, 0, 0)).save(place / "shop" / name)
    retriever = ComposedRetriever.from_pretrained(model_folder)
    retriever.build_index(place / "shop", place / "index", quiet=True)
    return place


def found(place: Path, shop: Path, model_folder: Path):
    retriever = ComposedRetriever.from_pretrained(model_folder).open_index(place / "index")
    return retriever.search(shop / "a.png")


def test_payloads_hold_paths_relative_to_the_catalogue(place):
    index = open_index(place / "index")
    assert {payload["path"] for _, payload in index.entries()} == {"a.png", "b.png", "x/c.png"}
    assert read_root(place / "index") == place / "shop"


def test_a_shop_that_moved_with_its_index_is_found(place, model_folder, tmp_path):
    place.rename(tmp_path / "new")
    shop = tmp_path / "new" / "shop"
    result = found(tmp_path / "new", shop, model_folder)
    assert {hit.id: hit.payload["path"] for hit in result.hits} == {
        "b.png": str(shop / "b.png"),
        "x/c.png": str(shop / "x" / "c.png"),
    }
    result.write_sheet(tmp_path / "s.png", shop / "a.png", "")


def test_an_index_that_moved_alone_is_found(place, model_folder, tmp_path):
    (place / "index").rename(tmp_path / "index")
    assert [hit.id for hit in found(tmp_path, place / "shop", model_folder).hits] != []
    assert open_index(tmp_path / "index").picture_path({"path": "a.png"}) == place / "shop" / "a.png"


def test_pictures_that_moved_alone_are_told(place, model_folder, tmp_path, dqecir):
    (place / "shop").rename(tmp_path / "pictures")
    assert len(found(place, tmp_path / "pictures", model_folder).hits) == 3
    code, _, err = dqecir("index", "reroot", "--index", place / "index", "--images", tmp_path / "nowhere")
    assert (code, "there is no folder" in err) == (1, True)
    (tmp_path / "else").mkdir()
    code, _, err = dqecir("index", "reroot", "--index", place / "index", "--images", tmp_path / "else")
    assert (code, "none of the 3 pictures" in err, "give the folder that contains" in err) == (1, True, True)
    (tmp_path / "pictures" / "b.png").rename(tmp_path / "b.png")
    # A picture at an address moves with no folder.
    index = open_index(place / "index")
    index.add(ItemBatch(["far"], index.tokens(["b.png"]), [{"path": "s3://bucket/shop/far.png"}]))
    assert index.picture_path(index.payload("far")) is None
    code, out, _ = dqecir("index", "reroot", "--index", place / "index", "--images", tmp_path / "pictures")
    assert (code, "finds 2 of its 3 pictures" in out) == (0, True)
    index.delete(["far"])
    (tmp_path / "b.png").rename(tmp_path / "pictures" / "b.png")
    assert len(found(place, tmp_path / "pictures", model_folder).hits) == 2
    _, out, _ = dqecir("index", "info", "--index", place / "index")
    assert json.loads(out)["root"] == str(tmp_path / "pictures")


def test_another_engine_and_pictures_from_elsewhere_keep_their_places(place, model_folder, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "d.png")
    retriever = ComposedRetriever.from_pretrained(model_folder).open_index(place / "index")
    retriever.add_pictures([tmp_path / "d.png", place / "shop" / "b.png"], quiet=True)
    moved = move_index(place / "index", tmp_path / "further" / "index", "exact")
    places = {moved.picture_path(payload) for _, payload in moved.entries()}
    names = ("a.png", "b.png", "x/c.png")
    assert places == {tmp_path / "d.png", *(place / "shop" / name for name in names)}


def test_uploads_are_found_beside_a_moved_index(tmp_path):
    (tmp_path / "index-uploads").mkdir()
    (tmp_path / "index-uploads" / "1.png").touch()
    assert (
        picture_path(tmp_path / "index", "/gone/index-uploads/1.png") == tmp_path / "index-uploads" / "1.png"
    )
    assert picture_path(tmp_path / "index", "/gone/2.png") == Path("/gone/2.png")


def test_a_damaged_root_is_one_sentence(place):
    (place / "index" / FILE).write_text("{")
    with pytest.raises(EngineError, match=r"is damaged .*: dqecir index reroot writes it again"):
        read_root(place / "index")


def test_an_index_of_listed_files_has_whole_paths(place, model_folder):
    retriever = ComposedRetriever.from_pretrained(model_folder)
    retriever.build_index([place / "shop" / "a.png"], place / "index", quiet=True)
    assert read_root(place / "index") is None
    (_, payload) = next(iter(retriever.index.entries()))
    shutil.rmtree(place / "shop")
    assert retriever.index.picture_path(payload) == place / "shop" / "a.png"
