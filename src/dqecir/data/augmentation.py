"""Make random views of pictures, on batches of tensors.

A view is rotated, shifted and lit a little differently, and a rectangle of it may be erased. The changes are
small, so that the attributes of the picture should stay true: channel gains, for example, stay within 5 %.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def random_views(
    pixels: Tensor, generator: torch.Generator, strength: float = 1.0, light: float | None = None
) -> Tensor:
    """Return one random view of each image; ``pixels`` and the result are [B, 3, S, S] in 0..1.

    Rotation ±12°, scale ±15 %, aspect ±10 %, shift ±8 %, mirror; brightness, contrast and saturation ±20 %,
    channel gain ±5 %. In half of the images, a rectangle with sides of 10 to 30 % of S is filled with one
    random colour. ``light`` multiplies the changes of light and colour, ``strength`` the other changes (the
    rectangle's sides by at most 1). Default of ``light``: ``strength``. ``generator`` draws the changes.
    """
    views = _moved(pixels, generator, strength)
    views = _lit(views, generator, strength if light is None else light)
    return _erased(views, generator, strength).clamp(0, 1)


def _uniform(rows: int, reach: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(rows, generator=generator) * 2 - 1) * reach


def _moved(pixels: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    rows = pixels.shape[0]
    angle = _uniform(rows, math.radians(12) * strength, generator)
    scale = torch.exp(_uniform(rows, 0.15 * strength, generator))
    aspect = torch.exp(_uniform(rows, 0.10 * strength, generator))
    mirror = torch.where(torch.rand(rows, generator=generator) < 0.5, -1.0, 1.0)
    shift = torch.stack([_uniform(rows, 0.16 * strength, generator) for _ in range(2)], dim=1)
    cosine, sine = angle.cos(), angle.sin()
    matrix = torch.stack(
        [
            torch.stack([mirror * scale * aspect * cosine, -scale * aspect * sine, shift[:, 0]], dim=1),
            torch.stack([mirror * scale / aspect * sine, scale / aspect * cosine, shift[:, 1]], dim=1),
        ],
        dim=1,
    )  # [B, 2, 3]
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def _lit(pixels: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    rows = pixels.shape[0]

    def factor(reach: float) -> Tensor:
        return 1 + _uniform(rows, reach * strength, generator)[:, None, None, None]

    gain = 1 + (torch.rand(rows, 3, 1, 1, generator=generator) * 2 - 1) * 0.05 * strength
    lit = pixels * factor(0.2) * gain
    mean = lit.mean(dim=(1, 2, 3), keepdim=True)
    lit = mean + (lit - mean) * factor(0.2)
    grey = lit.mean(dim=1, keepdim=True)
    return grey + (lit - grey) * factor(0.2)


def _erased(pixels: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    rows, side = pixels.shape[0], pixels.shape[2]
    extent = (0.1 + 0.2 * torch.rand(rows, 2, generator=generator)) * side * min(strength, 1.0)
    start = torch.rand(rows, 2, generator=generator) * (side - extent)
    chosen = torch.rand(rows, generator=generator) < 0.5
    places = torch.arange(side)
    within = (places >= start[..., None]) & (places < (start + extent)[..., None])  # [B, 2, S]
    hole = within[:, 0, :, None] & within[:, 1, None, :] & chosen[:, None, None]
    filling = torch.rand(rows, 3, 1, 1, generator=generator)
    return torch.where(hole[:, None], filling, pixels)
