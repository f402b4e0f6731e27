"""SEARLE: the position of the pseudo-word, inversion, and the parameters that distillation trains."""

import math

import pytest
import torch

from dqecir.encoders.tokenizer import Placeholder
from dqecir.errors import CheckpointError, DataError
from dqecir.methods.inversion import Phi, paired_contrast
from dqecir.methods.method import MethodContext, method_named
from dqecir.methods.searle import TEMPLATES, SearleOptions
from dqecir.model.composed_model import ComposedModel
from dqecir.model.conversion import published_composer, sources
from dqecir.settings import parse_settings
from dqecir.training.recipe import Recipe
from tests.methods.steps import RandomStore, a_batch, trained_names

PLACEHOLDER = "[MASK]"
CONCEPTS = {"dress": ("a dress that is red", "a dress with long sleeves"), "hat": ("a hat that is blue",)}


@pytest.fixture
def model(model):
    """Return the tiny model with larger weights, because its initial text encoder hardly depends on single
    words.
    """
    with torch.no_grad():
        for parameter in model.backbone.qformer.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return model


@pytest.fixture
def searle(model):
    return model.with_method("searle", {"inversion_steps": 3}).eval()


def test_contrast_of_two_pairs_worked_by_hand():
    """Each vector has cosine 1 with its partner and 0 with two others: log(1 + 2 e^-4) at τ = 0.25."""
    vectors = torch.eye(2)
    loss = paired_contrast(3 * vectors, 0.5 * vectors, 0.25)
    assert float(loss) == pytest.approx(math.log(1 + 2 * math.exp(-4)), rel=1e-5)


def test_contrast_of_one_pair_has_nothing_to_tell_apart():
    assert float(paired_contrast(torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 1]]), 0.25)) == 0.0


def test_contrast_is_symmetric_and_prefers_partners():
    torch.manual_seed(0)
    first, second = torch.randn(2, 5, 7)
    forward = paired_contrast(first, second, 0.25)
    torch.testing.assert_close(forward, paired_contrast(second, first, 0.25))
    assert paired_contrast(first, first, 0.25) < paired_contrast(first, first.roll(1, 0), 0.25)


def test_the_placeholder_is_one_token_of_every_query(searle):
    text = searle.method.text(("is red.", "has short sleeves"))
    assert text == "a photo of [MASK] that is red and has short sleeves"
    batch = searle.text_encoder([text, searle.method.text(("Is blue",))])
    assert (batch.ids == searle.text_encoder.tokenizer.id_of("[MASK]")).sum(dim=1).tolist() == [1, 1]
    assert searle.method.placeholder == Placeholder("[MASK]", searle.text_encoder.tokenizer.id_of("[MASK]"))
    every = searle.text_encoder([template.format(PLACEHOLDER) for template in TEMPLATES])
    assert (every.ids == searle.method.placeholder.id).sum(dim=1).tolist() == [1] * len(TEMPLATES)


def test_a_word_injected_for_itself_changes_nothing(searle):
    backbone = searle.backbone
    batch = searle.text_encoder([f"a photo of {PLACEHOLDER} that is red", f"{PLACEHOLDER} is blue"])
    own = backbone.embeddings.word_embeddings.weight[searle.method.placeholder.id]
    injected = searle.method.injected(batch, own.expand(2, -1))
    torch.testing.assert_close(injected, backbone.pooled_text(batch), rtol=1e-5, atol=1e-6)
    other = searle.method.injected(batch, -own.expand(2, -1))
    assert not torch.allclose(injected, other, atol=1e-3)


def test_a_word_injected_where_another_stands_is_that_word(searle):
    """ "[MASK] is blue" with the embedding of "red" is "red is blue"."""
    backbone, encoder = searle.backbone, searle.text_encoder
    open_text, said = encoder([f"{PLACEHOLDER} is blue"]), encoder(["red is blue"])
    (red,) = encoder.tokenizer.ids("red")
    words = backbone.embeddings.word_embeddings.weight[red][None]
    places = open_text.ids == searle.method.placeholder.id
    injected = backbone.text_with_words(open_text.ids, open_text.mask, words, places)
    torch.testing.assert_close(injected, backbone.pooled_text(said), rtol=1e-5, atol=1e-6)


def test_a_text_without_the_placeholder_is_refused(searle):
    with pytest.raises(DataError, match=r"no \[MASK\]"):
        searle.method.embed_query(torch.randn(1, 16, 16), searle.text_encoder(["is red"]))


def test_queries_and_targets_are_unit_vectors_and_images_matter(searle):
    text = searle.text_encoder([searle.method.text(("is red",))] * 3)
    tokens = RandomStore(3).tokens
    queries = searle.method.embed_query(tokens, text).embeddings
    assert queries.shape == (3, 1, 24)
    torch.testing.assert_close(queries.norm(dim=2), torch.ones(3, 1))
    assert not torch.allclose(queries[0], queries[1], atol=1e-6)
    assert searle.method.embed_target(tokens).shape == (3, *searle.method.target_shape)


def test_inversion_brings_the_text_to_the_image(model):
    tokens = RandomStore(4).tokens
    means = []
    for steps in (1, 60):
        options = {"inversion_steps": steps, "inversion_rate": 0.1, "averaging": 0.0}
        method = model.with_method("searle", options).eval().method
        torch.manual_seed(0)
        words = method.invert(tokens)
        assert words.shape == (4, 16)
        assert not words.requires_grad
        template = method.templates.drawn(torch.zeros(4, dtype=torch.int64))
        text = torch.nn.functional.normalize(method.injected(template, words), dim=1)
        means.append((text * method.direction(tokens)).sum(dim=1).detach())
    assert bool((means[1] > means[0] + 0.005).all()), means


