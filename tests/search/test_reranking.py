"""The second stage of a search: its contract, and the attribute checker."""

from dataclasses import replace

import pytest
import torch

from dqecir.data.images import load_image
from dqecir.errors import DataError
from dqecir.search.engine import SearchEngine
from dqecir.search.reranking import AttributeChecker, admissible_values, search_reranked
from dqecir.search.response import RequestedValue
from dqecir.search.retriever import ComposedRetriever
from dqecir.search.search_request import SearchRequest


@pytest.fixture
def engine(model, garments, tmp_path):
    retriever = ComposedRetriever(model)
    retriever.build_index(list(garments.image_paths[:30]), tmp_path / "index", quiet=True)
    return SearchEngine(model, retriever.index)


def test_the_first_candidates_are_put_into_the_order_of_the_reranker(engine, garments):
    request = SearchRequest(image=garments.image_paths[40], text="is red", k=4)
    first = [result.id for result in engine.search(SearchRequest(**{**vars(request), "k": 12})).results]
    seen = []

    def reversing(request, response, pictures):
        seen.extend(pictures)
        return range(len(pictures))

    found = [result.id for result in search_reranked(engine, request, reversing, depth=12).results]
    assert found == first[::-1][:4] and len(seen) == 12
    alike = search_reranked(engine, request, lambda request, response, pictures: [0.0] * len(pictures), 12)
    assert [result.id for result in alike.results] == first[:4]
    with pytest.raises(DataError, match="1 scores for 12 pictures"):
        search_reranked(engine, request, lambda request, response, pictures: [0.0], 12)


def test_a_candidate_without_a_picture_comes_last(engine, garments, monkeypatch):
    request = SearchRequest(image=garments.image_paths[40], text="is red", k=12)
    first = engine.search(request).results
    gone = first[0].id
    picture_path = engine.index.picture_path
    monkeypatch.setattr(
        engine.index,
        "picture_path",
        lambda payload: None if payload == first[0].payload else picture_path(payload),
    )
    found = search_reranked(engine, request, lambda request, response, pictures: [0.0] * len(pictures), 12)
    assert found.results[-1].id == gone


def test_the_checker_adds_up_what_the_heads_see(engine, model, garments):
    request = SearchRequest(image=garments.image_paths[40], text="is red and has long sleeves", k=6)
    response = engine.search(request)
    asked = (RequestedValue("color", "red"), RequestedValue("sleeves", "not long"), RequestedValue("x", "y"))
    paths = list(garments.image_paths[:3])
    given = replace(response, reading=replace(response.reading, requested=asked))
    scores = AttributeChecker(model)(request, given, paths)
    pixels = torch.stack([model.preprocessing(load_image(path)) for path in paths])
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
