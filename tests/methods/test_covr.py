"""CoVR and CoVR-2: the loss against the published code, targets that never change, and weights."""

import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from dqecir.encoders.blip2 import BLIP2_VIT_L, Blip2, unit
from dqecir.errors import CheckpointError, DataError
from dqecir.methods.covr import Covr2, Covr2Options, hn_nce
from dqecir.methods.scoring import score
from dqecir.model.composed_model import ComposedModel
from dqecir.settings import parse_settings
from dqecir.training.recipe import Recipe
from tests.methods.lavis_cases import (
    GOLDEN,
    published_case,
    published_shapes,
    relative,
    tiny_backbone,
    trained_and_read,
)
from tests.methods.test_dqe import batch_of

CASE = load_file(GOLDEN / "10_covr_hnnce.safetensors")
LOSSES = sorted(key.removeprefix("out/hnnce.") for key in CASE if key.startswith("out/hnnce."))
METHODS = ["covr", "covr2"]


def features() -> tuple[torch.Tensor, torch.Tensor]:
    query, target = CASE["in/query_features(first arg)"], CASE["in/target_features(second arg)"]
    return query.clone().requires_grad_(), target.clone().requires_grad_()


def settings_of(name: str) -> dict[str, float]:
    """Return alpha, beta and temperature from the name of a stored loss."""
    parts = dict(zip(("alpha", "beta", "temperature"), name.split("_"), strict=True))
    return {key: float(part.lstrip("abehlmpt")) for key, part in parts.items()}


@pytest.mark.parametrize("name", LOSSES)
def test_the_published_normaliser_gives_the_published_loss_and_gradients(name):
    query, target = features()
    loss = hn_nce(query @ target.T, **settings_of(name), published_normaliser=True)
    assert loss.item() == pytest.approx(CASE[f"out/hnnce.{name}"].item(), rel=1e-5)
    loss.backward()
    for which, ours in (("query", query), ("target", target)):
        stored = CASE.get(f"grad/hnnce.{name}/{which}")
        if stored is not None:
            assert relative(ours.grad, stored) < 1e-3, which


def test_eight_losses_and_four_gradients_are_compared():
    assert len(LOSSES) == 8
    assert sum(f"grad/hnnce.{name}/query" in CASE for name in LOSSES) == 4


def test_the_default_divides_each_row_by_its_own_sum():
    query, target = features()
    loss = hn_nce(query @ target.T, 0.07, 1.0, 0.5)
    assert loss.item() == pytest.approx(5.901406288146973, rel=1e-5)  # the stored diagnostic


def test_weights_worked_by_hand():
    scores = torch.tensor([[0.5, 0.2, 0.4], [0.1, 0.6, 0.3], [0.0, 0.2, 0.7]])
    total = 0.0
    for matrix in (scores, scores.T):
        for i in range(3):
            others = [j for j in range(3) if j != i]
            normaliser = sum(math.exp(0.5 * matrix[i, j] / 0.1) for j in others)
            weighted = sum(
                2 * math.exp(0.5 * matrix[i, j] / 0.1) / normaliser * math.exp(matrix[i, j] / 0.1)
                for j in others
            )
            own = matrix[i, i] / 0.1
            total += (math.log(0.8 * math.exp(own) + weighted) - own) / 3
    assert hn_nce(scores, 0.1, 0.8, 0.5).item() == pytest.approx(float(total), rel=1e-5)


def test_without_hardness_it_is_both_cross_entropies():
    query, target = features()
    scores = query @ target.T
    rows = torch.arange(len(scores))
    both = F.cross_entropy(scores / 0.07, rows) + F.cross_entropy(scores.T / 0.07, rows)
    assert torch.allclose(hn_nce(scores, 0.07, 1.0, 0.0), both, rtol=1e-6)
    assert both.item() == pytest.approx(2 * CASE["out/crossentropy_symmetric.temp0.07"].item(), rel=1e-5)


def test_the_published_normaliser_is_the_row_of_the_column():
    scores = torch.randn(4, 4, generator=torch.Generator().manual_seed(2))
    symmetric = (scores + scores.T) / 2
    right, published = (hn_nce(symmetric, 0.2, 1.0, 0.5, quirk) for quirk in (False, True))
    assert not torch.allclose(right, published)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3)])
