"""ComposedRetriever: encode, index, search; unusable pictures are left out one by one."""

import os
import shutil

import pytest
import torch
from PIL import Image

from dqecir import ComposedRetriever
from dqecir.errors import DataError, EngineError
from dqecir.search.audit import audit
from dqecir.search.engine import SearchEngine
from dqecir.search.search_request import SearchRequest
from tests.conftest import tiny_model


@pytest.fixture
def retriever() -> ComposedRetriever:
    return ComposedRetriever(tiny_model().with_method("dqe", {}))


@pytest.fixture
def pictures(tmp_path, garments_folder):
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for number, path in enumerate(sorted((garments_folder / "images").iterdir())[:12]):
        shutil.copy(path, folder / ("more" if number % 2 else ".") / path.name)
    return folder


def test_indexes_a_folder_and_finds_in_it(retriever, pictures, tmp_path):
    (pictures / "broken.jpg").write_text("broken")
    (pictures / "notes.txt").write_text("no picture")
    summary = retriever.build_index(pictures, tmp_path / "index", quiet=True)
    assert summary.indexed == 12
    assert [refusal.path.name for refusal in summary.refusals] == ["notes.txt", "broken.jpg"]
    reference = sorted(pictures.rglob("*.jpg"))[0]
    result = retriever.search(reference, "is red", k=5)
    assert len(result.hits) == 5
    scores = [hit.score for hit in result.hits]
    assert scores == sorted(scores, reverse=True)
    assert set(result.attribute_weights) == {"colour", "shape"}
    assert all(hit.payload["path"] != str(reference.resolve()) for hit in result.hits)


def test_a_name_that_is_no_text_is_left_out_and_told_in_text(retriever, pictures, tmp_path):
    first = sorted(pictures.glob("*.jpg"))[0]
    try:
        shutil.copy(first, os.fsencode(pictures) + b"/a\xff.jpg")
    except OSError:
        pytest.skip("this file system keeps names that are text alone")
    summary = retriever.build_index(pictures, tmp_path / "index", quiet=True)
    assert summary.indexed == 12
    assert [(str(refusal.path), "UTF-8" in refusal.reason) for refusal in summary.refusals] == [
        ("a?.jpg", True)
    ]


def test_what_a_table_names_behind_a_link_is_indexed(retriever, pictures, tmp_path):
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "linked").symlink_to(pictures, target_is_directory=True)
    names = [path.name for path in sorted(pictures.glob("*.jpg"))]
    rows = [f"linked/{name},red" for name in names]
    (shop / "attributes.csv").write_text("\n".join(["image,color", *rows, ""]))
    assert retriever.build_index(shop, tmp_path / "index", quiet=True).indexed == len(names)
    assert all(f"linked/{name}" in retriever.index for name in names)


def test_pictures_whose_tokens_are_kept_are_not_encoded_again(retriever, pictures, tmp_path, monkeypatch):
    (pictures / "broken.jpg").write_text("broken")
    retriever.build_index(pictures, tmp_path / "plain", quiet=True)
    reference = sorted(pictures.rglob("*.jpg"))[0]
    plain = retriever.search(reference, "is red", k=12)
    seen, tower = [], type(retriever.model.backbone).image_tokens
    monkeypatch.setattr(
        type(retriever.model.backbone), "image_tokens", lambda *a: seen.append(len(a[1])) or tower(*a)
    )
    kept = tmp_path / "tokens"
    summary = retriever.build_index(pictures, tmp_path / "index", quiet=True, tokens=kept)
    assert (summary.indexed, len(summary.refusals), sum(seen)) == (12, 1, 12)
    found = retriever.search(reference, "is red", k=12)
    assert [hit.id for hit in found.hits] == [hit.id for hit in plain.hits]
    assert [hit.score for hit in found.hits] == pytest.approx([hit.score for hit in plain.hits], abs=2e-3)
    # Another model of the same tower, and one picture more.
    shutil.copy(reference, pictures / "again.jpg")
    another = ComposedRetriever(retriever.model.with_method("dqe", {}))
    Image.new("RGB", (40, 40), "red").save(pictures / "new.jpg")
    seen.clear()
    assert another.build_index(pictures, tmp_path / "index", quiet=True, tokens=kept).indexed == 14
    assert sum(seen) == 1
    seen.clear()
    assert another.add_pictures(pictures, quiet=True, tokens=kept).indexed == 14
    assert not seen


