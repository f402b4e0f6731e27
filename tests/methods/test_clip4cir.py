"""CLIP4Cir against its published code, and its two stages on the shared backbone."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dqecir.errors import CheckpointError
from dqecir.methods.clip4cir import COMBINER_KEYS, combiner_of
from dqecir.methods.losses import contrastive
from dqecir.model.composed_model import ComposedModel
from tests.methods.steps import a_batch, assert_gradients, trained_names

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module")
def fixture():
    return load_file(GOLDEN / "04_clip4cir_combiner.safetensors")


@pytest.fixture
def combiner(fixture):
    state = {key.removeprefix("state/"): value for key, value in fixture.items() if key.startswith("state/")}
    made = combiner_of(state).eval()
    assert COMBINER_KEYS.load(made, state).complete
    return made


def test_features_logits_and_loss_are_the_published_ones(fixture, combiner):
    image, text = fixture["in/image_features"], fixture["in/text_features"]
    queries = combiner(image, text)
    torch.testing.assert_close(queries, fixture["out/combined_features"], rtol=1e-4, atol=1e-6)
    targets = torch.nn.functional.normalize(fixture["in/target_features"], dim=1)
    logits = 100 * queries @ targets.T
    torch.testing.assert_close(logits, fixture["out/logits"], rtol=1e-4, atol=1e-4)
    loss = contrastive(queries @ targets.T, torch.arange(len(queries)), torch.tensor(0.01))
    torch.testing.assert_close(loss[None], fixture["out/loss"], rtol=1e-5, atol=0)
    loss.backward()
    gradients = {
        key.removeprefix("grad/"): value for key, value in fixture.items() if key.startswith("grad/")
    }
    assert_gradients(combiner, gradients, COMBINER_KEYS.renames)


def test_the_sum_of_stage_one_is_the_published_one(fixture):
    summed = torch.nn.functional.normalize(fixture["in/image_features"] + fixture["in/text_features"], dim=1)
    torch.testing.assert_close(summed, fixture["out/elementwise_sum_features"], rtol=1e-4, atol=1e-6)
    targets = torch.nn.functional.normalize(fixture["in/target_features"], dim=1)
    loss = contrastive(summed @ targets.T, torch.arange(len(summed)), torch.tensor(0.01))
    torch.testing.assert_close(loss[None], fixture["out/elementwise_sum_loss"], rtol=1e-5, atol=0)


def test_all_pairs_are_each_pair_by_itself(fixture, combiner):
    images, texts = fixture["in/image_features"], fixture["in/text_features"][:4]
    crossed = combiner.crossed(images, texts)
    for place, text in enumerate(texts):
        alone = combiner(images, text.expand(len(images), -1))
        torch.testing.assert_close(crossed[place], alone, rtol=1e-5, atol=1e-6)


def test_a_checkpoint_without_a_combiner_is_refused():
    with pytest.raises(CheckpointError, match="no combiner"):
        combiner_of({"x": torch.zeros(1)})


@pytest.mark.parametrize("name", ["clip4cir_sum", "clip4cir"])
def test_a_step_trains_what_the_stage_trains(name, model, garments, tmp_path):
    model = model.with_method(name, {})
    batch = a_batch(model, garments)
    loss = torch.stack(list(model.method.train().loss(batch).values())).sum()
    loss.backward()
    trained = trained_names(model.method)
    assert not any(key.startswith("backbone.tower") for key in trained)
    if name == "clip4cir":
        assert trained and all(key.startswith("combiner.") for key in trained)
    else:
        assert {"backbone.query_tokens", "backbone.text_projection.weight"} <= set(trained)
    model.eval().save_pretrained(tmp_path / "model")
    again = ComposedModel.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        expected = model.method.embed_query(batch.reference, batch.text).embeddings
        assert torch.equal(again.method.embed_query(batch.reference, batch.text).embeddings, expected)
