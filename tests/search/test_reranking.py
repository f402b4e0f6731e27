"""The second stage of a search: its contract, and the reranker by attribute heads."""

import json
from dataclasses import replace

import pytest
import torch

from dqecir.data.images import load_image
from dqecir.errors import DataError
from dqecir.search.cross_encoder import ATTRIBUTE_HEADS, reranker_named
from dqecir.search.engine import SearchEngine
from dqecir.search.reranking import AttributeChecker, admissible_values
from dqecir.search.response import RequestedValue
from dqecir.search.retriever import ComposedRetriever
from dqecir.search.search_request import SearchRequest


@pytest.fixture
def engine(model, garments, tmp_path):
    retriever = ComposedRetriever(model)
    retriever.build_index(list(garments.image_paths[:30]), tmp_path / "index", quiet=True)
    return SearchEngine(model, retriever.index)


def ranked_by(engine, reranker):
    return SearchEngine(engine.model, engine.index, reranker=reranker)


def test_the_first_candidates_are_put_into_the_order_of_the_reranker(engine, garments):
    request = SearchRequest(image=garments.image_paths[40], text="is red", k=4)
    first = [result.id for result in engine.search(replace(request, k=12)).results]
    seen = []

    def reversing(request, response, pictures):
        seen.extend(pictures)
        return range(len(pictures))

    found = ranked_by(engine, reversing).search(replace(request, rerank=12))
    assert [one.id for one in found.results] == first[::-1][:4] and len(seen) == 12
    assert "rerank" in found.timings
    fewer = ranked_by(engine, reversing).search(replace(request, rerank=2))
    assert [one.id for one in fewer.results] == [*first[:2][::-1], *first[2:4]]

    def alike(request, response, pictures):
        return [0.0] * len(pictures)

    unchanged = ranked_by(engine, alike).search(replace(request, rerank=12))
    assert [one.id for one in unchanged.results] == first[:4]
    with pytest.raises(DataError, match="1 scores for 12 pictures"):
        ranked_by(engine, lambda *_: [0.0]).search(replace(request, rerank=12))


def test_a_reranker_sees_the_picture_of_a_reference_that_is_an_item(engine, garments):
    seen = []

    def noting(request, response, pictures):
        seen.append(request.image)
        return [0.0] * len(pictures)

    item = garments.image_paths[3].as_posix()
    ranked_by(engine, noting).search(SearchRequest(item=item, text="is red", rerank=3))
    ranked_by(engine, noting).search(SearchRequest(text="is red", rerank=3))
    assert seen == [garments.image_paths[3], None]


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_candidate_without_a_usable_picture_comes_last(engine, garments, monkeypatch, tmp_path, harm):
    request = SearchRequest(image=garments.image_paths[40], text="is red", k=12, rerank=12)
    first = engine.search(replace(request, rerank=0)).results
    broken = tmp_path / "broken.jpg"
    broken.write_text("no picture")
    instead = None if harm == "missing" else broken
    picture_path = engine.index.picture_path
    monkeypatch.setattr(
        engine.index,
        "picture_path",
        lambda payload: instead if payload == first[0].payload else picture_path(payload),
    )
    found = ranked_by(engine, lambda request, response, pictures: [0.0] * len(pictures)).search(request)
    assert [one.id for one in found.results] == [*(one.id for one in first[1:]), first[0].id]


def test_attribute_heads_rerank_where_they_are_named(engine, garments, model, dqecir, tmp_path):
    request = SearchRequest(image=garments.image_paths[40], text="is red", k=12)
    response = engine.search(request)
    pictures = [load_image(engine.index.picture_path(one.payload)) for one in response.results]
    scores = AttributeChecker(model)(request, response, pictures)
    order = sorted(range(12), key=lambda place: -scores[place])
    expected = [response.results[place].id for place in order]
    found = ranked_by(engine, reranker_named(ATTRIBUTE_HEADS, model)).search(replace(request, rerank=12))
    assert [one.id for one in found.results] == expected
    code, out, err = dqecir(
        "search", "--index", engine.index.folder, "--model", model.save_pretrained(tmp_path / "model"),
        "--image", garments.image_paths[40], "--text", "is red", "-k", 3, "--rerank", 12,
        "--reranker", ATTRIBUTE_HEADS, "--json",
    )  # fmt: skip
    assert code == 0, err
    assert [one["id"] for one in json.loads(out)["answers"]] == expected[:3]


def test_nothing_reranks_unless_it_is_named(engine, garments):
    with pytest.raises(DataError, match="there is no reranker: name one"):
        engine.search(SearchRequest(image=garments.image_paths[40], rerank=5))


def test_heads_that_a_model_lacks_do_not_rerank(model):
    with pytest.raises(DataError, match="the model has no attribute heads"):
        reranker_named(ATTRIBUTE_HEADS, replace(model, heads=None))


def test_the_checker_adds_up_what_the_heads_see(engine, model, garments):
    request = SearchRequest(image=garments.image_paths[40], text="is red and has long sleeves", k=6)
    response = engine.search(request)
    asked = (RequestedValue("color", "red"), RequestedValue("sleeves", "not long"), RequestedValue("x", "y"))
    pictures = [load_image(path) for path in garments.image_paths[:3]]
    given = replace(response, reading=replace(response.reading, requested=asked))
    scores = AttributeChecker(model)(request, given, pictures)
    pixels = torch.stack([model.preprocessing(picture) for picture in pictures])
    with torch.no_grad():
        logits = model.heads(model.backbone.image_tokens(pixels))
    columns = model.heads.config.columns
    red = logits["color"].softmax(dim=1)[:, columns["color"].index("red")]
    long = logits["sleeves"].softmax(dim=1)[:, columns["sleeves"].index("long")]
    expected = (red + 0.003).log() + (1 - long + 0.003).log()
    assert scores == pytest.approx(expected.tolist(), abs=1e-5)
    assert AttributeChecker(model)(request, given, []) == []


def test_admissible_values_by_hand():
    values = ("red", "blue", "green")
    assert admissible_values(RequestedValue("color", "red or blue"), values).tolist() == [1, 1, 0]
    assert admissible_values(RequestedValue("color", "not red"), values).tolist() == [0, 1, 1]
    assert admissible_values(RequestedValue("color", "pink"), values) is None
    assert admissible_values(RequestedValue("color", None), values) is None
