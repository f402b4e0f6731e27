"""The LSTM text encoder against CoSMo's; TIRG's is compared in tests/methods/test_tirg.py."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from dqecir.encoders.blip2 import TextBatch
from dqecir.encoders.checkpoints import PublishedKeys
from dqecir.encoders.lstm import LstmTextEncoder

GOLDEN = Path(__file__).parent.parent / "golden"
KEYS = PublishedKeys(((r"^embedding_layer\.", r"embedding."), (r"^fc\.1\.", r"output.")))


def test_features_are_the_published_ones():
    fixture = load_file(GOLDEN / "07_cosmo.safetensors")
    state = {k.removeprefix("state_lstm/"): v for k, v in fixture.items() if k.startswith("state_lstm/")}
    encoder = LstmTextEncoder(30, 10, 14, 12).eval()
    assert KEYS.load(encoder, state).complete
    ids, lengths = fixture["in/lstm_ids"], fixture["in/lstm_lengths"]
    mask = (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()
    features = encoder(TextBatch(ids, mask, torch.zeros(4, 0, ids.shape[1], dtype=torch.bool)))
    torch.testing.assert_close(features, fixture["out/lstm_features"], rtol=1e-4, atol=1e-6)


def test_a_tenth_of_the_last_state_is_dropped_while_training():
    torch.manual_seed(0)
    encoder = LstmTextEncoder(30, 10, 4000, 2).train()
    seen = []
    encoder.dropout.register_forward_hook(lambda module, given, made: seen.append(made))
    text = TextBatch(torch.tensor([[3, 4]]), torch.tensor([[1, 1]]), torch.zeros(1, 0, 2, dtype=torch.bool))
    encoder(text)
    assert 0.08 < float((seen[0] == 0).float().mean()) < 0.12


def test_padding_changes_nothing():
    encoder = LstmTextEncoder(30, 10, 14, 12).eval()
    ids = torch.tensor([[3, 4, 5, 0, 0]])
    padded = TextBatch(ids, torch.tensor([[1, 1, 1, 0, 0]]), torch.zeros(1, 0, 5, dtype=torch.bool))
    short = TextBatch(ids[:, :3], torch.ones(1, 3), torch.zeros(1, 0, 3, dtype=torch.bool))
    short = TextBatch(short.ids, short.mask.long(), short.mentions)
    torch.testing.assert_close(encoder(padded), encoder(short))
