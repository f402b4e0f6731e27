"""Predict the attributes of pictures with a model's image tower and attribute heads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from dqecir.data.images import Preprocessing
from dqecir.errors import DataError
from dqecir.io.device import chosen_device
from dqecir.methods.attribute_heads import AttributeHeads
from dqecir.model.composed_model import ComposedModel


@dataclass
class Describer:
    """An image tower, the attribute heads that read its tokens, and the preprocessing of pictures."""

    tower: nn.Module
    heads: AttributeHeads
    preprocessing: Preprocessing

    @classmethod
    def of(cls, model: ComposedModel) -> Self:
        """Return the describer of a model; raises :class:`DataError` if the model has no heads."""
        if model.heads is None:
            raise DataError("this model has no attribute heads: choose another --model")
        return cls(model.backbone.tower, model.heads, model.preprocessing)

    @classmethod
    def from_pretrained(cls, folder: Path | None = None) -> Self:
        """Read tower and heads of a model folder, onto the device of :func:`chosen_device`.

        Default: the shipped model.

        Raises :class:`DataError` if the model has no heads, and as :meth:`ComposedModel.from_pretrained`
        does.
        """
        found = cls.of(ComposedModel.from_pretrained(folder))
        found.tower.to(chosen_device())
        found.heads.to(chosen_device())
        return found

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return column -> probabilities of its values [B, values], for normalised pixels [B, 3, S, S].

        They are the mean over each picture and its mirror image.
        """
        pixels = pixels.to(self.heads.queries.device)
        views = [self.heads(self.tower(view)) for view in (pixels, pixels.flip(3))]
        return {
            column: torch.stack([view[column].float().softmax(dim=1) for view in views]).mean(dim=0)
            for column in self.heads.config.columns
        }