def test_words_about_a_price_filter_by_it(retriever, pictures, tmp_path):
    shop = tmp_path / "shop"
    shutil.copytree(pictures, shop)
    names = sorted(path.relative_to(shop).as_posix() for path in shop.rglob("*.jpg"))
    rows = [f"{name},{'' if place == 0 else f'€ {place}.50'}" for place, name in enumerate(names)]
    (shop / "attributes.csv").write_text("\n".join(["image,price", *rows, ""]))
    retriever.build_index(shop, tmp_path / "index", quiet=True)
    cheaper = retriever.search(shop / names[4], "is red and cheaper", k=12)
    assert {hit.id for hit in cheaper.hits} == set(names[1:4])
    assert cheaper.as_json()["bounds"] == [
        {"attribute": "price", "order": "<", "number": 4.5, "words": "cheaper"}
    ]
    plain = retriever.search(shop / names[4], "is red", k=12, where="price < 4.5")
    assert [hit.score for hit in cheaper.hits] == pytest.approx([hit.score for hit in plain.hits])
    # A picture without a price, and one that is no item, are compared with nothing.
    for reference in (shop / names[0], (shop / names[4]).read_bytes(), pictures / names[4]):
        unknown = retriever.search(reference, "is red and cheaper", k=12)
        assert len(unknown.hits) == 12 - (reference == shop / names[0])
        assert [bound.number for bound in unknown.bounds] == [None]
    bounded = retriever.search(pictures / names[4], "is red, from 3 to 6 euros", k=12)
    assert {hit.id for hit in bounded.hits} == set(names[3:6])


def test_an_index_is_found_again_by_the_same_model_alone(retriever, pictures, tmp_path):
    retriever.build_index(pictures, tmp_path / "index", quiet=True)
    retriever.save_pretrained(tmp_path / "model")
    again = ComposedRetriever.from_pretrained(tmp_path / "model").open_index(tmp_path / "index")
    reference = next(iter(pictures.rglob("*.jpg")))
    assert again.search(reference, "is red", k=3) == retriever.search(reference, "is red", k=3)
    other = ComposedRetriever(tiny_model().with_method("clip4cir_sum", {}))
    with pytest.raises(EngineError, match="another model"):
        other.open_index(tmp_path / "index")


def test_batches_and_single_images_are_encoded_alike(retriever, pictures):
    paths = sorted(pictures.rglob("*.jpg"))[:5]
    together = retriever.encode_images(paths)
    alone = torch.cat([retriever.encode_images([path]) for path in paths])
    assert torch.allclose(together, alone, atol=1e-5)
    assert together.shape == (5, 3, 24)
    queries = retriever.encode_query([Image.open(paths[0]), paths[0].read_bytes()], ["is red", "is red"])
    assert torch.allclose(queries[0], queries[1], atol=1e-6)


