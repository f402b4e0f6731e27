"""CoSMo against its published code, and a step on the shared backbone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from dqecir.errors import CheckpointError, DataError
from dqecir.methods.cosmo import COSMO_KEYS, Cosmo
from dqecir.methods.losses import contrastive
from dqecir.methods.method import Query
from dqecir.model.composed_model import ComposedModel
from tests.methods.steps import a_batch, assert_gradients, trained_names
from tests.methods.test_tirg import part

GOLDEN = Path(__file__).parent.parent / "golden"
OPTIONS = {"heads": 4}


@pytest.fixture(scope="module")
def fixture():
    return load_file(GOLDEN / "07_cosmo.safetensors")


@pytest.fixture
def composer(fixture):
    state = part(fixture, "state/")
    made = Cosmo.composer_of(state)
    report = COSMO_KEYS.load(made, state)
    assert report.complete and not report.dropped
    return made


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_every_stage_of_the_composition_is_the_published_one(fixture, composer):
    image, text = fixture["in/ref_feature_map"], fixture["in/text_features"]
    content = F.instance_norm(image)
    close(content, fixture["out/instance_norm"])
    close(composer.first.attention(content, text), fixture["out/content_att1_map"])
    first = composer.first(content, text)
    close(first, fixture["out/content_att1"])
    content = content + composer.amounts[0] * first
    close(composer.second.attention(content, text), fixture["out/content_att2_map"])
    close(composer.second(content, text), fixture["out/content_att2"])
    close(composer.content(image, text), fixture["out/content_modulated(before style)"])
    close(composer.modulated(image, text), fixture["out/style_modulated(final map)"])
    close(4 * composer(image, text), fixture["out/composed_features"])
    close(4 * composer.target(fixture["in/target_feature_map"]), fixture["out/target_features"])


def test_loss_and_every_gradient_are_the_published_ones(fixture, composer):
    names = ("ref_feature_map", "target_feature_map", "text_features")
    inputs = {name: fixture[f"in/{name}"].clone().requires_grad_() for name in names}
    queries = composer(inputs["ref_feature_map"], inputs["text_features"])
    scores = queries @ composer.target(inputs["target_feature_map"]).T
    loss = contrastive(scores, torch.arange(4), torch.tensor(1 / 16))
    torch.testing.assert_close(loss[None], fixture["out/loss"], rtol=1e-5, atol=0)
    loss.backward()
    gradients = part(fixture, "grad/")
    for name, value in inputs.items():
        wanted = gradients.pop(f"INPUT.{name}")
        assert (value.grad - wanted).abs().max() < 1e-3 * wanted.abs().max()
    assert_gradients(composer, gradients, COSMO_KEYS.renames)


def test_the_method_weighs_unit_vectors_as_published(fixture, model, garments, monkeypatch):
    """Retrieval uses unit vectors; the loss must scale them to the published length."""
    method = model.with_method("cosmo", OPTIONS).method
    queries, targets = fixture["out/composed_features"] / 4, fixture["out/target_features"] / 4
    order = torch.tensor([2, 0, 3, 1])
    monkeypatch.setattr(method, "embed_query", lambda reference, text: Query(queries[:, None]))
    monkeypatch.setattr(method, "embed_target", lambda tokens: targets[order][:, None])
    loss = method.loss(replace(a_batch(model, garments, 4), targets=order.argsort()))["contrast"]
    torch.testing.assert_close(loss[None], fixture["out/loss"], rtol=1e-5, atol=0)


def test_queries_and_targets_are_unit_vectors(model, garments):
    method = model.with_method("cosmo", OPTIONS).method.eval()
    batch = a_batch(model, garments)
    queries = method.embed_query(batch.reference, batch.text).embeddings
    targets = method.embed_target(batch.candidates)
    assert queries.shape == (6, *method.target_shape)
    for vectors in (queries, targets):
        close(vectors.norm(dim=2), torch.ones(len(vectors), 1))


def test_attention_rows_sum_to_two(composer):
    attention = composer.first.attention(torch.randn(2, 16, 3, 3), torch.randn(2, 12))
    close(attention.sum(dim=3), torch.full((2, 4, 9), 2.0))


def test_style_starts_at_gamma_one_and_beta_zero(model):
    composer = model.with_method("cosmo", OPTIONS).method.composer
    gamma, beta = composer.style.bias.chunk(2)
    assert torch.equal(gamma, torch.ones_like(gamma)) and not beta.any()


def test_heads_that_do_not_divide_and_foreign_checkpoints_are_refused(model):
    with pytest.raises(DataError, match="must divide"):
        model.with_method("cosmo", {"heads": 5})
    with pytest.raises(CheckpointError, match="no composer of CoSMo"):
        Cosmo.composer_of({"x": torch.zeros(1)})


@pytest.mark.parametrize("options", [OPTIONS, {**OPTIONS, "text_source": "lstm"}])
def test_a_step_trains_the_composer_and_texts(options, model, garments, tmp_path):
    model = model.with_method("cosmo", options)
    batch = a_batch(model, garments)
    torch.stack(list(model.method.train().loss(batch).values())).sum().backward()
    trained = set(trained_names(model.method))
    assert {"composer.amounts", "composer.head.weight", "backbone.ln_vision.weight"} <= trained
    assert ("backbone.text_projection.weight" in trained) == ("text_source" not in options)
    assert not any(key.startswith("backbone.tower") for key in trained)
    model.eval().save_pretrained(tmp_path / "model")
    again = ComposedModel.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        expected = model.method.embed_query(batch.reference, batch.text).embeddings
        assert torch.equal(again.method.embed_query(batch.reference, batch.text).embeddings, expected)
