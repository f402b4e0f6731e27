"""Encode attribute values in queries and targets, for each score rule of ``dqe_values``.

:class:`ValueTokens` encodes each column as a token, a distribution, for the rule ``likelihood``.
:class:`ValueSlices` encodes a target in one vector, so that the score is one inner product (rule ``dot``):
the mean of its base vectors, then a slice of numbers for each column. A slice holds log(1 + p/ε) and p of
every value, where p are the column's probabilities and ε is :data:`SMOOTHING`. A query's slice holds
coefficients, whose product with a target's slice approximates log(1 + q·p/ε): the term of ``likelihood``
without a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dqecir.errors import DataError
from dqecir.methods.score_rules import SMOOTHING

MOST_NUMBERS = 512
"""Most numbers of a target of one vector; wide columns are reduced to fit."""

EXAMPLES = 256
"""Number of random distributions of a column, for which coefficients are fitted."""

SHARPNESS = 3.0
"""Standard deviation of the logits of random distributions, which work as well as those of pictures."""

LEAST_WEIGHT = 0.02
"""Weight of an example without wanted values; an example with only wanted values has 1 more."""

RIDGE = 1e-3
"""Regularisation of coefficients towards the expected logarithm."""


class ValueLayout(Protocol):
    """The layout of base vectors and columns of values in query and target embeddings."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of vectors and width (n_t, D) of a target."""

    def targets(self, base: Tensor, shown: Sequence[Tensor]) -> Tensor:
        """Return targets [N, n_t, D] of base vectors [N, t, d] and each column's shares [N, values]."""

    def base(self, base: Tensor) -> Tensor:
        """Return queries [B, n_q, D] that hold only base vectors [B, d]."""

    def pieces(self, wanted: Sequence[Tensor]) -> Tensor:
        """Return the queries of single columns, [B, C, n_q, D], from each column's shares [B, values]."""


@dataclass(frozen=True)
class ValueTokens:
    """Columns are tokens after ``base_tokens`` base vectors, padded with zeros to their ``width``."""

    sizes: tuple[int, ...]
    base_tokens: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Tokens and width of a target."""
        return self.base_tokens + len(self.sizes), self.width

    def targets(self, base: Tensor, shown: Sequence[Tensor]) -> Tensor:
        """Return the base vectors and then a token for each column."""
        return torch.cat([base, self._tokens(shown)], dim=1)

    def base(self, base: Tensor) -> Tensor:
        """Return the base vector as the first of 1 + C vectors."""
        return F.pad(base[:, None], (0, 0, 0, len(self.sizes)))

    def pieces(self, wanted: Sequence[Tensor]) -> Tensor:
        """Return each column's distribution in the vector of its column, [B, C, 1 + C, D]."""
        columns = self._tokens(wanted)
        places = torch.eye(columns.shape[1], dtype=columns.dtype, device=columns.device)
        return F.pad(places, (1, 0))[None, :, :, None] * columns[:, :, None]

    def _tokens(self, columns: Sequence[Tensor]) -> Tensor:
        return torch.stack([F.pad(values, (0, self.width - values.shape[1])) for values in columns], dim=1)


