"""LinCIR: masked words, noise, and trained parameters."""

from types import SimpleNamespace

import pytest
import torch

from dqecir.methods.lincir import collapsed
from dqecir.model.composed_model import ComposedModel
from tests.methods.steps import RandomStore, a_batch, trained_names


@pytest.fixture
def lincir(model):
    return model.with_method("lincir", {}).eval()


def test_a_run_of_marked_words_becomes_one_token():
    ids = torch.tensor([[2, 11, 12, 13, 14, 3], [2, 21, 22, 3, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    marked = torch.tensor([[0, 1, 1, 0, 1, 0], [0, 0, 1, 0, 0, 0]]).bool()
    found = collapsed(ids, mask, marked)
    assert found[0][found[1].bool()].tolist() == [2, 11, 13, 14, 3, 2, 21, 22, 3]
    assert found[1].tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]]
    assert found[2].tolist() == [
        [False, True, False, True, False, False],
        [False, False, True, False, False, False],
    ]


def test_the_loss_worked_by_hand(lincir):
    """One text, one marked word, no noise: "that is $" with φ of "that is red", compared with "that is
    red".
    """
    method = lincir.method
    method.noise = 0.0
    encoder, backbone = lincir.text_encoder, lincir.backbone
    text = encoder([method.text(("is red",))])
    whole = backbone.pooled_text(encoder(["that is red"]))
    word = method.phi(whole)
    spoken = encoder(["that is [MASK]"])
    rest = method.injected(spoken, word)
    wanted = (rest - whole).square().mean()
    loss = method.loss(SimpleNamespace(text=text))["reconstruction"]  # nothing else of a batch is read
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-7)


def test_without_noise_the_loss_is_the_same_every_time(model, garments):
    for noise, same in ((0.0, True), (1.0, False)):
        lincir = model.with_method("lincir", {"noise": noise}).eval()
        batch = a_batch(lincir, garments)
        first, second = (float(lincir.method(batch)["reconstruction"].detach()) for _ in range(2))
        assert (first == second) is same


def test_no_image_is_read(model, garments):
    lincir = model.with_method("lincir", {"noise": 0.0}).eval()
    batch = a_batch(lincir, garments)
    blind = batch.__class__(**{**vars(batch), "reference": -batch.reference, "candidates": -batch.candidates})
    losses = [float(lincir.method(some)["reconstruction"].detach()) for some in (batch, blind)]
    assert losses[0] == losses[1]


def test_only_phi_is_trained(model, garments):
    lincir = model.with_method("lincir", {})
    method = lincir.method.train()
    assert not method.backbone.training
    sum(method(a_batch(lincir, garments)).values()).backward()
    assert len(trained_names(method)) == 6
    assert all(name.startswith("phi.") for name in trained_names(method))


def test_steps_lower_the_loss(model, garments):
    torch.manual_seed(0)
    lincir = model.with_method("lincir", {"dropout": 0.0, "noise": 0.0})
    method, batch = lincir.method.train(), a_batch(lincir, garments)
    optimiser = torch.optim.AdamW(method.new_parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = sum(method(batch).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_texts_without_a_marked_word_teach_nothing(lincir):
    method, encoder = lincir.method, lincir.text_encoder
    method.noise = 0.0

    def loss_of(*captions):
        text = encoder([method.text((caption,)) for caption in captions])
        return method.loss(SimpleNamespace(text=text))["reconstruction"]

    nothing = loss_of("is the same", "has not")
    assert float(nothing.detach()) == 0.0
    nothing.backward()  # a step over it must not fail
    alone, beside = loss_of("is red"), loss_of("is red", "is the same")
    torch.testing.assert_close(alone, beside, rtol=1e-5, atol=1e-7)


def test_saved_and_loaded_it_embeds_the_same(lincir, tmp_path):
    loaded = ComposedModel.from_pretrained(lincir.save_pretrained(tmp_path / "lincir"))
    texts = [lincir.method.text(("is red", "has a collar"))]
    tokens = RandomStore(1).tokens
    found = [
        some.method.embed_query(tokens, some.text_encoder(texts)).embeddings for some in (lincir, loaded)
    ]
    torch.testing.assert_close(found[0], found[1])
    assert found[0].shape == (1, 1, 24)
