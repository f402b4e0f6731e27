"""Several references: one query that is the weighted mean of each reference composed with the text."""

import json

import pytest
import torch

from dqecir import ComposedRetriever
from dqecir.errors import DataError, UnknownItemError
from dqecir.methods.method import Query
from dqecir.methods.scoring import score
from dqecir.model.compose import mixed
from dqecir.search.engine import SearchEngine
from dqecir.search.preferring import mixed_cells
from dqecir.search.search_request import SearchRequest, WeightedReference
from tests.conftest import tiny_model

TEXTS = ["is red", "is red", "has long sleeves"]


@pytest.fixture(params=["dqe", "dqe_values", "dqe_values by dot", "sprc"])
def composed(request):
    """Return (model, queries of two references with one text and of one with another) of each kind of
    query."""
    name, _, rule = request.param.partition(" by ")
    model = tiny_model().with_method(name, {"rule": rule} if rule else {}).eval()
    tokens = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return model, model.method.embed_query(tokens, model.text_encoder(TEXTS))


def test_a_mixed_query_lies_between_those_of_its_references(composed):
    _, query = composed
    found = mixed(query, [[3.0, 1.0], [2.0]])
    torch.testing.assert_close(found.embeddings[1], query.embeddings[2])
    parts = query.parts
    if parts is None:
        expected = (3 * query.embeddings[0] + query.embeddings[1]) / 4
        torch.testing.assert_close(found.embeddings[0], expected)
        return
    torch.testing.assert_close(found.parts.embeddings(), found.embeddings)
    torch.testing.assert_close(found.parts.weights[0], (3 * parts.weights[0] + parts.weights[1]) / 4)
    for mine, theirs in zip(found.parts.wanted, parts.wanted, strict=True):
        torch.testing.assert_close(mine[0], (3 * theirs[0] + theirs[1]) / 4)
    if parts.slices is None:
        whole = parts.base + torch.einsum("bp,bpqd->bqd", parts.weights, parts.pieces)
        expected = (3 * whole[0] + whole[1]) / 4
        expected = torch.nn.functional.normalize(expected, dim=1) if parts.normalised else expected
        torch.testing.assert_close(found.embeddings[0], expected)


def test_the_same_reference_twice_is_that_reference(composed):
    model, query = composed
    double = Query(query.embeddings[[0, 0]], parts=query.parts and _rows(query.parts, [0, 0]))
    targets = torch.nn.functional.normalize(torch.randn(9, *model.method.target_shape), dim=-1)
    expected = score(query.embeddings[:1], targets, model.method.score_rule)
    found = score(mixed(double, [[1.0, 5.0]]).embeddings, targets, model.method.score_rule)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def _rows(parts, rows):
    fields = {
        name: value[rows] if isinstance(value, torch.Tensor) and name != "owners" else value
        for name, value in vars(parts).items()
    }
    unread = None if parts.unread is None else tuple(parts.unread[row] for row in rows)
    return type(parts)(**{**fields, "wanted": tuple(one[rows] for one in parts.wanted), "unread": unread})


def test_cells_are_mixed_in_the_columns_that_all_have():
    red, blue = {"garment": {"dress": 1.0}, "color": {"red": 1.0}}, {"garment": {"shirt": 1.0}}
    assert mixed_cells([red, blue], [1.0, 3.0]) == {"garment": {"dress": 0.25, "shirt": 0.75}}
    assert mixed_cells([], []) == {}


@pytest.fixture
def indexed(garments, tmp_path):
    retriever = ComposedRetriever(tiny_model().with_method("dqe_values", {}))
    retriever.build_index(list(garments.image_paths[:30]), tmp_path / "index", quiet=True)
    return retriever


def test_references_are_pictures_or_items_and_are_not_found(indexed, garments):
    engine = SearchEngine(indexed.model, indexed.index)
    files = garments.image_paths[:2]
    ids = [path.as_posix() for path in files]
    items = engine.search(
        SearchRequest(item=ids[0], text="is red", references=(WeightedReference(item=ids[1]),))
    )
    assert not {result.id for result in items.results} & set(ids)
    plain = indexed.search(files[0], "is red", references=[WeightedReference(files[1])])
    assert [one.id for one in plain.results] == [one.id for one in items.results]
    assert len(plain.results) == 10
    alone = indexed.search(text="is red", references=[WeightedReference(one) for one in files])
    assert [one.id for one in alone.results] == [one.id for one in items.results]
    first = indexed.search(files[0], "is red").results
    heavy = indexed.search(files[0], "is red", references=[WeightedReference(files[1], weight=1e-6)])
    assert heavy.results[0].score == pytest.approx(
        next(one.score for one in first if one.id == heavy.results[0].id), abs=1e-3
    )


def test_a_batch_of_requests_is_answered_as_each_alone(indexed, garments):
    engine = SearchEngine(indexed.model, indexed.index)
    a, b, c = (path.as_posix() for path in garments.image_paths[:3])
    requests = [
        SearchRequest(item=a, text="is red", references=(WeightedReference(item=b, weight=2.0),)),
        SearchRequest(text="is red"),
        SearchRequest(
            text="has long sleeves", references=tuple(WeightedReference(item=one) for one in (b, c))
        ),
        SearchRequest(item=c, earlier=("is red",), text="now with stripes"),
    ]
    together = engine.answer([engine.prepare(one) for one in requests])
    for request, found in zip(requests, together, strict=True):
        alone = engine.search(request)
        assert [one.id for one in found.results] == [one.id for one in alone.results]
        assert found.reading == alone.reading
        assert found.attribute_weights == pytest.approx(alone.attribute_weights)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_a_weight_that_is_none_is_refused(indexed, garments, weight):
    with pytest.raises(DataError, match="weight of a reference must be more than 0"):
        indexed.search(
            garments.image_paths[0], references=[WeightedReference(garments.image_paths[1], weight=weight)]
        )
    with pytest.raises(UnknownItemError):
        indexed.search(garments.image_paths[0], references=[WeightedReference(item="nowhere")])


def test_the_command_takes_files_and_ids_with_weights(dqecir, indexed, garments, tmp_path):
    model = indexed.save_pretrained(tmp_path / "model")
    first, second, third = garments.image_paths[:3]
    code, out, err = dqecir(
        "search", "--index", tmp_path / "index", "--model", model, "--image", first, "--text", "is red",
        "--reference", f"{second}=2", "--reference", third.as_posix(), "--json",
    )  # fmt: skip
    assert code == 0, err
    expected = indexed.search(
        first, "is red", references=[WeightedReference(second, weight=2.0), WeightedReference(third)]
    )
    assert [one["id"] for one in json.loads(out)["answers"]] == [one.id for one in expected.results]
    code, _, err = dqecir(
        "search",
        "--index",
        tmp_path / "index",
        "--model",
        model,
        "--reference",
        "no.jpg=2",
        "--text",
        "is red",
    )
    assert code == 1 and "no.jpg" in err