def test_scores_that_are_no_pairs_are_refused(shape):
    with pytest.raises(ValueError, match="at least two pairs"):
        hn_nce(torch.zeros(shape), 0.07, 1.0, 0.5)


@pytest.mark.parametrize("name", METHODS)
def test_targets_stay_what_they_were_before_training(model, name):
    covr = model.with_method(name, {})
    batch = batch_of(covr, negatives=0)
    before = covr.eval().method.embed_target(batch.candidates)
    pretrained = model.backbone.eval().target_embeddings(batch.candidates).detach()
    wanted = unit(pretrained.mean(dim=1, keepdim=True)) if name == "covr" else pretrained
    assert torch.allclose(before, wanted, atol=1e-6)
    covr.method.train()
    optimizer = torch.optim.AdamW([p for p in covr.method.parameters() if p.requires_grad], lr=1e-2)
    query = covr.method.embed_query(batch.reference, batch.text).embeddings
    for _ in range(2):
        covr.method(batch)["contrast"].backward()
        optimizer.step()
    assert torch.equal(covr.method.embed_target(batch.candidates), before)  # in training mode too
    covr.eval()
    assert not torch.allclose(
        covr.method.embed_query(batch.reference, batch.text).embeddings, query, atol=1e-3
    )
    assert not torch.allclose(covr.backbone.target_embeddings(batch.candidates), pretrained, atol=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_reach_the_query_side_alone(model, name):
    covr = model.with_method(name, {})
    covr.method.train()(batch_of(covr, negatives=0))["contrast"].backward()
    frozen = ("backbone.tower.", "backbone.ln_vision.", "backbone.vision_projection.", "backbone.temperature")
    for key, parameter in covr.method.named_parameters():
        trained = not key.startswith(("target_backbone.", *frozen))
        assert parameter.requires_grad == trained, key
        assert (parameter.grad is not None) == trained, key
    assert covr.backbone.query_tokens.grad.any()
    assert covr.method.new_parameters() == []


def test_a_method_after_covr_trains_what_covr_froze(model):
    covr = model.with_method("covr2", {})
    assert covr.with_method("qure", {}).backbone.ln_vision.weight.requires_grad


@pytest.mark.parametrize(("name", "tokens"), [("covr", 1), ("covr2", 3)])
def test_shapes_and_unit_vectors(model, name, tokens):
    covr = model.with_method(name, {}).eval()
    batch = batch_of(covr)
    query = covr.method.embed_query(batch.reference, batch.text).embeddings
    targets = covr.method.embed_target(batch.candidates)
    assert query.shape == (3, tokens, 24)
    assert targets.shape[1:] == covr.method.target_shape == (tokens, 24)
    for vectors in (query, targets):
        assert torch.allclose(vectors.norm(dim=-1), torch.ones(vectors.shape[:-1]), atol=1e-5)
    assert score(query, targets, covr.method.score_rule).shape == (3, 6)


def test_covr_reads_the_text_and_the_image(model):
    covr = model.with_method("covr", {}).eval()
    for parameter in covr.backbone.qformer.encoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)  # fresh weights hardly pass anything on
    batch = batch_of(covr)
    query = covr.method.embed_query(batch.reference, batch.text).embeddings
    other_image = covr.method.embed_query(batch.reference.flip(0), batch.text).embeddings
    other_text = covr.method.embed_query(batch.reference, covr.text_encoder(["is blue"] * 3)).embeddings
    assert not torch.allclose(query[0], other_image[0], atol=1e-3)
    assert not torch.allclose(query[0], other_text[0], atol=1e-3)


@pytest.mark.parametrize("rule", ["mean_mean", "max_max"])
def test_the_rule_of_retrieval_is_an_option_and_the_loss_takes_means(model, rule):
    covr = model.with_method("covr2", {"score": rule}).eval()
    assert covr.method.score_rule == rule
    batch = batch_of(covr, negatives=0)
    query = covr.method.embed_query(batch.reference, batch.text).embeddings.mean(dim=1)
    targets = covr.method.embed_target(batch.candidates).mean(dim=1)
    expected = hn_nce(query @ targets[batch.targets].T, 0.07, 1.0, 0.5)
    assert torch.allclose(covr.method(batch)["contrast"], expected)


