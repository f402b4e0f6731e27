"""Calibrate the probabilities of attribute heads with one temperature for each column.

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
"""Temperatures that are tried: from 0.1 to 5, in steps of about 3 %."""


@dataclass(frozen=True)
class ColumnCalibration:
    """The calibration of one column's head, measured on pictures that did not train it."""

    temperature: float
    """Number by which the logits of the head are divided."""
    accuracy: float
    """Share of the known values that the head predicts rightly, in percent."""
    calibration_error: float
    """Mean difference between the predicted probability and the share of right values in its bin, in
    percent."""
    pictures: int
    """Number of pictures whose value in this column is known."""


def calibrate(
    heads: AttributeHeads, tower: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, ColumnCalibration]:
    """Divide each column's logits by the best temperature, by changing the weights of ``heads``.

    Returns column -> its calibration. ``batches`` are pixels [B, 3, S, S] and codes [B, C]: the place of the
    right value among those of each column, or ``UNKNOWN_CODE``. As in ``dqecir describe``, probabilities are
    the mean over a picture and its mirror image. A column without any known value is not changed, and not in
    the result.
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

    ``probabilities`` [N, K]; ``codes`` [N] are the right values. The result is from 0 to 1.
    """
    highest, named = probabilities.max(dim=1)
    bins = (highest * _BINS).long().clamp(max=_BINS - 1)
    gaps = (named == codes).float() - highest
    return float(torch.zeros(_BINS).index_add(0, bins, gaps).abs().sum() / len(codes))


def _mean(views: Tensor) -> Tensor:
    """Return mean probabilities [N, K] over views, from logits [V, N, K]."""
    return views.softmax(dim=2).mean(dim=0)


@torch.no_grad()
def _read(
    heads: AttributeHeads, tower: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor], Tensor]:
    """Return column -> logits of all pictures, the same of their mirror images, and the codes [N, C].

    ``batches`` as in :func:`calibrate`.
    """
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
