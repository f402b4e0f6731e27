"""The number types in which tokens are stored, and their errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

PrecisionName = Literal["fp16", "int8"]


@dataclass(frozen=True)
class Coded:
    """Stored tokens: ``codes`` [..., W], and for some number types a scale for each token [...]."""

    codes: Tensor
    scales: Tensor | None = None

    def decoded(self) -> Tensor:
        """Return the tokens [..., W] in float32."""
        tokens = self.codes.float()
        return tokens if self.scales is None else tokens.mul_(self.scales[..., None])

    def relative_error(self, tokens: Tensor) -> Tensor:
        """Return ||stored - token|| / ||token|| [...] for the original ``tokens`` [..., W].

        It is not finite for a token that cannot be stored (NaN, or too large).
        """
        # Divide by the largest number first, because the square of a large number would overflow.
        peak = tokens.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        unit = tokens / peak
        return (self.decoded() / peak - unit).norm(dim=-1) / unit.norm(dim=-1).clamp(min=1.0)


@dataclass(frozen=True)
class Precision:
    """A number type in which tokens can be stored."""

    code: str
    """NumPy's name of the number type."""
    scaled: bool
    """Whether every token has its own scale."""
    encode: Callable[[Tensor], Coded]
    """Turns tokens [..., W] in float32 into stored tokens."""

    def row(self, views: int, tokens: int, width: int) -> np.dtype[Any]:
        """Return numpy's type of an image on disk: ``codes`` [V, M, W], then ``scales`` [V, M], if any."""
        fields: list[tuple[str, str, tuple[int, ...]]] = [("codes", self.code, (views, tokens, width))]
        if self.scaled:
            fields.append(("scales", "<f4", (views, tokens)))
        return np.dtype(fields)


def _half(tokens: Tensor) -> Coded:
    return Coded(tokens.half())


def _int8(tokens: Tensor) -> Coded:
    scales = tokens.abs().amax(dim=-1) / 127
    steps = scales.clamp(min=torch.finfo(torch.float32).tiny)
    return Coded((tokens / steps[..., None]).round().to(torch.int8), scales)


PRECISIONS: dict[PrecisionName, Precision] = {
    "fp16": Precision("<f2", scaled=False, encode=_half),
    "int8": Precision("|i1", scaled=True, encode=_int8),
}
