"""EfficientNet-Lite: the network without its classifier.

Sources: EfficientNet (Tan and Le, arXiv 1905.11946); the Lite variants leave out squeeze-and-excitation, use
ReLU6, and do not scale the stem, the head and the repeats of the first and the last stage.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

Variant = Literal["lite0", "lite1", "lite2"]

STRIDE = 32
"""Pixels of the picture for each place of the last map, in each direction."""
HEAD_WIDTH = 1280
"""Number of channels of the last map."""

_SCALES: dict[Variant, tuple[float, float]] = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
"""Variant -> factors of the width and of the depth."""
_STAGES = (
    # repeats, kernel, stride, expansion, width
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM = 32
_EPSILON, _MOMENTUM = 1e-3, 0.01


class ConvNorm(nn.Module):
    """A convolution with TensorFlow's ``same`` padding, batch normalisation, and ReLU6 if ``acts``."""

    def __init__(
        self, width_in: int, width: int, kernel: int, stride: int = 1, groups: int = 1, acts: bool = True
    ) -> None:
        super().__init__()
        # With stride 2, an even side is padded by one pixel less at its beginning than at its end.
        before, behind = (kernel - stride) // 2, (kernel - 1) // 2
        self.padding = (before, behind, before, behind) if before != behind else None
        self.conv = nn.Conv2d(
            width_in, width, kernel, stride, 0 if self.padding else behind, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(width, eps=_EPSILON, momentum=_MOMENTUM)
        self.acts = acts

    def forward(self, features: Tensor) -> Tensor:
        """Return [B, C', H/stride, W/stride] for features [B, C, H, W].

        H and W are multiples of the stride.
        """
        if self.padding:
            features = F.pad(features, self.padding)
        normalised: Tensor = self.norm(self.conv(features))
        return F.relu6(normalised) if self.acts else normalised


class InvertedBlock(nn.Module):
    """Widen, filter each channel, narrow (MBConv).

    If input and output have the same shape, the input is added to the output.
    """

    def __init__(self, width_in: int, width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width_in * expansion
        self.expand = ConvNorm(width_in, inner, 1) if expansion > 1 else None
        self.depthwise = ConvNorm(inner, inner, kernel, stride, groups=inner)
        self.project = ConvNorm(inner, width, 1, acts=False)
        self.has_shortcut = stride == 1 and width_in == width

    def forward(self, features: Tensor) -> Tensor:
        """Return [B, C', H/stride, W/stride] for features [B, C, H, W]."""
        inner = features if self.expand is None else self.expand(features)
        narrowed: Tensor = self.project(self.depthwise(inner))
        return features + narrowed if self.has_shortcut else narrowed


class EfficientNetLite(nn.Module):
    """An EfficientNet-Lite without its classifier."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        width_factor, depth_factor = _SCALES[variant]
        self.stem = ConvNorm(3, _STEM, 3, 2)
        blocks: list[nn.Module] = []
        self.ends: list[int] = []
        """Number of blocks up to the end of each stage."""
        self.widths = [_scaled_width(stage[-1], width_factor) for stage in _STAGES]
        width = _STEM
        for place, (repeats, kernel, stride, expansion, _) in enumerate(_STAGES):
            if 0 < place < len(_STAGES) - 1:
                repeats = math.ceil(repeats * depth_factor)
            for repeat in range(repeats):
                blocks.append(
                    InvertedBlock(width, self.widths[place], kernel, 1 if repeat else stride, expansion)
                )
                width = self.widths[place]
            self.ends.append(len(blocks))
        self.blocks = nn.ModuleList(blocks)
        self.head = ConvNorm(width, HEAD_WIDTH, 1)

    def stages(self, pixels: Tensor) -> list[Tensor]:
        """Return the maps of all seven stages, and the head's [B, 1280, S/32, S/32], for pixels [B, 3, S, S].

        The stages have strides 2, 4, 8, 16, 16, 32 and 32; S must be a multiple of 32.
        """
        features = self.stem(pixels)
        maps = []
        for count, block in enumerate(self.blocks, 1):
            features = block(features)
            if count in self.ends:
                maps.append(features)
        return [*maps, self.head(features)]


def _scaled_width(width: int, factor: float) -> int:
    """Return ``width`` times ``factor``, rounded to a multiple of 8, but at most a tenth smaller."""
    scaled = max(8, int(width * factor + 4) // 8 * 8)
    return scaled + 8 if scaled < 0.9 * width * factor else scaled
