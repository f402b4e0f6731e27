"""Predicted attributes: the query, the exact ranking, and errors."""

from dataclasses import replace

import pytest
import torch

from dqecir.errors import DataError
from dqecir.evaluation.evaluate import evaluate
from dqecir.evaluation.metrics import collect, summarise
from dqecir.evaluation.predicted import predicted_scores
from dqecir.methods.predicted_attributes import PREDICTION_SMOOTHING
from dqecir.model.composed_model import ComposedModel
from dqecir.questions.composing import catalogue_benchmark
from tests.methods.steps import RandomStore, a_batch


@pytest.fixture
def knowing(model, garments, monkeypatch):
    """Return (model, benchmark, store) with heads that predict every attribute of a drawn garment
    correctly.
    """
    benchmark = catalogue_benchmark(garments, "train", seed=2, count=120)
    columns = tuple(benchmark.attributes)
    model = model.with_method("predicted_attributes", {"columns": columns}).eval()
    store = RandomStore(len(benchmark.image_ids))
    store.tokens[:, 0, 0] = torch.arange(len(store)).float()
    values = model.heads.config.columns

    def logits(tokens):
        images = tokens[:, 0, 0].long().tolist()
        return {
            column: 20.0
            * torch.tensor(
                [[float(v == benchmark.attributes[column][i]) for v in values[column]] for i in images]
            )
            for column in values
            if column in benchmark.attributes
        }

    monkeypatch.setattr(model.method.heads, "forward", logits)
    return model, benchmark, store


def test_with_perfect_heads_the_right_answers_come_first(knowing):
    model, benchmark, store = knowing
    by_parse = summarise(collect(benchmark, predicted_scores(model.method, store, benchmark, "text")))
    perfect = summarise(collect(benchmark, predicted_scores(model.method, store, benchmark, "perfect")))
    assert perfect["mAP@10"] > 95
    assert by_parse["mAP@10"] > 90
    by_product = summarise(evaluate(model.method, store, model.text_encoder, benchmark))
    assert by_product["mAP@10"] > 60


def test_the_query_asks_for_the_text_and_keeps_the_rest(knowing):
    model, benchmark, store = knowing
    triplet = next(t for t in benchmark.triplets if len(t.asked) == 1)
    text = model.method.text(triplet.captions)
    tokens = store.gather(torch.tensor([triplet.reference]))
    query = model.method.embed_query(tokens, model.text_encoder([text])).embeddings[0, 0]
    start = 0
    for column in model.method.columns:
        values = model.heads.config.columns[column]
        share = query[start : start + len(values)]
        start += len(values)
        assert float(share.sum()) == pytest.approx(1, abs=1e-4)
        wanted = triplet.asked.get(column, {benchmark.attributes[column][triplet.reference]})
        assert {value for value, part in zip(values, share, strict=True) if part > 0.01} == set(wanted)


def test_the_query_reports_what_it_read_and_what_it_did_not(knowing):
    model, benchmark, store = knowing
    method = model.method
    reference = benchmark.triplets[0].reference
    texts = ["is red and costs a fortune", "with long sleeves", ""]
    query = method.embed_query(store.gather(torch.tensor([reference] * 3)), model.text_encoder(texts, True))
    parts = query.parts
    requested = [
        {column for column, chance in zip(parts.columns, row, strict=True) if chance} for row in parts.asked
    ]
    assert requested == [{"color"}, {"sleeves"}, set()]
    assert parts.unread == (("costs a fortune",), (), ())
    colours = model.heads.config.columns["color"]
    wanted = parts.wanted[parts.columns.index("color")][0]
    assert [colours[place] for place in wanted.nonzero().flatten()] == ["red"]
    assert torch.equal(parts.embeddings(), query.embeddings)
    # Each piece is what one column adds to the query.
    assert torch.equal(parts.pieces.sum(dim=1), query.embeddings)
    assert bool(((parts.pieces != 0).sum(dim=1) <= 1).all())


def test_targets_hold_the_logarithms_of_what_they_show(knowing):
    model, _, store = knowing
    target = model.method.embed_target(store.gather(torch.tensor([3])))
    assert target.shape == (1, *model.method.target_shape)
    assert float(target.max()) == pytest.approx(float(torch.tensor(1 + PREDICTION_SMOOTHING).log()), abs=1e-3)


def test_it_is_saved_and_loaded(model, tmp_path, garments):
    model = model.with_method("predicted_attributes", {})
    model.save_pretrained(tmp_path / "model")
    again = ComposedModel.from_pretrained(tmp_path / "model")
    tokens = torch.randn(3, 16, 16)
    with torch.no_grad():
        assert torch.equal(again.method.embed_target(tokens), model.method.embed_target(tokens))


def test_training_it_an_unknown_column_and_a_model_without_heads_are_refused(model, garments):
    with pytest.raises(DataError, match="did you mean 'color'"):
        model.with_method("predicted_attributes", {"columns": ["colour"]})
    with pytest.raises(DataError, match="attribute heads"):
        replace(model, heads=None).with_method("predicted_attributes", {})
    ready = model.with_method("predicted_attributes", {})
    with pytest.raises(DataError, match="nothing to train"):
        ready.method.loss(a_batch(ready, garments))