def test_what_cannot_be_done_is_said(retriever, tmp_path):
    with pytest.raises(EngineError, match="there is no index"):
        retriever.search(Image.new("RGB", (8, 8)), "is red")
    with pytest.raises(DataError, match="no folder"):
        retriever.build_index(tmp_path / "nowhere", tmp_path / "i")
    with pytest.raises(DataError, match="holds no pictures"):
        retriever.build_index(tmp_path, tmp_path / "i")
    with pytest.raises(DataError, match="has no table, so it has no sheet 'Shoes': name no sheet"):
        retriever.build_index(tmp_path, tmp_path / "i", sheet="Shoes")
    with pytest.raises(DataError, match="2 images came with 1 texts"):
        retriever.encode_query([Image.new("RGB", (8, 8))] * 2, ["is red"])
    (tmp_path / "a.jpg").write_text("broken")
    says = r"none of the pictures could be used:\n- .*a\.jpg: not a picture in a supported format"
    with pytest.raises(EngineError, match=says):
        retriever.build_index(tmp_path, tmp_path / "i", quiet=True)
    (tmp_path / "a.jpg").unlink()
    for number in range(25):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(
        DataError, match=r"holds no pictures\n- 0\.txt: it is not a picture\n(.*\n)*- and 5 more$"
    ):
        retriever.build_index(tmp_path, tmp_path / "i")


def test_a_search_is_steered_by_weights_and_by_items(retriever, pictures, tmp_path):
    retriever.build_index(pictures, tmp_path / "index", quiet=True)
    reference = sorted(pictures.rglob("*.jpg"))[0]
    plain = retriever.search(reference, "is red", k=11)
    names = [hit.id for hit in plain.hits]
    weighed = retriever.search(reference, "is red", k=11, weights={"shape": 3})
    assert weighed.attribute_weights["shape"] == 3
    assert weighed.attribute_weights["colour"] == plain.attribute_weights["colour"]
    assert [hit.score for hit in weighed.hits] != [hit.score for hit in plain.hits]
    liked = retriever.search(reference, "is red", k=11, more=[names[-1]])
    assert {hit.id for hit in liked.hits} == set(names)
    assert liked.hits[0].score > plain.hits[0].score + 0.1
    disliked = retriever.search(reference, "is red", k=11, less=[names[0]])
    assert {hit.id for hit in disliked.hits} == set(names[1:])
    with pytest.raises(EngineError, match="no item 'nothing'"):
        retriever.search(reference, "is red", more=["nothing"])
    with pytest.raises(DataError, match="no attribute 'size'"):
        retriever.search(reference, "is red", weights={"size": 1})


@pytest.mark.parametrize("name", ["dqe", "dqe_values"])
def test_without_a_text_a_picture_finds_its_like(pictures, tmp_path, name):
    retriever = ComposedRetriever(tiny_model().with_method(name, {}))
    retriever.build_index(pictures, tmp_path / "index", quiet=True)
    assert len(retriever.search(sorted(pictures.rglob("*.jpg"))[0], k=5).hits) == 5


@pytest.mark.parametrize("engine", ["exact", "server", "postgres"])
def test_one_vector_a_picture_is_indexed_searched_and_explained(
    pictures, tmp_path, engine, monkeypatch, request
):
    if engine == "server":
        pytest.importorskip("qdrant_client")
        monkeypatch.setenv("DQECIR_QDRANT_URL", ":memory:")
    if engine == "postgres":
        request.getfixturevalue("database")
    retriever = ComposedRetriever(tiny_model().with_method("dqe_values", {"rule": "dot"}))
    retriever.build_index(pictures, tmp_path / "index", quiet=True, engine=engine)
    header = retriever.index.header
    assert (header.score_rule, header.tokens) == ("dot", 1)
    reference = sorted(pictures.rglob("*.jpg"))[0]
    names = [hit.id for hit in retriever.search(reference, "is red", k=12).hits]
    found = retriever.search(reference, "is red", k=12, more=names[-1:], less=names[:1], weights={"shape": 2})
    assert {hit.id for hit in found.hits} == set(names[1:])
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
    engine = SearchEngine(retriever.model, retriever.index)
    response = engine.search(SearchRequest(image=reference, text="is red and not striped", k=3, explain=True))
    known = {"overall", *retriever.model.method.columns}
    assert {part.attribute for result in response.results for part in result.contributions} <= known
    assert any(result.contributions for result in response.results)
    report = audit(retriever.index, retriever.model, count=5, numbers=(12,))
    assert all(row.recall == 1 for row in report.rows)
