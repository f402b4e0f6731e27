"""The number types that tokens are kept in, and what each of them costs."""

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
    """Tokens as they are kept: ``codes`` [..., W], and ``scales`` [...] float32 or None."""

    codes: Tensor
    scales: Tensor | None = None

    def decoded(self) -> Tensor:
        """Return tokens [..., W] float32."""
        tokens = self.codes.float()
        return tokens if self.scales is None else tokens.mul_(self.scales[..., None])

    def relative_error(self, tokens: Tensor) -> Tensor:
        """||kept - token|| / ||token|| [...] of the ``tokens`` [..., W] that these codes stand for.

        A token that cannot be kept (not a number, or too large) has an error that is not finite.
        """
        # By the largest number first: the square of a large one would overflow.
        peak = tokens.abs().amax(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        unit = tokens / peak
        return (self.decoded() / peak - unit).norm(dim=-1) / unit.norm(dim=-1).clamp(min=1.0)


@dataclass(frozen=True)
class Precision:
    """One way to keep tokens."""

    code: str
    """NumPy's name of the number type."""
    scaled: bool
    """Whether every token has a scale of its own."""
    encode: Callable[[Tensor], Coded]
    """Tokens [..., W] float32 to what is kept."""

    def row(self, views: int, tokens: int, width: int) -> np.dtype[Any]:
        """Return one image on disk: ``codes`` [V, M, W], then ``scales`` [V, M] where there are any."""
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
