"""MGUR's uncertainty against its published code, and a step on the shared backbone."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dqecir.methods import mgur
from dqecir.methods.losses import contrastive
from dqecir.methods.method import Query
from dqecir.methods.mgur import coarse_loss, drawn_noise, standardised
from dqecir.model.composed_model import ComposedModel
from tests.methods.steps import a_batch, trained_names

GOLDEN = Path(__file__).parent.parent / "golden"
ONE = torch.tensor(1.0)


@pytest.fixture(scope="module")
def fixture():
    return load_file(GOLDEN / "08_mgur.safetensors")


def features(fixture):
    return (fixture[f"in/{name}"].clone().requires_grad_() for name in ("ref_features", "tar_features"))


@pytest.mark.parametrize("case", ["aug0", "aug1"])
def test_the_shaken_targets_are_the_published_ones(fixture, case):
    _, targets = features(fixture)
    torch.testing.assert_close(
        standardised(targets), fixture[f"out/{case}.instance_norm"], rtol=1e-4, atol=1e-5
    )
    scales, shifts = fixture[f"out/{case}.alpha_drawn(scaled)"], fixture[f"out/{case}.beta_drawn(scaled)"]
    shaken = scales * standardised(targets) + shifts
    torch.testing.assert_close(shaken, fixture[f"out/{case}.augmented"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["aug0", "aug1"])
@pytest.mark.parametrize("epoch", [0, 10, 59])
@pytest.mark.parametrize("fading", [1, 4])
def test_the_loss_and_its_gradients_are_the_published_ones(fixture, case, epoch, fading):
    queries, targets = features(fixture)
    scales, shifts = fixture[f"out/{case}.alpha_drawn(scaled)"], fixture[f"out/{case}.beta_drawn(scaled)"]
    shaken = scales * standardised(targets) + shifts
    coarse = coarse_loss(queries, shaken, torch.arange(6))
    torch.testing.assert_close(coarse[None], fixture[f"out/{case}.aleatoric"], rtol=1e-5, atol=0)
    matched = contrastive(queries @ shaken.T, torch.arange(6), ONE)
    torch.testing.assert_close(matched[None], fixture[f"out/{case}.info_nce_ref_aug"], rtol=1e-5, atol=0)
    fine = contrastive(queries @ targets.T, torch.arange(6), ONE)
    torch.testing.assert_close(fine[None], fixture["out/info_nce_ref_tar"], rtol=1e-5, atol=0)
    share = math.exp(-fading * epoch / 60)
    loss = share * coarse + (1 - share) * fine
    name = f"out/{case}.batch_based_aleatoric.epoch{epoch}_of_60.gamma_scale{fading}"
    torch.testing.assert_close(loss[None], fixture[name], rtol=1e-5, atol=0)
    stored = f"grad/{case}.epoch{epoch}.gs{fading}/ref_features"
    if stored in fixture:
        loss.backward()
        for value, which in ((queries, "ref_features"), (targets, "tar_features")):
            wanted = fixture[f"grad/{case}.epoch{epoch}.gs{fading}/{which}"]
            assert (value.grad - wanted).abs().max() < 1e-3 * wanted.abs().max()
    else:
        assert (epoch, fading) != (10, 1)


@pytest.mark.parametrize("case", ["aug0", "aug1"])
@pytest.mark.parametrize("fading", [1, 4])
def test_the_method_s_own_loss_is_the_published_one(fixture, case, fading, model, garments, monkeypatch):
    """From unit vectors and a progress, with the published draws, and candidates in another order."""
    method = model.with_method("mgur", {"heads": 4, "fading": fading}).method
    raw_queries, raw_targets = features(fixture)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    drawn = [fixture[f"out/{case}.{name}_drawn(scaled)"][order] for name in ("alpha", "beta")]
    monkeypatch.setattr(method, "embed_query", lambda reference, text: Query(raw_queries[:, None] / 4))
    monkeypatch.setattr(method, "embed_target", lambda tokens: raw_targets[order][:, None] / 4)

    def published_draws(rows, scale_noise, shift_noise):
        torch.testing.assert_close(rows.norm(dim=1), torch.full((6,), 4.0))
        return drawn

    monkeypatch.setattr(mgur, "drawn_noise", published_draws)
    batch = replace(a_batch(model, garments), targets=order.argsort(), progress=10 / 60)
    loss = torch.stack(list(method.loss(batch).values())).sum()
    wanted = fixture[f"out/{case}.batch_based_aleatoric.epoch10_of_60.gamma_scale{fading}"]
    torch.testing.assert_close(loss[None], wanted, rtol=1e-5, atol=0)
    if fading == 1:
        loss.backward()
        for value, which in ((raw_queries, "ref_features"), (raw_targets, "tar_features")):
            wanted = fixture[f"grad/{case}.epoch10.gs1/{which}"]
            assert (value.grad - wanted).abs().max() < 1e-3 * wanted.abs().max()


def test_no_gradient_flows_through_the_draws():
    scales, shifts = drawn_noise(torch.randn(3, 8, requires_grad=True), 1.0, 1.0)
    assert not scales.requires_grad and not shifts.requires_grad


def test_noise_has_the_statistics_of_each_row():
    torch.manual_seed(0)
    rows = torch.stack([torch.randn(20000) * 0.5 + 2, torch.randn(20000) * 3 - 1])
    scales, shifts = drawn_noise(rows, 0.5, 2.0)
    torch.testing.assert_close(scales.mean(dim=1), torch.tensor([0.5, 0.5]), atol=0.03, rtol=0)
    torch.testing.assert_close(scales.std(dim=1), torch.tensor([0.25, 1.5]), atol=0.03, rtol=0)
    torch.testing.assert_close(shifts.mean(dim=1), torch.tensor([4.0, -2.0]), atol=0.12, rtol=0)
    torch.testing.assert_close(shifts.std(dim=1), torch.tensor([1.0, 6.0]), atol=0.12, rtol=0)


def test_the_coarse_loss_fades_and_nothing_of_it_reaches_retrieval(model, garments, tmp_path):
    model = model.with_method("mgur", {"heads": 4})
    batch = a_batch(model, garments)
    method = model.method.train()
    first, last = replace(batch, progress=0.0), replace(batch, progress=1.0)
    assert float(method.loss(first)["fine"].detach()) == 0.0
    terms = method.loss(last)
    assert float(terms["fine"].detach()) > 0
    torch.stack(list(terms.values())).sum().backward()
    assert {"composer.head.weight", "backbone.text_projection.weight"} <= set(trained_names(method))
    model.eval().save_pretrained(tmp_path / "model")
    again = ComposedModel.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        expected = model.method.embed_target(batch.candidates)
        assert torch.equal(model.method.embed_target(batch.candidates), expected)
        assert torch.equal(again.method.embed_target(batch.candidates), expected)
