"""Where the weights of a reproduction come from, and how pictures are prepared for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dqecir.data.annotations import read_json
from dqecir.data.images import Preprocessing
from dqecir.io.device import chosen_device
from dqecir.methods.method import Method, method_named
from dqecir.model.composed_model import ComposedModel
from dqecir.model.public_weights import model_of


def start_of(weights: str, kind: type[Method]) -> ComposedModel:
    """The untrained model of ``weights``, where this process computes, for a method of ``kind``.

    Public weights squash their pictures; where the method's publication pads and crops them, so does
    this. Raises as :func:`model_of`.
    """
    model = model_of(weights)
    if model.preprocessing.squash and not kind.published_squash:
        model = replace(model, preprocessing=model.preprocessing.model_copy(update={"squash": False}))
    return model.to(chosen_device()).eval()


def kind_in(folder: Path) -> type[Method]:
    """The method of a model folder; raises :class:`DataError` where it is not known."""
    return method_named(str(read_json(folder / "config.json", "a model's settings").get("method")))


def in_words(preprocessing: Preprocessing) -> str:
    """How pictures become squares."""
    if preprocessing.squash:
        return f"squashed to {preprocessing.size} pixels"
    return f"padded to {preprocessing.pad_ratio:g}, resized, cropped to {preprocessing.size} pixels"
