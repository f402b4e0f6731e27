"""Fingerprints: which change of a model changes its target embeddings, and which only its results."""

from dataclasses import replace

import pytest
import torch

from dqecir.data.images import Preprocessing
from dqecir.methods.attribute_heads import AttributeHeads, TextEncoder
from dqecir.methods.method import all_methods
from dqecir.model import fingerprints
from dqecir.model.composed_model import ComposedModel
from tests.conftest import MODEL_OF_0_1_0, tiny_model

OPTIONS = {"composeae": {"channels": 8}, "biblip4cir": {"projection_size": 8, "hidden_size": 8}}
TOKENS = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(5))


def model_with(name: str) -> ComposedModel:
    model = tiny_model().with_method(name, OPTIONS.get(name, {})).eval()
    model.method.fit_targets([TOKENS])
    return model


@torch.no_grad()
def disturb(weights: torch.Tensor) -> None:
    weights += torch.rand(weights.shape, generator=torch.Generator().manual_seed(1)).to(weights.dtype)


@pytest.mark.parametrize("name", sorted(all_methods()))
def test_the_target_state_is_exactly_what_makes_target_embeddings(name):
    method = model_with(name).method
    before = method.embed_target(TOKENS)
    own = {value.data_ptr() for value in method.target_state().values()}
    for key, value in method.state_dict().items():
        if value.data_ptr() not in own and not key.startswith("backbone.tower."):
            disturb(value)
    assert torch.equal(method.embed_target(TOKENS), before)
    for key, value in method.target_state().items():
        if key.endswith("key.bias"):
            continue  # the same number added to all logits of a softmax
        kept = value.clone()
        disturb(value)
        assert not torch.equal(method.embed_target(TOKENS), before), key
        value.copy_(kept)


def test_methods_of_one_target_fingerprint_make_the_same_target_embeddings():
    found = {}
    for name in all_methods():
        model = model_with(name)
        targets, rule = found.setdefault(
            model.target_fingerprint, (model.method.embed_target(TOKENS), model.method.score_rule)
        )
        assert torch.equal(model.method.embed_target(TOKENS), targets)
        assert model.method.score_rule == rule


def test_the_names_of_the_model_of_0_1_0_stay():
    model = ComposedModel.from_pretrained(MODEL_OF_0_1_0)
    assert model.target_fingerprint == "target:0ce0a52b8ffcac96", "none of its indexes opens"
    assert model.index_fingerprint("998e8cbc9e5f47b9") == "998e8cbc9e5f47b9", "no index of 0.1.0 opens"


def with_other_tower(model):
    disturb(next(iter(model.backbone.tower.parameters())))
    return replace(model)


def with_other_heads(model):
    disturb(model.heads.classifiers[0].weight)
    return replace(model)


def with_other_projection(model):
    disturb(model.backbone.vision_projection.weight)
    return replace(model)


def with_other_preprocessing(model):
    return replace(model, preprocessing=Preprocessing(size=32, pad_ratio=2.0, pad_colour=(255, 255, 255)))


def with_values_in_another_order(model):
    config = model.heads.config
    columns = {column: tuple(reversed(values)) for column, values in config.columns.items()}
    heads = AttributeHeads(config.model_copy(update={"columns": columns}))
    heads.load_state_dict(model.heads.state_dict())
    return replace(model, heads=heads).with_method("dqe_values", {})


def with_other_attention_heads(model):
    model.backbone.config = model.backbone.config.model_copy(update={"heads": 4})
    return replace(model)


def with_other_composer(model):
    disturb(model.method.asks)
    return replace(model)


def with_other_text_weights(model):
    disturb(model.backbone.text_projection.weight)
    return replace(model)


def with_other_options(model):
    return replace(model, options=model.options.model_copy(update={"head_scale": 0.1}))


def with_other_vocabularies(model):
    encoder = model.text_encoder
    first = encoder.vocabularies[0]
    changed = first.model_copy(update={"columns": dict(list(first.columns.items())[:1])})
    others = (changed, *encoder.vocabularies[1:])
    return replace(model, text_encoder=TextEncoder(encoder.tokenizer, others, encoder.max_length))


CHANGES = {
    with_other_tower: True,
    with_other_heads: True,
    with_other_projection: True,
    with_other_preprocessing: True,
    with_values_in_another_order: True,
    with_other_attention_heads: True,
    with_other_composer: False,
    with_other_text_weights: False,
    with_other_options: False,
    with_other_vocabularies: False,
}
"""Whether a change makes other target embeddings; each changes answers."""


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_renames_what_it_changes(change):
    before, after = model_with("dqe_values"), change(model_with("dqe_values"))
    assert (after.target_fingerprint != before.target_fingerprint) is CHANGES[change]
    assert after.fingerprint != before.fingerprint


def test_another_text_reader_renames_answers_but_no_index(monkeypatch):
    before, forms = model_with("dqe_values"), (fingerprints.TARGET, "")
    answers, indexes = before.fingerprint, [before.index_fingerprint(form) for form in forms]
    monkeypatch.setattr(fingerprints, "READER_VERSION", 99)
    after = model_with("dqe_values")
    assert after.fingerprint != answers
    assert [after.index_fingerprint(form) for form in forms] == indexes
