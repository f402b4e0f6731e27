"""DQE with attribute values: what a query asks, what it keeps, and what supervises it."""

from dataclasses import replace

import pytest
import torch

from dqecir.data.triplets import DataError
from dqecir.methods.dqe_values import FLOOR
from dqecir.model import ComposedModel
from dqecir.scoring import score
from tests.methods.steps import a_batch, trained_names

NAME = "dqe_values"


@pytest.fixture
def ready(model, garments):
    """(model, batch) of the method over the tiny backbone, in evaluation mode."""
    model = model.with_method(NAME, {}).eval()
    return model, a_batch(model, garments)


def columns_of(method):
    """Slices of the values of every column within an embedding."""
    start = method.backbone.config.embedding_size
    slices = {}
    for column, size in zip(method.columns, method.sizes, strict=True):
        slices[column] = slice(start, start + size)
        start += size
    return slices


def test_where_nothing_is_asked_the_query_holds_what_the_reference_shows(ready):
    model, batch = ready
    method = model.method
    with torch.no_grad():
        method.asks_bias.fill_(-50.0)
        query = method.embed_query(batch.reference, batch.text).embeddings[:, 0]
        known = method.shown_values(batch.reference)
    for place, (column, rows) in enumerate(columns_of(method).items()):
        share = query[:, rows] / (method.options.head_scale * 1.0)  # gates start at one
        torch.testing.assert_close(share, known[place], rtol=1e-4, atol=1e-5, msg=column)


def test_where_everything_is_asked_the_reference_has_no_say_but_through_comparisons(ready):
    model, batch = ready
    method = model.method
    with torch.no_grad():
        method.asks_bias.fill_(50.0)
        for move in method.moves:
            move.weight.zero_()
        asked = method._compose(batch.reference, batch.text)[1]
        others = method._compose(batch.reference.flip(0), batch.text)[1]
    for one, other in zip(asked, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_score_is_the_base_score_and_expected_log_probabilities(ready):
    model, batch = ready
    method = model.method
    with torch.no_grad():
        query = method.embed_query(batch.reference, batch.text).embeddings
        target = method.embed_target(batch.candidates)
        shown = method.shown_values(batch.candidates)
        size = method.backbone.config.embedding_size
        base = score(query[..., :size], target[..., :size], "max_t")
        values = sum(
            query[:, 0, rows] @ (shown[place] + FLOOR).log().T
            for place, rows in enumerate(columns_of(method).values())
        )
        torch.testing.assert_close(score(query, target, "max_t"), base + values, rtol=1e-4, atol=1e-5)
    assert target.shape[1:] == method.target_shape


def test_every_column_is_a_distribution(ready):
    model, batch = ready
    with torch.no_grad():
        for values in model.method._compose(batch.reference, batch.text)[1]:
            torch.testing.assert_close(values.sum(dim=1), torch.ones(len(values)))
            assert (values >= 0).all()


def test_a_step_trains_reading_and_gates_but_not_the_heads(model, garments, tmp_path):
    model = model.with_method(NAME, {})
    batch = a_batch(model, garments)
    assert batch.asked is not None and set(batch.asked.unique().tolist()) == {0, 1}
    terms = model.method.train().loss(batch)
    assert set(terms) == {"contrast", "values", "mentions"}
    torch.stack(list(terms.values())).sum().backward()
    trained = set(trained_names(model.method))
    assert {"prompts", "asks", "asks_bias", "column_scale", "base_scale", "gate.weight"} <= trained
    assert not any(key.startswith(("heads.", "backbone.tower")) for key in trained)
    model.eval().save_pretrained(tmp_path / "model")
    again = ComposedModel.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        expected = model.method.embed_query(batch.reference, batch.text)
        found = again.method.embed_query(batch.reference, batch.text)
    assert torch.equal(found.embeddings, expected.embeddings)
    assert torch.equal(found.attribute_weights, expected.attribute_weights)


def test_what_nobody_knows_supervises_nothing(model, garments):
    model = model.with_method(NAME, {})
    batch = a_batch(model, garments)
    blind = replace(
        batch,
        asked=torch.full_like(batch.asked, -1),
        attribute_values=torch.full_like(batch.attribute_values, -1),
    )
    assert set(model.method.loss(blind)) == {"contrast"}


def test_it_learns_what_a_text_asks_of(model, garments):
    # The tiny model's heads see nothing, so that likelihood alone would ask of everything.
    model = model.with_method(NAME, {"value_weight": 0, "contrast_weight": 1e-3})
    batch = a_batch(model, garments, size=24)
    method = model.method
    optimiser = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(60):
        terms = method.loss(batch)
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    with torch.no_grad():
        asks = method._compose(batch.reference, batch.text)[2] > 0
    assert (asks == batch.asked[:, list(method.head_places)].bool()).float().mean() > 0.95


def test_a_model_without_heads_is_refused(model):
    with pytest.raises(DataError, match="attribute heads"):
        replace(model, heads=None).with_method(NAME, {})
