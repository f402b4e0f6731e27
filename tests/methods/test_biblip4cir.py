"""Bi-BLIP4CIR against its published code, and its two stages on the shared backbone."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dqecir.methods.biblip4cir import BACKWARD, FORWARD, marked, reverse_loss
from dqecir.methods.clip4cir import COMBINER_KEYS, combiner_of
from dqecir.methods.losses import contrastive
from dqecir.model.composed_model import ComposedModel
from tests.methods.steps import a_batch, assert_gradients, trained_names

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module")
def fixture():
    return load_file(GOLDEN / "09_biblip4cir.safetensors")


def features(fixture):
    inputs = ("reference_features", "target_features", "forward_text_features", "backward_text_features")
    references, targets, forward, backward = (fixture[f"in/{name}"] for name in inputs)
    return references, targets, forward.clone().requires_grad_(), backward.clone().requires_grad_()


def unit(values):
    return torch.nn.functional.normalize(values, dim=-1)


@pytest.mark.parametrize(("case", "weight"), [("stage2_fiq", 0.5), ("stage2_cirr", 0.1)])
def test_the_combiner_agrees_in_both_directions(fixture, case, weight):
    state = {key.removeprefix("state/"): value for key, value in fixture.items() if key.startswith("state/")}
    combiner = combiner_of(state).eval()
    COMBINER_KEYS.load(combiner, state)
    references, targets, forward, backward = features(fixture)
    scores = combiner(references, forward) @ unit(targets).T
    torch.testing.assert_close(100 * scores, fixture[f"out/{case}.logits"], rtol=1e-4, atol=1e-4)
    composed = combiner.crossed(targets, backward)
    reverse = 100 * torch.einsum("ijd,id->ij", composed, unit(references))
    torch.testing.assert_close(reverse, fixture[f"out/{case}.logits_r"], rtol=1e-4, atol=1e-4)
    one = contrastive(scores, torch.arange(5), torch.tensor(0.01))
    other = reverse_loss(composed, unit(references))
    torch.testing.assert_close(one[None], fixture[f"out/{case}.loss_f"], rtol=1e-5, atol=0)
    torch.testing.assert_close(other[None], fixture[f"out/{case}.loss_r"], rtol=1e-5, atol=0)
    loss = one + weight * other
    torch.testing.assert_close(loss[None], fixture[f"out/{case}.loss"], rtol=1e-5, atol=0)
    loss.backward()
    prefix = f"grad/{case}/"
    gradients = {k.removeprefix(prefix): v for k, v in fixture.items() if k.startswith(prefix)}
    for name, value in (("forward_text_features", forward), ("backward_text_features", backward)):
        torch.testing.assert_close(value.grad, gradients.pop(name), rtol=1e-3, atol=1e-6)
    assert_gradients(combiner, gradients, COMBINER_KEYS.renames)


def test_stage_one_agrees_with_the_published_asymmetry_alone(fixture, model):
    references, targets, forward, backward = features(fixture)
    published = model.with_method("biblip4cir_sum", {"published_asymmetry": True}).method
    scores = published.composed(references, forward) @ unit(targets).T
    torch.testing.assert_close(100 * scores, fixture["out/stage1_fiq.logits"], rtol=1e-4, atol=1e-4)
    composed = published.crossed(targets, backward)
    reverse = 100 * torch.einsum("ijd,id->ij", composed, unit(references))
    torch.testing.assert_close(reverse, fixture["out/stage1_fiq.logits_r"], rtol=1e-4, atol=1e-4)
    one = contrastive(scores, torch.arange(5), torch.tensor(0.01))
    other = reverse_loss(composed, unit(references))
    torch.testing.assert_close(one[None], fixture["out/stage1_fiq.loss_f"], rtol=1e-5, atol=0)
    torch.testing.assert_close(other[None], fixture["out/stage1_fiq.loss_r"], rtol=1e-5, atol=0)
    torch.testing.assert_close((one + 0.4 * other)[None], fixture["out/stage1_fiq.loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(
        (one + 0.1 * other)[None], fixture["out/stage1_cirr.loss(weight 0.1)"], rtol=1e-5, atol=0
    )
    (one + 0.4 * other).backward()
    for name, value in (("forward_text_features", forward), ("backward_text_features", backward)):
        torch.testing.assert_close(value.grad, fixture[f"grad/stage1_fiq/{name}"], rtol=1e-3, atol=1e-6)
    plain = model.with_method("biblip4cir_sum", {}).method
    assert not torch.allclose(plain.crossed(targets, backward), composed, atol=1e-3)


def test_markers_stand_as_in_the_published_code_and_between_words_by_default():
    rows = json.loads((GOLDEN / "09_biblip4cir.json").read_text())["prepend_text_examples"]
    for row in rows:
        assert marked(row["raw"], FORWARD, published_split=True) == row["forward"]
        assert marked(row["raw"], BACKWARD, published_split=True) == row["backward"]
    assert marked("sandals and a strap", FORWARD) == " [FORWARD] sandals and [FORWARD]  a strap"


def test_both_directions_are_worded_and_evaluation_goes_forward(model):
    method = model.with_method("biblip4cir", {}).method
    captions = ("Is red.", "has long sleeves")
    assert method.text(captions) == "[forward] is red and [FORWARD] has long sleeves"
    assert method.reverse_text(captions) == "[backward] is red and [BACKWARD] has long sleeves"
    published = model.with_method("biblip4cir", {"published_split": True}).method
    assert published.text(("sandals",)) == "[forward] sand [forward] als"


@pytest.mark.parametrize("name", ["biblip4cir_sum", "biblip4cir"])
def test_a_step_trains_what_the_stage_trains(name, model, garments, tmp_path):
    model = model.with_method(name, {})
    batch = a_batch(model, garments)
    assert batch.reverse_text is not None
    before = model.backbone.target_embeddings(batch.candidates).detach()
    optimiser = torch.optim.SGD([p for p in model.method.parameters() if p.requires_grad], lr=0.1)
    terms = model.method.train().loss(batch)
    assert set(terms) == {"contrast", "reverse"}
    torch.stack(list(terms.values())).sum().backward()
    trained = trained_names(model.method)
    if name == "biblip4cir":
        assert trained and all(key.startswith("combiner.") for key in trained)
    else:
        assert "backbone.text_projection.weight" in trained
        assert not any("attention" in key or "query" in key or "vision" in key for key in trained)
    optimiser.step()
    model.eval()
    assert torch.equal(model.backbone.target_embeddings(batch.candidates), before)
    model.save_pretrained(tmp_path / "model")
    again = ComposedModel.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        expected = model.method.embed_query(batch.reference, batch.text).embeddings
        assert torch.equal(again.method.embed_query(batch.reference, batch.text).embeddings, expected)
