"""SPRC against the published code: three passes, three losses, their gradients and both totals."""

import pytest
import torch

from dqecir.encoders.blip2 import BLIP2_VIT_L, Blip2
from dqecir.errors import CheckpointError, DataError
from dqecir.methods.method import TrainingBatch
from dqecir.methods.scoring import score
from dqecir.methods.sprc import Sprc, SprcOptions
from dqecir.model.composed_model import ComposedModel
from dqecir.settings import parse_settings
from dqecir.training.recipe import Recipe
from tests.methods.lavis_cases import (
    compare_gradients,
    part,
    published_case,
    published_shapes,
    relative,
    text_of,
    tiny_backbone,
    trained_and_read,
)
from tests.methods.test_dqe import batch_of

TERMS = {"contrast": "loss_itc", "prompt": "loss_rtc", "alignment": "loss_align"}


def published(**options) -> tuple[Sprc, dict[str, torch.Tensor]]:
    tensors, state = published_case("03_sprc")
    method = Sprc(tiny_backbone(24), SprcOptions(**options))
    report = method.load_published(state)
    assert report.complete
    assert "prompt_tokens" in report.used
    assert "prompt_tokens" not in report.dropped
    return method.eval(), tensors


def published_batch(tensors) -> TrainingBatch:
    return TrainingBatch(
        reference=tensors["in/ref_vit_features"],
        text=text_of(tensors),
        candidates=tensors["in/tar_vit_features"],
        targets=torch.arange(5),
        negatives=torch.zeros(5, 0, dtype=torch.int64),
        right=torch.zeros(5, 5, dtype=torch.bool),
        attribute_values=torch.zeros(5, 0, dtype=torch.int64),
    )


def test_states_of_the_three_passes_are_the_published_ones():
    method, tensors = published()
    text = text_of(tensors)
    kept = torch.cat([torch.ones(5, 32, dtype=torch.bool), text.mask.bool()], dim=1)
    queries, words = method.backbone.composed_states(tensors["in/ref_vit_features"], text.ids, text.mask)
    sentence = method.sentence_states(queries, text)
    prompted = method.prompted_states(text)
    for ours, name in (
        (torch.cat([queries, words], dim=1), "fusion"),
        (sentence, "prompted_text"),
        (prompted, "text_only_noimg"),
    ):
        theirs = tensors[f"out/lhs.{name}"]
        assert relative(ours[kept], theirs[kept]) < 1e-4, name


def test_retrieval_scores_are_the_published_ones():
    method, tensors = published()
    query = method.embed_query(tensors["in/ref_vit_features"], text_of(tensors)).embeddings
    corpus = method.embed_target(tensors["in/corpus_vit_features"])
    assert relative(corpus, tensors["out/corpus_token_features"]) < 1e-4
    scores = score(query, corpus, method.score_rule)
    assert relative(scores, tensors["out/inference_scores"]) < 1e-4
    assert torch.equal(scores.argsort(dim=1, descending=True), tensors["out/inference_distance_ranking"])


@pytest.mark.parametrize("term", TERMS)
def test_each_loss_and_its_gradients_are_the_published_ones(term):
    method, tensors = published()
    loss = method(published_batch(tensors))[term]
    assert loss.item() == pytest.approx(tensors[f"out/{TERMS[term]}"].item(), rel=1e-5)
    loss.backward()
    stored = part(tensors, f"grad/{TERMS[term]}/")
    assert len(stored) == {"contrast": 10, "prompt": 11, "alignment": 7}[term]
    compare_gradients(method, stored)
    if term != "prompt":
        assert method.prompt_tokens.grad is None


@pytest.mark.parametrize(
    ("options", "name"),
    [({}, "total_fiq"), ({"prompt_weight": 0.4, "alignment_weight": 0.4}, "total_cirr_default_0.4_0.4")],
)
def test_totals_are_the_published_ones(options, name):
    method, tensors = published(**options)
    total = sum(method(published_batch(tensors)).values())
    assert total.item() == pytest.approx(tensors[f"out/{name}"].item(), rel=1e-5)


def test_the_query_slot_is_the_cls_behind_the_query_tokens(model):
    sprc = model.with_method("sprc", {}).eval()
    batch = batch_of(sprc)
    fused, _ = sprc.method.backbone.composed_states(batch.reference, batch.text.ids, batch.text.mask)
    slots = []
    hook = sprc.backbone.qformer.layernorm.register_forward_pre_hook(lambda _, given: slots.append(given[0]))
    sprc.method.sentence_query(fused, batch.text)
    sprc.method.prompted_states(batch.text)
    hook.remove()
    cls, embeddings = sprc.text_encoder.tokenizer.id_of("[CLS]"), sprc.backbone.embeddings
    expected = embeddings.word_embeddings.weight[cls] + embeddings.position_embeddings.weight[0]
    assert torch.allclose(slots[0][:, fused.shape[1]], expected.expand(3, -1))
    assert torch.allclose(slots[1][:, 0], expected.expand(3, -1))