class ValueSlices(nn.Module):
    """One vector: ``width`` base numbers, then a slice for each column, at most ``most`` numbers in all.

    Raises :class:`DataError` if there is no room for one number for each column.
    """

    def __init__(self, sizes: Sequence[int], width: int, most: int = MOST_NUMBERS) -> None:
        super().__init__()
        self.width = width
        widths = slice_widths(sizes, most - width)
        draw = torch.Generator().manual_seed(0)
        self.widths = widths
        self.columns = [ColumnSlice(*pair, draw) for pair in zip(sizes, widths, strict=True)]
        # The type is declared above; this registers it with PyTorch.
        self.slices = nn.ModuleList(self.columns)

    @property
    def shape(self) -> tuple[int, int]:
        """One vector, and its width."""
        return 1, self.width + sum(self.widths)

    def fit(self, shown: Sequence[Tensor]) -> None:
        """Choose the directions that wide columns keep, by each column's shares [N, values] in pictures."""
        for column, values in zip(self.columns, shown, strict=True):
            column.fit(values)

    def target_state(self) -> dict[str, Tensor]:
        """Return the tensors that targets depend on, by name."""
        return {name: value for name, value in self.state_dict().items() if name.endswith("directions")}

    def targets(self, base: Tensor, shown: Sequence[Tensor]) -> Tensor:
        """Return one vector for each target: the mean of the base vectors, and all slices."""
        slices = [column.shown(values) for column, values in zip(self.columns, shown, strict=True)]
        return torch.cat([base.mean(dim=1), *slices], dim=1)[:, None]

    def base(self, base: Tensor) -> Tensor:
        """Return the base vector with empty slices."""
        return F.pad(base, (0, sum(self.widths)))[:, None]

    def pieces(self, wanted: Sequence[Tensor]) -> Tensor:
        """Return the coefficients of each column in its slice, [B, C, 1, D]."""
        return self._placed(
            [column.wanted(values) for column, values in zip(self.columns, wanted, strict=True)]
        )

    def chances(self, wanted: Sequence[Tensor]) -> Tensor:
        """Return the queries [B, C, 1, D] whose score is Σ q·p of one column's shares p and ``wanted`` q."""
        return self._placed(
            [column.chance(values) for column, values in zip(self.columns, wanted, strict=True)]
        )

    def _placed(self, slices: Sequence[Tensor]) -> Tensor:
        """Return each column's slice [B, n] in a vector of its own, [B, C, 1, D]."""
        *starts, whole = torch.tensor([0, *self.widths]).cumsum(0).tolist()
        padded = [
            F.pad(values, (self.width + start, whole - start - values.shape[1]))
            for start, values in zip(starts, slices, strict=True)
        ]
        return torch.stack(padded, dim=1)[:, :, None]

    def parted(self, targets: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Decode targets [N, 1, D] to base vectors [N, d] and distributions [N, values] for each column.

        Those of reduced columns are approximate.
        """
        base, *slices = targets[:, 0].float().split([self.width, *self.widths], dim=1)
        return base, [column.read(values) for column, values in zip(self.columns, slices, strict=True)]


class ColumnSlice(nn.Module):
    """The slice of a column of ``size`` values: 2 · ``size`` numbers, or their ``width`` main directions."""

    def __init__(self, size: int, width: int, draw: torch.Generator) -> None:
        super().__init__()
        self.examples: Tensor
        examples = SHARPNESS * torch.randn(EXAMPLES, size, generator=draw)
        self.register_buffer("examples", examples.softmax(dim=1))
        self.directions: Tensor | None
        self.register_buffer("directions", torch.zeros(2 * size, width) if width < 2 * size else None)
        self.fit(self.examples)

    def fit(self, shown: Tensor) -> None:
        """Choose the main directions of the numbers of distributions [N, values], if not all are kept."""
        if self.directions is not None:
            numbers = _numbers(shown).double()
            # Not centred, so that distributions can be decoded. The last eigenvectors are the main ones.
            kept = torch.linalg.eigh(numbers.T @ numbers).eigenvectors[:, -self.directions.shape[1] :]
            self.directions.copy_(kept.flip(1))

    def shown(self, values: Tensor) -> Tensor:
        """Return slices of targets from distributions [N, values]."""
        return self._reduced(_numbers(values))

    def wanted(self, values: Tensor) -> Tensor:
        """Return the slice [B, n] of each query, from the distribution q [B, values] of its wanted value.

        Its inner product with the slice of a target of distribution p approximates log(1 + q·p/ε), where ε
        is ``SMOOTHING``: from the expected logarithm Σ q log(1 + p/ε), corrected by weighted least squares
        on the examples, of which those with wanted values count most.
        """
        with torch.autocast(values.device.type, enabled=False):
            values = values.float()
            fits = values @ self.examples.T  # [B, S]
            start = self._reduced(torch.cat([values, torch.zeros_like(values)], dim=1))  # [B, n]
            seen = self._reduced(_numbers(self.examples))  # [S, n]
            lacking = (fits / SMOOTHING).log1p() - start @ seen.T
            seen = F.pad(seen, (0, 1), value=1.0)  # and a constant, which does not change the ranking
            weights = fits + SMOOTHING + LEAST_WEIGHT
            weights = weights / weights.sum(dim=1, keepdim=True)
            weighted = (weights[:, :, None] * seen).transpose(1, 2)  # [B, n + 1, S]
            ridge = RIDGE * torch.eye(seen.shape[1], device=seen.device)
            added = torch.linalg.solve(weighted @ seen + ridge, weighted @ lacking[:, :, None])
            return start + added[:, :-1, 0]

    def chance(self, values: Tensor) -> Tensor:
        """Return slices [B, n] of shares q [B, values]; their inner products with a target's are Σ q·p."""
        values = values.float()
        return self._reduced(torch.cat([torch.zeros_like(values), values], dim=1))

    def read(self, slices: Tensor) -> Tensor:
        """Return distributions [N, values] from slices of targets."""
        numbers = slices if self.directions is None else slices @ self.directions.T
        shares = SMOOTHING * numbers[:, : self.examples.shape[1]].clamp(min=0).expm1()
        return shares / shares.sum(dim=1, keepdim=True).clamp(min=SMOOTHING)

    def _reduced(self, numbers: Tensor) -> Tensor:
        if self.directions is None:
            return numbers
        with torch.autocast(numbers.device.type, enabled=False):
            return numbers @ self.directions


@dataclass(frozen=True)
class SlicedValues:
    """The data that make the column queries of :class:`ValueSlices` for other wanted values."""

    layout: ValueSlices
    scales: Tensor
    """[C] weight of each column in its piece."""
    firmness: Tensor | None = None
    """[B, C] what a target gains where it surely shows the wanted values, besides their logarithms."""

    def pieces(self, wanted: Sequence[Tensor]) -> Tensor:
        """Return the queries of single columns, [B, C, 1, D], from each column's shares [B, values]."""
        pieces = self.scales[:, None, None] * self.layout.pieces(wanted)
        return pieces if self.firmness is None else pieces + self.firm(wanted, self.firmness)

    def firm(self, wanted: Sequence[Tensor], firmness: Tensor) -> Tensor:
        """Return what ``firmness`` [B, C] adds to the pieces."""
        return (self.scales * firmness)[:, :, None, None] * self.layout.chances(wanted)


def slice_widths(sizes: Sequence[int], room: int) -> tuple[int, ...]:
    """Share ``room`` numbers among columns of ``sizes`` values: two a value.

    If these are too many, the widest columns get equally many, and fewer. Raises :class:`DataError` if not
    every column gets one.
    """
    whole = [2 * size for size in sizes]
    fitting = [most for most in range(1, max(whole) + 1) if sum(min(n, most) for n in whole) <= room]
    if not fitting:
        raise DataError(
            f"{len(sizes)} columns do not fit into the {max(room, 0)} numbers that the base vector leaves of "
            "a picture's vector: name fewer columns"
        )
    return tuple(min(n, fitting[-1]) for n in whole)


def _numbers(values: Tensor) -> Tensor:
    """Return the full numbers of a slice [N, 2 · values]: log(1 + p/ε) and p of each value."""
    values = values.float()
    return torch.cat([(values / SMOOTHING).log1p(), values], dim=1)
