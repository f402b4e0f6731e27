"""QuRe against the published code: embeddings, loss, gradients, steps of training and negatives."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dqecir.encoders.blip2 import BLIP2_VIT_L, Blip2
from dqecir.errors import CheckpointError, DataError
from dqecir.methods.method import TrainingBatch
from dqecir.methods.negatives import LastWindow, steepest_drop_members
from dqecir.methods.qure import Qure, QureOptions
from dqecir.methods.scoring import score
from dqecir.settings import parse_settings
from dqecir.training.recipe import Recipe
from tests.methods.lavis_cases import (
    GOLDEN,
    compare_gradients,
    our_name,
    part,
    published_case,
    published_shapes,
    relative,
    text_of,
    tiny_backbone,
    trained_and_read,
)
from tests.methods.test_dqe import batch_of

MULTI = json.loads((GOLDEN / "02_qure_hard_negatives.json").read_text())["multi_query_case"]


def published(**options) -> tuple[Qure, dict[str, torch.Tensor]]:
    tensors, state = published_case("02_qure_model")
    method = Qure(tiny_backbone(256), QureOptions(**options))
    assert method.load_published(state).complete
    return method.eval(), tensors


def published_batch(tensors) -> TrainingBatch:
    return TrainingBatch(
        reference=tensors["in/ref_vit_features"],
        text=text_of(tensors),
        candidates=torch.cat([tensors["in/tar_vit_features"], tensors["in/neg_vit_features"]]),
        targets=torch.arange(4),
        negatives=torch.arange(4, 8)[:, None],
        right=torch.zeros(4, 8, dtype=torch.bool),
        attribute_values=torch.zeros(8, 0, dtype=torch.int64),
    )


def test_embeddings_and_scores_are_the_published_ones():
    method, tensors = published()
    query = method.embed_query(tensors["in/ref_vit_features"], text_of(tensors)).embeddings
    assert relative(query[:, 0], tensors["out/query_features_normalised"]) < 1e-4
    corpus = method.embed_target(tensors["in/corpus_vit_features"])
    assert relative(corpus, tensors["out/corpus_token_features"]) < 1e-4
    scores = score(query, corpus, method.score_rule)
    assert relative(scores, tensors["out/corpus_scores"]) < 1e-4
    assert torch.equal(scores.argsort(dim=1, descending=True), tensors["out/corpus_ranking"])


@pytest.mark.parametrize(("name", "use_temperature"), [("temp", True), ("notemp", False)])
def test_loss_and_gradients_are_the_published_ones(name, use_temperature):
    method, tensors = published(use_temperature=use_temperature)
    loss = method(published_batch(tensors))["pair"]
    assert loss.item() == pytest.approx(tensors[f"out/{name}.loss"].item(), rel=1e-5)
    loss.backward()
    stored = part(tensors, f"grad/{name}/")
    assert len(stored) == (10 if use_temperature else 9)
    compare_gradients(method, stored)


def test_five_steps_of_training_end_at_the_published_weights():
    method, tensors = published()
    after = load_file(GOLDEN / "02_qure_train_steps.safetensors")
    batch = published_batch(tensors)
    trained = [parameter for parameter in method.train().parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.05)
    losses = []
    for _ in range(5):
        loss = method(batch)["pair"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step()
    assert losses == pytest.approx(after["out/losses"].tolist(), rel=1e-5)
    parameters = dict(method.named_parameters())
    stored = part(after, "out/after5/")
    assert len(stored) == 9
    for key, value in stored.items():
        assert relative(parameters[our_name(key)], value) < 1e-4, key


def test_nothing_bounds_the_temperature(model):
    method = model.with_method("qure", {}).method
    method.backbone.temperature.data.fill_(0.9)
    method.after_step()
    assert method.backbone.temperature.item() == pytest.approx(0.9)


def test_it_is_dqe_without_attributes(model):
    qure = model.with_method("qure", {}).eval()
    batch = batch_of(qure)
    ours = qure.method(batch)["pair"]
    dqe = model.with_method("dqe", {"attributes": [], "ranking_weight": 0}).eval()
    assert torch.allclose(ours, dqe.method(batch)["pair"])
    assert torch.equal(qure.method.contrasted(batch), dqe.method.contrasted(batch))


def test_gradients_reach_everything_but_the_tower(model):
    qure = model.with_method("qure", {})
    qure.method.train()(batch_of(qure))["pair"].backward()
    for name, parameter in qure.method.named_parameters():
        assert (parameter.grad is not None) == (".tower." not in name), name


@pytest.mark.parametrize("empty", ["previous", "nearest"])
def test_it_trains_and_comes_back_from_disk(garments_folder, model_folder, tmp_path, monkeypatch, empty):
    lasts = []

    def watched(scores, targets, eligible, last=None):
        lasts.append(last)
        return steepest_drop_members(scores, targets, eligible, last)

    monkeypatch.setattr("dqecir.training.mining.steepest_drop_members", watched)
    negatives = {"choose": "steepest_drops", "empty": empty, "refresh_epochs": 0.4}
    trained_and_read(garments_folder, model_folder, tmp_path, method="qure", negatives=negatives)
    assert lasts
    assert all((last is not None and last.places is not None) == (empty == "previous") for last in lasts)


@pytest.mark.parametrize(
    ("negatives", "message"),
    [
        ({"choose": "none"}, "set negatives.choose"),
        ({"choose": "steepest_drops", "warm_up": "in_batch"}, "warm_up to random"),
        ({"choose": "mid_zone", "empty": "previous"}, "needs negatives.choose: steepest_drops"),
    ],
)
def test_recipes_that_could_not_train_are_refused(negatives, message):
    with pytest.raises(DataError, match=message):
        parse_settings({"method": "qure", "negatives": negatives}, Recipe, "recipe")


def multi_query_sets(last: LastWindow | None) -> list[list[str]]:
    """Return the published run of 59 queries, category by category."""
    scores = (np.random.RandomState(77).randn(59, 59) * 0.1 + np.eye(59) * 0.35).astype(np.float32)
    names, sets = np.array(MULTI["targets"]), []
    for category in MULTI["n_per_category"]:
        columns = np.flatnonzero(np.array(MULTI["categories"]) == category)
        own = names[columns]
        targets = torch.tensor([own.tolist().index(name) for name in own])
        eligible = torch.from_numpy(own[None] != own[:, None])
        members, _ = steepest_drop_members(
            torch.from_numpy(scores[columns][:, columns]), targets, eligible, last
        )
        sets.extend(sorted(set(own[row.numpy()])) for row in members)
    return sets


def test_the_published_run_reuses_the_window_of_the_query_before():
    assert multi_query_sets(LastWindow()) == MULTI["result"]


def test_by_default_no_window_is_reused():
    ours = multi_query_sets(None)
    differing = [
        n for n, (mine, theirs) in enumerate(zip(ours, MULTI["result"], strict=True)) if mine != theirs
    ]
    assert differing == MULTI["stale_window_query_indices"]
    for query in differing:
        target, category = MULTI["targets"][query], MULTI["categories"][query]
        places = zip(MULTI["targets"], MULTI["categories"], strict=True)
        assert ours[query] == sorted({name for name, kind in places if kind == category and name != target})


def test_a_reused_window_counts_as_a_fallback_and_the_first_query_has_none_to_reuse():
    scores = torch.tensor([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]])
    eligible = torch.tensor([[False, True, True], [False, True, True]])
    last = LastWindow()
    members, empty = steepest_drop_members(scores[:1], torch.tensor([0]), eligible[:1], last)
    assert (members.tolist(), empty.tolist()) == ([[False, True, True]], [True])
    last.places = (1, 2)
    members, empty = steepest_drop_members(scores, torch.tensor([0, 0]), eligible, last)
    assert (members.tolist(), empty.tolist()) == ([[False, True, False]] * 2, [True, True])


def test_a_reused_window_keeps_its_places_in_the_ranking():
    scores = torch.tensor(
        [[0.9, 0.8, 0.7, 0.4, 0.39, 0.38, 0.1, 0.09], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]]
    )
    targets = torch.tensor([1, 0])  # at place 1, and last
    eligible = torch.arange(8)[None] != targets[:, None]
    members, empty = steepest_drop_members(scores, targets, eligible, LastWindow())
    assert [row.nonzero().flatten().tolist() for row in members] == [[3, 4, 5], [2, 3, 4]]
    assert empty.tolist() == [False, True]


def test_every_key_of_the_published_size_has_a_place():
    with torch.device("meta"):
        method = Qure(Blip2(BLIP2_VIT_L), QureOptions())
    report = method.load_published(published_shapes())
    assert report.complete
    assert any(key.startswith("itm_head.") for key in report.dropped)


def test_a_state_that_does_not_fit_is_refused(model):
    _, state = published_case("02_qure_model")
    method = Qure(tiny_backbone(256), QureOptions())
    del state["query_tokens"]
    with pytest.raises(CheckpointError, match=r"1 missing: query_tokens"):
        method.load_published(state)
    with pytest.raises(CheckpointError, match="needs an eva or clip tower"):
        model.with_method("qure", {}).method.load_published(state)