def test_padding_changes_nothing(model):
    sprc = model.with_method("sprc", {}).eval()
    batch = batch_of(sprc)
    alone = sprc.text_encoder(["is red"])
    for read in (sprc.method.prompted_states, lambda text: embedded(sprc, batch, text)):
        assert torch.allclose(read(alone)[0, 0], read(batch.text)[0, 0], atol=1e-5)


def embedded(sprc, batch, text):
    return sprc.method.embed_query(batch.reference[: len(text.ids)], text).embeddings


@pytest.mark.parametrize(
    ("options", "passes", "terms"),
    [
        ({}, 4, {"contrast", "prompt", "alignment"}),
        ({"prompt_weight": 0}, 3, {"contrast", "alignment"}),
        ({"prompt_weight": 0, "alignment_weight": 0}, 3, {"contrast"}),
    ],
)
def test_a_loss_of_weight_nothing_costs_nothing(model, options, passes, terms):
    sprc = model.with_method("sprc", options)
    counted = []
    hook = sprc.backbone.qformer.register_forward_hook(lambda *_: counted.append(1))
    found = sprc.method(batch_of(sprc, negatives=0))
    hook.remove()
    assert (len(counted), set(found)) == (passes, terms)


def test_gradients_reach_everything_but_the_tower(model):
    sprc = model.with_method("sprc", {})
    sum(sprc.method.train()(batch_of(sprc, negatives=0)).values()).backward()
    for name, parameter in sprc.method.named_parameters():
        assert (parameter.grad is not None) == (".tower." not in name), name
    assert sprc.method.prompt_tokens.grad.any()
    assert [id(p) for p in sprc.method.new_parameters()] == [id(sprc.method.prompt_tokens)]


def test_prompts_that_nothing_trains_are_frozen(model):
    assert model.with_method("sprc", {"prompt_weight": 0}).method.new_parameters() == []


def test_it_learns_the_batch(model):
    sprc = model.with_method("sprc", {}).eval()
    batch = batch_of(sprc, negatives=0)
    optimizer = torch.optim.AdamW([p for p in sprc.method.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(15):
        loss = sum(sprc.method(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_loop_trains_it(garments_folder, model_folder, tmp_path):
    trained_and_read(garments_folder, model_folder, tmp_path, method="sprc", negatives={"choose": "none"})


def test_it_comes_back_from_disk(model, tmp_path):
    sprc = model.with_method("sprc", {"alignment_weight": 0.4}).eval()
    read = ComposedModel.from_pretrained(sprc.save_pretrained(tmp_path / "sprc"))
    batch = batch_of(sprc)
    assert read.method.options.alignment_weight == pytest.approx(0.4)
    assert torch.equal(read.method.prompt_tokens, sprc.method.prompt_tokens)
    ours = sprc.method.embed_query(batch.reference, batch.text).embeddings
    assert torch.equal(ours, read.method.embed_query(batch.reference, batch.text).embeddings)
    assert torch.equal(sprc.method.embed_target(batch.candidates), read.method.embed_target(batch.candidates))


def test_texts_that_leave_no_room_for_prompts_are_refused(model):
    sprc = model.with_method("sprc", {})
    words = sprc.text_encoder(["red " * 60])
    long = words.ids.repeat(1, 2)  # 64 tokens, where the tiny backbone has 48 positions
    text = type(words)(long, torch.ones_like(long), words.mentions)
    with pytest.raises(DataError, match="3 prompts and 64 tokens at once, and the backbone has 48"):
        sprc.method.prompted_states(text)


def test_drawn_negatives_are_refused():
    with pytest.raises(DataError, match=r"contrasts within the batch: set negatives\.choose to none"):
        parse_settings({"method": "sprc", "negatives": {"choose": "random"}}, Recipe, "recipe")


def test_every_key_of_the_published_size_has_a_place():
    with torch.device("meta"):
        method = Sprc(Blip2(BLIP2_VIT_L), SprcOptions())
        prompts = torch.empty(1, 32, 768)
    assert method.load_published(published_shapes() | {"prompt_tokens": prompts}).complete


def test_a_state_without_prompts_is_refused():
    _, state = published_case("03_sprc")
    del state["prompt_tokens"]
    with pytest.raises(CheckpointError, match="1 missing: prompt_tokens"):
        Sprc(tiny_backbone(24), SprcOptions()).load_published(state)