def test_the_loss_follows_the_places_of_the_targets(model):
    covr = model.with_method("covr", {"beta": 0, "published_normaliser": True}).eval()
    batch = batch_of(covr, negatives=0)
    moved = type(batch)(**{**vars(batch), "targets": torch.tensor([2, 0, 1])})
    query = covr.method.embed_query(batch.reference, batch.text).embeddings[:, 0]
    targets = covr.method.embed_target(batch.candidates)[[2, 0, 1], 0]
    assert torch.allclose(covr.method(moved)["contrast"], hn_nce(query @ targets.T, 0.07, 1.0, 0.0))


@pytest.mark.parametrize("name", METHODS)
def test_the_loop_trains_it(garments_folder, model_folder, tmp_path, name):
    trained_and_read(garments_folder, model_folder, tmp_path, method=name, negatives={"choose": "none"})


@pytest.mark.parametrize("name", METHODS)
def test_it_comes_back_from_disk(model, name, tmp_path):
    covr = model.with_method(name, {"score": "max_max"} if name == "covr2" else {})
    torch.nn.init.normal_(covr.backbone.query_tokens)  # as if trained: the copy is another one
    covr.eval()
    read = ComposedModel.from_pretrained(covr.save_pretrained(tmp_path / name))
    batch = batch_of(covr)
    assert read.method.score_rule == covr.method.score_rule
    ours = covr.method.embed_query(batch.reference, batch.text).embeddings
    assert torch.equal(ours, read.method.embed_query(batch.reference, batch.text).embeddings)
    assert torch.equal(covr.method.embed_target(batch.candidates), read.method.embed_target(batch.candidates))


@pytest.mark.parametrize("name", METHODS)
def test_drawn_negatives_are_refused(name):
    with pytest.raises(DataError, match=r"contrasts within the batch: set negatives\.choose to none"):
        parse_settings({"method": name, "negatives": {"choose": "random"}}, Recipe, "recipe")


def covr2_state() -> dict[str, torch.Tensor]:
    """Return weights under the names of CoVR-2, without the temperature and the matching head."""
    _, state = published_case("02_qure_model")
    return {k: v for k, v in state.items() if k != "temp" and not k.startswith("itm_head.")}


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
def test_published_weights_go_into_both_halves(prefix):
    method = Covr2(tiny_backbone(256), Covr2Options())
    state = {prefix + key: value for key, value in covr2_state().items()}
    report = method.load_published(state)
    assert report.complete
    assert "Qformer.cls.predictions.bias" in report.dropped
    assert torch.equal(method.backbone.query_tokens, state[f"{prefix}query_tokens"])
    assert torch.equal(method.target_backbone.query_tokens, state[f"{prefix}query_tokens"])
    assert method.backbone.temperature.item() == pytest.approx(0.07)


def test_targets_can_be_embedded_by_the_pretrained_weights_as_published():
    method = Covr2(tiny_backbone(256), Covr2Options()).eval()
    tensors, pretrained = published_case("02_qure_model")
    state = covr2_state()
    state["query_tokens"] = torch.randn_like(state["query_tokens"])  # as if fine-tuned
    assert method.load_published(state, pretrained=pretrained).complete
    assert torch.equal(method.backbone.query_tokens, state["query_tokens"])
    targets = method.embed_target(tensors["in/tar_vit_features"])
    assert relative(targets, tensors["out/target_token_features_normalised"]) < 1e-4


def test_a_published_state_that_does_not_fit_is_refused(model):
    state = covr2_state()
    del state["text_proj.bias"]
    with pytest.raises(CheckpointError, match=r"missing: text_proj\.bias"):
        Covr2(tiny_backbone(256), Covr2Options()).load_published(state)
    with pytest.raises(CheckpointError, match="needs an eva or clip tower"):
        model.with_method("covr2", {}).method.load_published(state)


def test_every_key_of_the_published_size_has_a_place():
    with torch.device("meta"):
        method = Covr2(Blip2(BLIP2_VIT_L), Covr2Options())
    assert method.load_published(published_shapes()).complete