def test_one_step_of_inversion_is_adamw_worked_by_hand(model):
    """The first AdamW step is decay and a step against the gradient's sign; then the mean."""
    options = {"inversion_steps": 1, "inversion_rate": 0.5, "inversion_decay": 0.1, "averaging": 0.75}
    method = model.with_method("searle", options).eval().method
    tokens = RandomStore(2).tokens
    torch.manual_seed(5)
    found = method.invert(tokens)
    torch.manual_seed(5)
    start = 0.02 * torch.randn(2, 16)
    moved = (found - 0.75 * start) / 0.25  # what was averaged in
    steps = (moved - (1 - 0.5 * 0.1) * start) / 0.5
    torch.testing.assert_close(steps.abs(), torch.ones(2, 16), rtol=1e-2, atol=1e-2)


def test_only_phi_is_trained_and_nothing_else_moves(model, garments):
    searle = model.with_method("searle", {"inversion_steps": 2, "concepts": CONCEPTS})
    method = searle.method.train()
    assert not method.backbone.training
    terms = method(a_batch(searle, garments))
    assert set(terms) == {"distillation", "concepts"}
    sum(terms.values()).backward()
    assert all(name.startswith("phi.") for name in trained_names(method))
    assert len(trained_names(method)) == 6
    assert {id(p) for p in method.new_parameters()} == {id(p) for p in method.phi.parameters()}


def test_a_step_lowers_the_loss(model, garments):
    torch.manual_seed(0)
    searle = model.with_method("searle", {"inversion_steps": 3, "dropout": 0.0})
    method, batch = searle.method.train(), a_batch(searle, garments)
    optimiser = torch.optim.AdamW(method.new_parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        torch.manual_seed(1)
        loss = sum(method(batch).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_no_triplet_and_no_text_is_read(model, garments):
    """The loss does not depend on texts and references."""
    searle = model.with_method("searle", {"inversion_steps": 2})
    batch = a_batch(searle, garments)
    other = batch.__class__(
        **{**vars(batch), "reference": -batch.reference, "text": batch.text[torch.arange(5, -1, -1)]}
    )
    losses = []
    for some in (batch, other):
        torch.manual_seed(0)
        losses.append(float(searle.method.eval()(some)["distillation"].detach()))
    assert losses[0] == losses[1]


def test_without_concepts_there_is_no_term_for_them(model, garments):
    searle = model.with_method("searle", {"inversion_steps": 1})
    assert set(searle.method(a_batch(searle, garments))) == {"distillation"}


def test_each_image_is_held_to_sentences_of_its_own_concept(model):
    method = model.with_method("searle", {"concepts": CONCEPTS}).eval().method
    assert method.concepts.owner.tolist() == [0, 0, 1]
    opened = model.text_encoder.tokenizer.pieces.decode(
        method.concepts.open.batch.ids[2].tolist(), skip_special_tokens=False
    )
    assert "a [MASK] that is blue" in opened
    # A word that is the concept's own embedding says what the sentence says.
    encoder = model.text_encoder
    (hat,) = encoder.tokenizer.ids("hat")
    own = method.backbone.embeddings.word_embeddings.weight[hat][None]
    assert float(method.apart_from_concepts(own, torch.tensor([1]))) == pytest.approx(0, abs=1e-5)
    assert float(method.apart_from_concepts(-own, torch.tensor([1]))) > 1e-4


def test_saved_and_loaded_it_embeds_the_same(searle, tmp_path):
    loaded = ComposedModel.from_pretrained(searle.save_pretrained(tmp_path / "searle"))
    text = searle.text_encoder([searle.method.text(("is red",))])
    tokens = RandomStore(1).tokens
    found = [some.method.embed_query(tokens, text).embeddings for some in (searle, loaded)]
    torch.testing.assert_close(found[0], found[1])


def test_a_published_phi_is_read():
    torch.manual_seed(0)
    phi = Phi(4, 16, 6)
    composer, report = published_composer("searle", phi.state_dict())
    assert report.complete
    features = torch.randn(2, 4)
    torch.testing.assert_close(composer.eval()(features), phi.eval()(features))
    assert {"searle", "lincir"} <= set(sources())
    with pytest.raises(CheckpointError, match=r"layers\.0\.weight"):
        published_composer("searle", {"weight": torch.zeros(1)})


def test_what_is_missing_is_said(model):
    with pytest.raises(DataError, match=r"\[MASK\]"):
        method_named("searle").build(model.backbone, SearleOptions(), MethodContext())
    with pytest.raises(DataError, match="text encoder"):
        method_named("searle").build(
            model.backbone, SearleOptions(), MethodContext(placeholder=Placeholder("[MASK]", 4))
        )
    with pytest.raises(DataError, match="each with 'hat' in it"):
        parse_settings({"concepts": {"hat": ["a cap"]}}, SearleOptions, "options")
    with pytest.raises(DataError, match=r"negatives\.choose to none"):
        parse_settings({"method": "searle", "negatives": {"choose": "random"}}, Recipe, "recipe")
