"""The text encoder of early methods: an LSTM over learned word embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dqecir.encoders.encoder import TextBatch


class LstmTextEncoder(nn.Module):
    """Word embeddings, one LSTM layer, its output at the last word, dropout, a linear layer.

    Source: the published codes of TIRG (arXiv 1812.07119) and CoSMo (CVPR 2021).
    """

    def __init__(self, words: int, word_size: int, hidden_size: int, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, word_size)
        self.lstm = nn.LSTM(word_size, hidden_size, batch_first=True)
        self.dropout = nn.Dropout(0.1)
        self.output = nn.Linear(hidden_size, size)

    def forward(self, text: TextBatch) -> Tensor:
        """Return features of texts, float [B, ``size``], not normalised."""
        states, _ = self.lstm(self.embedding(text.ids))
        last = text.mask.sum(dim=1) - 1
        features: Tensor = self.output(self.dropout(states[torch.arange(len(last)), last]))
        return features.float()
