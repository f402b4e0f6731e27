"""ComposeAE against its published code, and a step on the shared backbone."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from dqecir.errors import CheckpointError
from dqecir.methods import tirg
from dqecir.methods.composeae import Composeae, ComposeaeOptions
from dqecir.model.composed_model import ComposedModel
from tests.methods.steps import a_batch, assert_gradients, trained_names
from tests.methods.test_tirg import part

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module")
def fixture():
    return load_file(GOLDEN / "06_composeae.safetensors")


def method_with(fixture, model, **options) -> Composeae:
    """Return the method with the published composer, without dropout, as in the fixture."""
    state = part(fixture, "state/")
    method = Composeae(model.backbone, ComposeaeOptions(channels=6, **options))
    method.composer = Composeae.composer_of(state)
    assert Composeae.published_keys.load(method.composer, state).complete
    for module in method.composer.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return method


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_both_ways_of_composing_and_the_decoders_are_the_published_ones(fixture, model, mode):
    composer = method_with(fixture, model).composer.train(mode == "train")
    image, text = fixture["in/image_features"], fixture["in/text_features"]
    query = composer(image, text)
    torch.testing.assert_close(query, fixture[f"out/{mode}.compose_conj_pos.repres"], rtol=1e-4, atol=1e-5)
    decoded = composer.image_decoder(query)
    torch.testing.assert_close(
        decoded, fixture[f"out/{mode}.repr_to_compare_with_source"], rtol=1e-4, atol=1e-5
    )
    decoded = composer.text_decoder(query)
    torch.testing.assert_close(
        decoded, fixture[f"out/{mode}.repr_to_compare_with_mods"], rtol=1e-4, atol=1e-5
    )
    length, angle, real, imaginary = composer.linear_projection(image, text, 1.0)
    prefix = f"out/{mode}.complex_projection_linear"
    for name, value in (("x1_image_projected", length), ("x2_text_phase", angle), ("re", real)):
        torch.testing.assert_close(value, fixture[f"{prefix}.{name}"][:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(imaginary, fixture[f"{prefix}.im"][:, 0], rtol=1e-4, atol=1e-5)
    linear = composer.linear_mapping(torch.cat([real, imaginary], dim=1))
    torch.testing.assert_close(linear, fixture[f"out/{mode}.encoderLinear"], rtol=1e-4, atol=1e-5)
    convolved = (query - composer.amounts[1] * linear) / composer.amounts[0]
    torch.testing.assert_close(convolved, fixture[f"out/{mode}.encoderWithConv"], rtol=1e-4, atol=1e-5)
    back = composer(image, text, sign=-1.0)
    wanted = fixture[f"out/{mode}.compose_conj_neg.repres"]
    torch.testing.assert_close(back, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("kind", ["batch", "soft_triplet"])
def test_losses_and_gradients_are_the_published_ones(fixture, model, mode, kind, monkeypatch):
    stored = {"batch": "batch_classification", "soft_triplet": "soft_triplet"}[kind]
    case = f"out/{mode}.{stored}"
    if kind == "soft_triplet":
        drawn = iter([fixture[f"{case}.triplets_main"], fixture[f"{case}.triplets_rot_sym"]])
        monkeypatch.setattr(tirg, "draw_triplets", lambda pairs: next(drawn))
    method = method_with(fixture, model, base_loss=kind, halved_gradient=True)
    method.composer.train(mode == "train")
    terms = method.feature_loss(
        fixture["in/image_features"],
        fixture["in/text_features"],
        fixture["in/target_features"],
        torch.arange(5),
    )
    weights = {kind: 1.0, "image": 0.1, "text": 0.1, "rotation": 0.01}
    names = {kind: "main_loss", "image": "L2_image", "text": "L2_text", "rotation": "rot_sym_loss"}
    for name, value in terms.items():
        wanted = fixture[f"{case}.{names[name]}"]
        torch.testing.assert_close(value[None] / weights[name], wanted, rtol=1e-5, atol=1e-7)
    total = torch.stack(list(terms.values())).sum()
    torch.testing.assert_close(total[None], fixture[f"{case}.total"], rtol=1e-5, atol=0)
    total.backward()
    gradients = part(fixture, f"grad/{mode}.{stored}.total/")
    if gradients:
        assert_gradients(method.composer, gradients, Composeae.published_keys.renames)
    else:
        assert (mode, kind) == ("eval", "soft_triplet")


def test_what_decoding_and_turning_back_must_find_is_not_detached(fixture, model):
    method = method_with(fixture, model).eval()
    reference = fixture["in/image_features"].clone().requires_grad_()
    text, target = fixture["in/text_features"], fixture["in/target_features"]
    terms = method.feature_loss(reference, text, target, torch.arange(5))
    # Nothing composed of the target depends on the reference: its gradient comes by the answer alone.
    (by_rotation,) = torch.autograd.grad(terms["rotation"], reference, retain_graph=True)
    assert bool((by_rotation != 0).any())
    decoded = method.composer.image_decoder(method.composer(reference, text).detach())
    expected = (0.1 * 2 / reference.numel() * (reference - decoded)).detach()
    through_query = torch.autograd.grad(
        0.1 * F.mse_loss(method.composer.image_decoder(method.composer(reference, text)), reference.detach()),
        reference,
    )[0]
    (by_decoding,) = torch.autograd.grad(terms["image"], reference)
    torch.testing.assert_close(by_decoding - through_query, expected, rtol=1e-4, atol=1e-6)


def test_channels_that_do_not_divide_are_refused(model):
    with pytest.raises(ValueError, match="must divide"):
        model.with_method("composeae", {"channels": 7})


def test_a_checkpoint_of_something_else_is_refused():
    with pytest.raises(CheckpointError, match="no composer of ComposeAE"):
        Composeae.composer_of({"x": torch.zeros(1)})


def test_a_step_trains_the_composer_and_images_but_not_through_texts(model, garments, tmp_path):
    model = model.with_method("composeae", {"channels": 6})
    batch = a_batch(model, garments)
    terms = model.method.train().loss(batch)
    assert set(terms) == {"batch", "image", "text", "rotation"}
    torch.stack(list(terms.values())).sum().backward()
    trained = set(trained_names(model.method))
    assert {"composer.scale", "composer.conv.weight", "backbone.vision_projection.weight"} <= trained
    assert "backbone.text_projection.weight" not in trained
    model.eval().save_pretrained(tmp_path / "model")
    again = ComposedModel.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        expected = model.method.embed_query(batch.reference, batch.text).embeddings
        assert torch.equal(again.method.embed_query(batch.reference, batch.text).embeddings, expected)
