"""Several references in one request to a service: items, uploads, and errors."""

import json

import pytest

from dqecir.search.cross_encoder import ATTRIBUTE_HEADS, reranker_named
from dqecir.search.retriever import ComposedRetriever
from dqecir.search.search_request import WeightedReference
from tests.service.conftest import refused


@pytest.fixture
def ids(retriever):
    return [item for item, _ in retriever.index.entries()][:3]


def ask(client, request, *images):
    files = [("image", (f"{place}.png", image)) for place, image in enumerate(images)]
    if not files:
        return client.post("/v1/search", json=request)
    return client.post("/v1/search", data={"request": json.dumps(request)}, files=files)


def test_items_and_uploads_are_mixed_as_in_python(client, retriever, ids, picture):
    paths = [retriever.index.picture_path(retriever.index.payload(one)) for one in ids]
    request = {
        "item": ids[0],
        "text": "is red",
        "k": 5,
        "references": [{"weight": 2}, {"item": ids[1], "weight": 0.5}],
    }
    found = ask(client, request, picture)
    expected = retriever.search(
        paths[0],
        "is red",
        k=5,
        references=[WeightedReference(picture, weight=2.0), WeightedReference(item=ids[1], weight=0.5)],
    )
    assert found.status_code == 200, found.text
    assert [one["id"] for one in found.json()["answers"]] == [one.id for one in expected.results]
    # The first reference may be uploaded, too, or lacking.
    both = ask(client, {"text": "is red", "references": [{}]}, picture, picture).json()
    once = ask(client, {"text": "is red"}, picture).json()
    assert [one["id"] for one in both["answers"]] == [one["id"] for one in once["answers"]]
    lacking = ask(client, {"text": "is red", "references": [{}]}, picture).json()
    assert [one["id"] for one in lacking["answers"]] == [one["id"] for one in once["answers"]]


def test_a_command_sends_its_references(client, ids, monkeypatch, dqecir, tmp_path, picture):
    sent = {}

    def searched(server, request, images, key):
        sent.update(request, images=images)
        return {"answers": [], "sentence": "", "sold_out_hidden": 0}

    monkeypatch.setattr("dqecir.service.client.search_on", searched)
    (tmp_path / "a.png").write_bytes(picture)
    code, _, err = dqecir(
        "search",
        "--server",
        "http://127.0.0.1:1",
        "--reference",
        f"{tmp_path / 'a.png'}=2",
        "--reference",
        ids[0],
    )
    assert code == 0, err
    assert sent["references"] == [{"item": None, "weight": 2.0}, {"item": ids[0], "weight": 1.0}]
    assert sent["images"] == [picture]


def test_references_without_their_pictures_are_refused(client, ids, picture):
    assert "2 references are images, but 1 were uploaded" in refused(
        ask(client, {"references": [{}, {}]}, picture), 422
    )
    refused(ask(client, {"item": ids[0], "references": [{"item": ids[1]}]}, picture), 422)
    refused(ask(client, {"item": ids[0], "references": [{"item": ids[1], "weight": 0}]}), 422)
    most = client.get("/v1/about").json()["limits"]["references"]
    assert ask(client, {"item": ids[0], "references": [{"item": ids[1]}] * most}).status_code == 200
    refused(ask(client, {"item": ids[0], "references": [{"item": ids[1]}] * (most + 1)}), 422)
    refused(ask(client, {"item": ids[0], "references": [{"item": "nowhere"}]}), 404)
    refused(ask(client, {"text": "is red", "references": [{}] * 8}, *[picture] * 10), 422)
    refused(ask(client, {"text": "is red", "references": [{}]}, b"no picture"), 422)


def test_an_explanation_looks_at_the_first_reference(client, ids):
    request = {"item": ids[0], "text": "is red", "references": [{"item": ids[1]}], "target": ids[2]}
    found = client.post("/v1/explanations", json=request)
    alone = client.post("/v1/explanations", json={**request, "references": []})
    assert found.status_code == 200 and found.json() == alone.json()
    only = client.post("/v1/explanations", json={**request, "item": None, "references": [{"item": ids[0]}]})
    assert only.json() == alone.json()


def test_the_first_candidates_are_reranked_as_in_python(client, serving, served, ids):
    request = {"item": ids[0], "text": "is red", "k": 3}
    with serving(reranker=ATTRIBUTE_HEADS) as reranking:
        found = reranking.post("/v1/search", json={**request, "rerank": 20}).json()
    retriever = ComposedRetriever.from_pretrained(served[0]).open_index(served[1])
    retriever.reranker = reranker_named(ATTRIBUTE_HEADS, retriever.model)
    path = retriever.index.picture_path(retriever.index.payload(ids[0]))
    expected = retriever.search(path, "is red", k=3, rerank=20).results
    assert [one["id"] for one in found["answers"]] == [one.id for one in expected]
    assert "rerank" in found["timings"]
    assert "there is no reranker" in refused(client.post("/v1/search", json={**request, "rerank": 5}), 422)
    refused(client.post("/v1/search", json={**request, "rerank": 201}), 422)
