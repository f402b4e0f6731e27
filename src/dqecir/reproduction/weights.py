"""Where the weights of a reproduction come from."""

from __future__ import annotations

from dqecir.model import ComposedModel
from dqecir.public_weights import model_of
from dqecir.reproduction.measuring import device


def start_of(weights: str) -> ComposedModel:
    """The untrained model of ``weights``, where this process computes; raises as :func:`model_of`."""
    return model_of(weights).to(device()).eval()
