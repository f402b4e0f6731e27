"""DQE-CIR's equations, options and constraints."""

import pytest
import torch

from dqecir.errors import DataError
from dqecir.methods.dqe import Dqe, DqeOptions
from dqecir.methods.method import TrainingBatch, method_named
from dqecir.methods.negatives import NegativeSampling
from dqecir.settings import parse_settings
from dqecir.training.recipe import Recipe

TEXTS = ["is red", "has short sleeves", "is the same"]


def batch_of(model, negatives: int = 1) -> TrainingBatch:
    generator = torch.Generator().manual_seed(1)
    return TrainingBatch(
        reference=torch.randn(3, 16, 16, generator=generator),
        text=model.text_encoder(TEXTS),
        candidates=torch.randn(6, 16, 16, generator=generator),
        targets=torch.tensor([0, 1, 2]),
        negatives=torch.tensor([[3], [4], [5]]).expand(-1, negatives),
        right=torch.zeros(3, 6, dtype=torch.bool),
        attribute_values=torch.zeros(6, 9, dtype=torch.int64),
    )


def test_the_text_encoder_marks_the_words_of_each_attribute(model):
    dqe = model.with_method("dqe", {})
    batch = dqe.text_encoder(TEXTS)
    assert batch.mentions.any(dim=2).tolist() == [[True, False], [False, True], [False, False]]
    assert not batch.mentions[:, :, 0].any()  # [CLS] is no word


def test_at_the_start_the_total_query_is_nearly_the_base_query(model):
    dqe = model.with_method("dqe", {}).eval()
    base = model.with_method("dqe", {"attributes": []}).eval()
    batch = batch_of(dqe)
    total = dqe.method.embed_query(batch.reference, batch.text).embeddings
    alone = base.method.embed_query(batch.reference, base.text_encoder(TEXTS)).embeddings
    cosine = (total * alone).sum(dim=2)
    assert (cosine > 0.95).all()
    assert (cosine < 1.0).any()


def test_queries_and_targets_are_unit_vectors(model):
    dqe = model.with_method("dqe", {}).eval()
    batch = batch_of(dqe)
    query = dqe.method.embed_query(batch.reference, batch.text)
    targets = dqe.method.embed_target(batch.candidates)
    assert query.embeddings.shape == (3, 1, 24)
    assert targets.shape == (6, *dqe.method.target_shape)
    for vectors in (query.embeddings, query.attribute_embeddings, targets):
        assert torch.allclose(vectors.norm(dim=-1), torch.ones(vectors.shape[:-1]), atol=1e-5)


def test_padding_changes_nothing(model):
    dqe = model.with_method("dqe", {}).eval()
    batch = batch_of(dqe)
    alone = dqe.method.embed_query(batch.reference[:1], dqe.text_encoder(TEXTS[:1])).embeddings
    padded = dqe.method.embed_query(batch.reference, dqe.text_encoder(TEXTS)).embeddings[:1]
    assert torch.allclose(alone, padded, atol=1e-5)


@pytest.mark.parametrize("weights", ["text_gate", "scalar", "fixed"])
@pytest.mark.parametrize("sub_query", ["prompt_attention", "projection"])
def test_every_switch_trains_all_of_its_parameters(model, weights, sub_query):
    dqe = model.with_method(
        "dqe", {"weights": weights, "sub_query": sub_query, "margin": 2, "attribute_margin": 2}
    )
    terms = dqe.method.train()(batch_of(dqe))
    assert set(terms) == {"pair", "ranking", "attribute"}
    sum(terms.values()).backward()
    for name, parameter in dqe.method.named_parameters():
        if "backbone" not in name:
            assert parameter.grad is not None, name


def test_weights_follow_the_text_once_the_gate_is_open(model):
    dqe = model.with_method("dqe", {}).eval()
    torch.nn.init.normal_(dqe.method.gate.weight)
    batch = batch_of(dqe)
    weights = dqe.method.embed_query(batch.reference, batch.text).attribute_weights
    assert weights.shape == (3, 2)
    assert weights.std(dim=0).min() > 0


def test_unmentioned_attributes_weigh_less_in_the_attribute_margin(model):
    full = model.with_method("dqe", {"unmentioned": 1.0, "attribute_margin": 2}).eval()
    batch = batch_of(full)
    masked = model.with_method("dqe", {"unmentioned": 0.0, "attribute_margin": 2}).eval()
    masked.method.load_state_dict(full.method.state_dict())
    assert masked.method(batch)["attribute"] < full.method(batch)["attribute"]


def test_contrast_alone_needs_no_negatives(model):
    options = {"contrast_weight": 1, "pair_weight": 0, "ranking_weight": 0, "attribute_weight": 0}
    dqe = model.with_method("dqe", options)
    batch = batch_of(dqe, negatives=0)
    assert set(dqe.method(batch)) == {"contrast"}


def test_the_temperature_stays_within_its_bounds(model):
    dqe = model.with_method("dqe", {})
    dqe.backbone.temperature.data.fill_(-1.0)
    dqe.method.after_step()
    assert dqe.backbone.temperature.item() == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("options", "negatives", "message"),
    [
        ({"margin": 0.05}, {}, "ranking loss would be zero at each refresh"),
        ({}, {"choose": "none"}, "pairwise losses need negatives"),
        ({"pair_weight": 0, "ranking_weight": 0}, {}, "set one of them above 0"),
        (
            {"pair_weight": 0, "ranking_weight": 0, "attribute_weight": 0, "contrast_weight": 1},
            {},
            "no loss uses them",
        ),
        ({"marginn": 0.1}, {}, "did you mean 'margin'"),
        ({}, {"warm_up": "in_batch"}, "would train nothing"),
    ],
)
def test_contradictions_are_refused_when_the_recipe_is_read(options, negatives, message):
    with pytest.raises(DataError, match=message):
        parse_settings({"method": "dqe", "options": options, "negatives": negatives}, Recipe, "recipe")


def test_a_margin_below_the_band_is_fine_where_the_ranking_loss_is_off():
    options = DqeOptions(margin=0.01, ranking_weight=0)
    options.check_negatives(NegativeSampling())


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(DataError, match="did you mean 'text_only'"):
        method_named("text_onyl")
    assert method_named("dqe") is Dqe


def test_a_baseline_has_nothing_to_train(model):
    with pytest.raises(DataError, match="nothing to train"):
        model.method(batch_of(model))


def test_an_empty_text_is_refused(model):
    with pytest.raises(DataError, match="say what should change"):
        model.text_encoder(["is red", "  "])


def test_a_text_of_another_encoding_is_refused(model):
    # What Python makes of an argument that is not UTF-8.
    with pytest.raises(DataError, match="set the terminal to UTF-8"):
        model.text_encoder(["caf\udce9"])


def test_a_new_attribute_is_a_file_and_no_code(model, tmp_path):
    path = tmp_path / "material.yaml"
    path.write_text(
        "name: material\ncolumns: {material: {values: [wool, linen], statements: ['is of {value}']}}\n"
    )
    dqe = model.with_method("dqe", {"attributes": ["colour", str(path)]})
    assert [v.name for v in dqe.vocabularies] == ["colour", "material"]
    assert dqe.text_encoder(["is of wool"]).mentions.any(dim=2).tolist() == [[False, True]]
