"""Where the weights of a reproduction come from."""

from __future__ import annotations

from pathlib import Path

from dqecir.model import ComposedModel
from dqecir.reproduction.measuring import device


def start_of(weights: str) -> ComposedModel:
    """The untrained model in the folder ``weights``, where this process computes."""
    return ComposedModel.from_pretrained(Path(weights)).to(device()).eval()
