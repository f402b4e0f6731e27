"""A trained Q-Former reads stored tokens as an untrained one does, and learns the same from them."""

import torch

from dqecir.encoders.blip2 import Blip2, Blip2Config
from dqecir.encoders.towers import TowerConfig


def test_scale_and_shift_moved_into_the_readers_change_neither_states_nor_gradients():
    torch.manual_seed(0)
    tower = TowerConfig(kind="clip", image_size=28, hidden_size=16, layers=1, heads=2, intermediate_size=8)
    sizes = {"hidden_size": 24, "layers": 4, "heads": 2, "intermediate_size": 32, "query_tokens": 4}
    backbone = Blip2(Blip2Config(tower=tower, vocabulary_size=64, text_positions=16, dropout=0.0, **sizes))
    backbone.freeze_tower()
    backbone.ln_vision.weight.data.uniform_(0.5, 2)
    backbone.ln_vision.bias.data.normal_()
    tokens, ids = torch.randn(3, 5, 16), torch.randint(0, 64, (3, 6))

    def learned(tokens):
        states, words = backbone.composed_states(tokens, ids, torch.ones_like(ids))
        whole = torch.cat([states, words, backbone.image_states(tokens)], dim=1)
        (whole * torch.linspace(-1, 1, whole.numel()).reshape(whole.shape)).sum().backward()
        gradients = {n: p.grad.clone() for n, p in backbone.named_parameters() if p.grad is not None}
        backbone.zero_grad()
        return whole.detach(), gradients

    moved, by_moved = learned(tokens)
    # Tokens that are trained themselves are normalised as they always were.
    plain, by_plain = learned(tokens.clone().requires_grad_())
    assert torch.allclose(moved, plain, atol=1e-5)
    assert by_moved.keys() == by_plain.keys() and "ln_vision.weight" in by_plain
    for name, gradient in by_plain.items():
        if not name.endswith("key.bias"):  # shifts all logits of a row alike: nothing but rounding
            assert (by_moved[name] - gradient).norm() < 1e-4 * gradient.norm() + 1e-6, name
    with torch.no_grad():
        assert torch.allclose(backbone.image_states(tokens), plain[:, -4:], atol=1e-5)
