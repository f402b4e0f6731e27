"""Calibrate the probabilities of attribute heads by a temperature for each column.

Source: temperature scaling and the expected calibration error of Guo et al. (arXiv 1706.04599).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dqecir.data.cells import UNKNOWN_CODE
from dqecir.methods.attribute_heads import AttributeHeads

_BINS = 15
_TEMPERATURES = torch.logspace(-1.0, 0.7, 120, base=10.0)
"""Temperatures that are tried: 0.1 to 5, in steps of 3 %."""


@dataclass(frozen=True)
class ColumnCalibration:
    """The calibration of a column's head, on pictures outside its training."""

    temperature: float
    """The number by which the head's logits are divided."""
    accuracy: float
    """Share of known values that the head predicts, in percent."""
    calibration_error: float
    """Mean difference between a probability and the share of right values in its bin, in percent."""
    pictures: int
    """Number of pictures whose value is known."""


def calibrate(
    heads: AttributeHeads, tower: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, ColumnCalibration]:
    """Divide each column's logits by the best temperature, by changing the weights of ``heads``.

    Return the calibration of each column. ``batches`` are pixels [B, 3, S, S] and codes [B, C] of the
    columns' values, or ``UNKNOWN_CODE``. As in ``dqecir describe``, probabilities are the mean over a picture
    and its mirror image. Columns without a known value are not changed.
    """
    plain, mirrored, codes = _read(heads, tower, batches)
    found = {}
    for place, column in enumerate(heads.config.columns):
        known = codes[:, place] != UNKNOWN_CODE
        if not bool(known.any()):
            continue
        views, right = torch.stack([plain[column][known], mirrored[column][known]]), codes[known, place]
        losses = [float(F.nll_loss(_mean(views / t).log(), right)) for t in _TEMPERATURES]
        temperature = float(_TEMPERATURES[min(range(len(losses)), key=losses.__getitem__)])
        probabilities = _mean(views / temperature)
        found[column] = ColumnCalibration(
            temperature,
            100 * float((probabilities.argmax(dim=1) == right).float().mean()),
            100 * calibration_error(probabilities, right),
            len(right),
        )
        with torch.no_grad():
            for weight in heads.classifiers[place].parameters():
                weight.div_(temperature)
    return found


def calibration_error(probabilities: Tensor, codes: Tensor) -> float:
    """Return the expected calibration error of the most probable values, over 15 bins of equal width.

    ``probabilities`` [N, K], ``codes`` [N] the right values.
    """
    highest, named = probabilities.max(dim=1)
    bins = (highest * _BINS).long().clamp(max=_BINS - 1)
    gaps = (named == codes).float() - highest
    return float(torch.zeros(_BINS).index_add(0, bins, gaps).abs().sum() / len(codes))


def _mean(views: Tensor) -> Tensor:
    """Turn logits of views [V, N, K] into mean probabilities [N, K]."""
    return views.softmax(dim=2).mean(dim=0)


@torch.no_grad()
def _read(
    heads: AttributeHeads, tower: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor], Tensor]:
    """Return logits of every column for the pictures and for their mirror images, and the codes."""
    heads.eval()
    tower.eval()
    sides: tuple[dict[str, list[Tensor]], ...] = ({}, {})
    codes = []
    for pixels, known in batches:
        for side, seen in zip(sides, (pixels, pixels.flip(3)), strict=True):
            for column, logits in heads(tower(seen)).items():
                side.setdefault(column, []).append(logits.float().cpu())
        codes.append(known)
    plain, mirrored = ({column: torch.cat(parts) for column, parts in side.items()} for side in sides)
    return plain, mirrored, torch.cat(codes) if codes else torch.empty(0, len(heads.config.columns))
