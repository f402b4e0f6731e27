"""Open the model of an index: a model folder, or the encoder that the index names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from dqecir.errors import DataError, EngineError
from dqecir.methods.method import Method, method_named
from dqecir.model.composed_model import SHIPPED_MODEL, ComposedModel
from dqecir.model.maker import Maker, read_learned, read_maker
from dqecir.model.public_weights import model_of

UNTRAINED = (
    "basic",
    "dual_values",
    "image_only",
    "image_plus_text",
    "product",
    "read_together",
    "text_only",
    "token_mean",
)
"""Names of the methods that need neither training nor attribute heads."""


def untrained(encoder: str, method: str | None, options: Mapping[str, Any]) -> tuple[ComposedModel, Maker]:
    """Return a model of an encoder and an untrained method, and its description for storing with an index.

    ``encoder`` is a hub name or a folder. Default of ``method``: ``image_plus_text``; ``read_together`` for
    an encoder that reads texts only together with images; ``token_mean`` for one that reads none.
    ``options`` are those of the method. Raises :class:`DataError` for a method that must be trained first,
    or that needs more than the encoder provides.
    """
    if method is not None and method_named(method).name not in UNTRAINED:
        names = ", ".join(UNTRAINED)
        raise DataError(f"{method} must be trained first (dqecir train): compose without training by {names}")
    start = model_of(encoder)
    # A model folder of ours is identified only by its path.
    place = encoder if encoder == SHIPPED_MODEL else str(Path(encoder).expanduser().resolve())
    source = start.backbone.origin.source or place
    licence = start.backbone.origin.licence
    maker = Maker(encoder=source, licence=licence, method=method or start.method.name, options=dict(options))
    return start.with_method(maker.method, options).eval(), maker


def model_of_index(index: Path, model: Path | str | None = None) -> ComposedModel:
    """Return the model to search ``index`` with: that of the folder ``model``.

    Default: the encoder that the index stores, else the shipped model.

    Raises :class:`DataError` with the reason if the model cannot be read.
    """
    maker = read_maker(index) if model is None else None
    if maker is None:
        return ComposedModel.from_pretrained(model)
    found, _ = untrained(maker.encoder, maker.method, maker.options)
    if found.method.learns_gallery:
        load_learned(found.method, read_learned(index), index)
    return found


def learned_of(method: Method) -> dict[str, NDArray[Any]]:
    """Return the arrays that a method learned from a gallery's pictures, by name; empty if it learns none."""
    if not method.learns_gallery:
        return {}
    return {name: value.cpu().numpy() for name, value in _learned_tensors(method).items()}


def load_learned(method: Method, learned: Mapping[str, NDArray[Any]], index: Path) -> None:
    """Load arrays that were learned from the gallery of ``index`` into ``method``.

    Raises :class:`EngineError` if they belong to another method.
    """
    wanted = _learned_tensors(method)
    if {name: value.shape for name, value in learned.items()} != {k: v.shape for k, v in wanted.items()}:
        raise EngineError(f"{index} contains the learned data of another method: build the index again")
    for name, value in learned.items():
        wanted[name].copy_(torch.from_numpy(value))


def _learned_tensors(method: Method) -> dict[str, Tensor]:
    return {name: value for name, value in method.state_dict().items() if not name.startswith("backbone.")}
