"""An image tower as an encoder: it gives image tokens, but no embeddings of images or texts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dqecir.encoders.encoder import Encoder, EncoderSizes, register_encoder
from dqecir.encoders.towers import TowerConfig, build_tower


@register_encoder("tower")
class Tower(Encoder):
    """A frozen image tower; attribute heads and some methods use its tokens."""

    config_type = TowerConfig
    provides = frozenset({"tokens"})
    config: TowerConfig

    def __init__(self, config: TowerConfig) -> None:
        super().__init__(config)
        self.tower = build_tower(config)
        self.sizes = EncoderSizes(
            image=config.image_size,
            token_count=config.token_count,
            token_width=config.token_width,
            grid_side=config.grid_side,
        )
        self.temperature = nn.Parameter(torch.tensor(0.07))

    @property
    def untraced(self) -> list[Any]:
        return [self.config.untraced]
