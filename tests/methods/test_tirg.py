"""TIRG against its published code, and a step on the shared backbone."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dqecir.encoders.blip2 import TextBatch, unit
from dqecir.encoders.checkpoints import PublishedKeys
from dqecir.encoders.lstm import LstmTextEncoder
from dqecir.errors import CheckpointError
from dqecir.methods.losses import draw_triplets, soft_triplet
from dqecir.methods.tirg import Tirg, base_loss
from dqecir.model.composed_model import ComposedModel
from dqecir.training.recipe import Recipe
from tests.methods.lavis_cases import part
from tests.methods.steps import a_batch, assert_gradients, trained_names

GOLDEN = Path(__file__).parent.parent / "golden"
LSTM_KEYS = PublishedKeys(
    ((r"^embedding_layer\.", r"embedding."), (r"^fc\.1\.", r"output."), (r"^fc_output\.1\.", r"output."))
)


@pytest.fixture(scope="module")
def fixture():
    return load_file(GOLDEN / "05_tirg.safetensors")


@pytest.fixture
def composer(fixture):
    state = part(fixture, "state/")
    made = Tirg.composer_of(state)
    report = Tirg.published_keys.load(made, state)
    assert report.complete and all(key.startswith(("img_model", "text_model")) for key in report.dropped)
    return made


def test_every_key_is_used_or_known_not_to_be_needed(fixture, composer):
    report = Tirg.published_keys.load(composer, part(fixture, "state/"))
    assert len(report.used) == len(composer.state_dict())


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_composition_and_batch_loss_are_the_published_ones(fixture, composer, mode):
    composer.train(mode == "train")
    query = composer(fixture["in/image_features"], fixture["in/text_features"])
    torch.testing.assert_close(query, fixture[f"out/{mode}.composed"], rtol=1e-4, atol=1e-5)
    if mode == "eval":
        normalised = fixture["out/eval.normalised_composed"]
        torch.testing.assert_close(composer.scale * unit(query), normalised, rtol=1e-4, atol=1e-5)
    targets = unit(fixture["in/target_features"])
    loss = base_loss(unit(query), targets, torch.arange(5), composer.scale, "batch", False)
    torch.testing.assert_close(
        loss[None], fixture[f"out/{mode}.batch_classification_loss"], rtol=1e-5, atol=0
    )
    loss.backward()
    gradients = part(fixture, f"grad/{mode}.batch_classification/")
    assert_gradients(composer, gradients, Tirg.published_keys.renames)
    if mode == "train":
        for ours, theirs in (("gate.0", "gated_feature_composer.1"), ("residual.0", "res_info_composer.1")):
            for name in ("running_mean", "running_var"):
                wanted = fixture[f"out/train.after_one_forward.{theirs}.{name}"]
                torch.testing.assert_close(
                    composer.state_dict()[f"{ours}.{name}"], wanted, rtol=1e-4, atol=1e-6
                )


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("halved", [True, False])
def test_the_soft_triplet_is_the_published_one_and_its_gradient_twice_as_large(
    fixture, composer, mode, halved
):
    composer.train(mode == "train")
    query = composer(fixture["in/image_features"], fixture["in/text_features"])
    pool = composer.scale * torch.cat([unit(query), unit(fixture["in/target_features"])])
    torch.testing.assert_close(pool, fixture[f"out/{mode}.soft_triplet_features"], rtol=1e-4, atol=1e-5)
    loss = soft_triplet(pool, fixture[f"out/{mode}.soft_triplet_triplets"], halved)
    torch.testing.assert_close(loss[None], fixture[f"out/{mode}.soft_triplet_loss"], rtol=1e-5, atol=0)
    loss.backward()
    gradients = part(fixture, f"grad/{mode}.soft_triplet.REFERENCE_HAND_WRITTEN/")
    assert_gradients(composer, gradients, Tirg.published_keys.renames, scale=1.0 if halved else 0.5)
    true = part(fixture, f"grad/{mode}.soft_triplet.TRUE_AUTOGRAD/")
    assert bool(true) == (mode == "train")  # stored for one of the modes
    if true:
        assert_gradients(composer, true, Tirg.published_keys.renames, scale=2.0 if halved else 1.0)


def test_the_lstm_reads_texts_as_the_published_one(fixture):
    import json

    told = json.loads((GOLDEN / "05_tirg.json").read_text())["text_lstm"]["encoded"]
    state = part(fixture, "state_textlstm/")
    words, size = state["embedding_layer.weight"].shape
    encoder = LstmTextEncoder(words, size, size, size).eval()
    assert LSTM_KEYS.load(encoder, state).complete
    longest = max(map(len, told))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in told])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in told])
    features = encoder(TextBatch(ids, mask, torch.zeros(len(told), 0, longest, dtype=torch.bool)))
    torch.testing.assert_close(features, fixture["out/textlstm.features"], rtol=1e-4, atol=1e-6)


def test_triplets_have_an_anchor_its_partner_and_a_stranger():
    torch.manual_seed(0)
    triplets = draw_triplets(4)
    assert triplets.shape == (8 * 3, 3)
    anchor, positive, negative = triplets.T
    assert torch.equal((anchor + 4) % 8, positive)
    assert not ((negative % 4) == (anchor % 4)).any()
    assert len({tuple(row) for row in triplets.tolist()}) == len(triplets)
    assert len(draw_triplets(2)) == 4 * 2  # only two strangers each


def test_logits_never_exceed_the_square_of_the_scale(composer):
    queries, candidates = unit(torch.randn(6, 18)), unit(torch.randn(6, 18))
    same = base_loss(queries, queries, torch.arange(6), composer.scale, "batch", False)
    other = base_loss(queries, candidates, torch.arange(6), composer.scale, "batch", False)
    assert same < other
    assert float((composer.scale**2 * (queries @ candidates.T)).abs().max().detach()) <= 3.7**2 + 1e-4


def test_a_checkpoint_of_something_else_is_refused():
    with pytest.raises(CheckpointError, match="no composer of TIRG"):
        Tirg.composer_of({"x": torch.zeros(1)})


@pytest.mark.parametrize(
    "options", [{}, {"base_loss": "soft_triplet", "halved_gradient": True}, {"text_source": "lstm"}]
)
def test_a_step_trains_the_composer_and_the_backbone(options, model, garments, tmp_path):
    model = model.with_method("tirg", options)
    batch = a_batch(model, garments)
    torch.stack(list(model.method.train().loss(batch).values())).sum().backward()
    trained = set(trained_names(model.method))
    assert {"composer.scale", "composer.amounts", "backbone.query_tokens"} <= trained
    assert not any(key.startswith("backbone.tower") for key in trained)
    assert ("words.embedding.weight" in trained) == (options.get("text_source") == "lstm")
    model.eval().save_pretrained(tmp_path / "model")
    again = ComposedModel.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        expected = model.method.embed_query(batch.reference, batch.text).embeddings
        assert torch.equal(again.method.embed_query(batch.reference, batch.text).embeddings, expected)


def test_drawn_negatives_are_refused():
    with pytest.raises(ValueError, match=r"negatives\.choose to none"):
        Recipe.model_validate({"method": "tirg", "negatives": {"choose": "random"}})
