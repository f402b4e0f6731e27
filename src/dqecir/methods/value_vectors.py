"""How queries and targets contain attribute values, for each score rule of ``dqe_values``.

For the rule ``likelihood``, :class:`ValueTokens` adds one token for each column: the distribution of its
values. For the rule ``dot``, :class:`ValueSlices` makes one vector, so that the score is one inner product:
the mean of the base vectors, then a slice of numbers for each column. A target's slice holds log(1 + p/ε) and
p of every value, where p are the column's probabilities and ε is :data:`SMOOTHING`. A query's slice holds
coefficients; their product with a target's slice approximates log(1 + q·p/ε), which is the term of
``likelihood`` up to a constant.
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
"""Largest size of a target's vector; columns with many values are reduced to fit."""

EXAMPLES = 256
"""Number of random distributions of a column's values, to which coefficients are fitted."""

SHARPNESS = 3.0
"""Standard deviation of the logits of the random distributions (:data:`EXAMPLES`), which work as well as
distributions of pictures."""

LEAST_WEIGHT = 0.02
"""Weight, in fitting coefficients, of an example that shows no wanted value. The probability of wanted values
in an example is added to it."""

RIDGE = 1e-3
"""Ridge penalty in fitting a query's coefficients; it keeps them near those of the expected logarithm."""


class ValueLayout(Protocol):
    """How base vectors and the values of columns are laid out in query and target embeddings."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of vectors and width (n_t, D) of a target."""

    def targets(self, base: Tensor, shown: Sequence[Tensor]) -> Tensor:
        """Return targets [N, n_t, D] from base vectors [N, t, d] and the values that images show.

        ``shown``: for each column the probabilities of its values [N, values].
        """

    def base(self, base: Tensor) -> Tensor:
        """Return queries [B, n_q, D] that contain only base vectors [B, d], and no values."""

    def pieces(self, wanted: Sequence[Tensor]) -> Tensor:
        """Return the part of each column in queries, [B, C, n_q, D].

        ``wanted``: for each column the probabilities of its wanted values [B, values].
        """


@dataclass(frozen=True)
class ValueTokens:
    """For the rule ``likelihood``: each column is a token after ``base_tokens`` base vectors.

    Tokens are padded with zeros to ``width``; ``sizes`` are the numbers of values.
    """

    sizes: tuple[int, ...]
    base_tokens: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Number of tokens and width (n_t, D) of a target."""
        return self.base_tokens + len(self.sizes), self.width

    def targets(self, base: Tensor, shown: Sequence[Tensor]) -> Tensor:
        """Return the base vectors [N, t, D], followed by a token for each column."""
        return torch.cat([base, self._tokens(shown)], dim=1)

    def base(self, base: Tensor) -> Tensor:
        """Return queries [B, 1 + C, D]: the base vector [B, D] is the first vector, the others are zero."""
        return F.pad(base[:, None], (0, 0, 0, len(self.sizes)))

    def pieces(self, wanted: Sequence[Tensor]) -> Tensor:
        """Return for each column its distribution in its own vector, [B, C, 1 + C, D].

        All other vectors are zero.
        """
        columns = self._tokens(wanted)
        places = torch.eye(columns.shape[1], dtype=columns.dtype, device=columns.device)
        return F.pad(places, (1, 0))[None, :, :, None] * columns[:, :, None]

    def _tokens(self, columns: Sequence[Tensor]) -> Tensor:
        return torch.stack([F.pad(values, (0, self.width - values.shape[1])) for values in columns], dim=1)


class ValueSlices(nn.Module):
    """For the rule ``dot``: one vector of ``width`` base numbers and a slice for each column.

    It has at most ``most`` numbers in all. Raises :class:`DataError` if there is no room for one number for
    each column.
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
        """(1, D): one vector of width D."""
        return 1, self.width + sum(self.widths)

    def fit(self, shown: Sequence[Tensor]) -> None:
        """Choose the directions that reduced columns keep, from each column's probabilities [N, values]."""
        for column, values in zip(self.columns, shown, strict=True):
            column.fit(values)

    def target_state(self) -> dict[str, Tensor]:
        """Return the tensors that target embeddings depend on, by name."""
        return {name: value for name, value in self.state_dict().items() if name.endswith("directions")}

    def targets(self, base: Tensor, shown: Sequence[Tensor]) -> Tensor:
        """Return one vector for each target: the mean of its base vectors, and the slices of all columns."""
        slices = [column.shown(values) for column, values in zip(self.columns, shown, strict=True)]
        return torch.cat([base.mean(dim=1), *slices], dim=1)[:, None]

    def base(self, base: Tensor) -> Tensor:
        """Return queries [B, 1, D]: the base vectors [B, d], and zeros in all slices."""
        return F.pad(base, (0, sum(self.widths)))[:, None]

    def pieces(self, wanted: Sequence[Tensor]) -> Tensor:
        """Return the coefficients of each column in its slice, [B, C, 1, D]; all other numbers are zero."""
        return self._placed(
            [column.wanted(values) for column, values in zip(self.columns, wanted, strict=True)]
        )

    def chances(self, wanted: Sequence[Tensor]) -> Tensor:
        """Return queries [B, C, 1, D], one for each column, whose score with a target is Σ q·p.

        q is the column's ``wanted`` distribution [B, values], p the target's.
        """
        return self._placed(
            [column.chance(values) for column, values in zip(self.columns, wanted, strict=True)]
        )

    def _placed(self, slices: Sequence[Tensor]) -> Tensor:
        """Return each column's slice [B, n] at its place in a vector of its own, [B, C, 1, D]."""
        *starts, whole = torch.tensor([0, *self.widths]).cumsum(0).tolist()
        padded = [
            F.pad(values, (self.width + start, whole - start - values.shape[1]))
            for start, values in zip(starts, slices, strict=True)
        ]
        return torch.stack(padded, dim=1)[:, :, None]

    def parted(self, targets: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Decode targets [N, 1, D]: base vectors [N, d], and for each column its distribution [N, values].

        The distributions of reduced columns are approximate.
        """
        base, *slices = targets[:, 0].float().split([self.width, *self.widths], dim=1)
        return base, [column.read(values) for column, values in zip(self.columns, slices, strict=True)]


class ColumnSlice(nn.Module):
    """The slice of a column with ``size`` values: 2 · ``size`` numbers, reduced to ``width`` if that is less.

    ``draw`` draws the examples to which the coefficients of queries are fitted.
    """

    def __init__(self, size: int, width: int, draw: torch.Generator) -> None:
        super().__init__()
        self.examples: Tensor
        examples = SHARPNESS * torch.randn(EXAMPLES, size, generator=draw)
        self.register_buffer("examples", examples.softmax(dim=1))
        self.directions: Tensor | None
        self.register_buffer("directions", torch.zeros(2 * size, width) if width < 2 * size else None)
        self.fit(self.examples)

    def fit(self, shown: Tensor) -> None:
        """Choose the main directions of distributions [N, values], if the slice cannot hold all numbers."""
        if self.directions is not None:
            numbers = _numbers(shown).double()
            # The mean stays, so that distributions can be decoded. The last eigenvectors are the main ones.
            kept = torch.linalg.eigh(numbers.T @ numbers).eigenvectors[:, -self.directions.shape[1] :]
            self.directions.copy_(kept.flip(1))

    def shown(self, values: Tensor) -> Tensor:
        """Return the slices [N, n] of targets with distributions [N, values]."""
        return self._reduced(_numbers(values))

    def wanted(self, values: Tensor) -> Tensor:
        """Return the slices [B, n] of queries, for distributions q [B, values] of wanted values.

        The inner product with the slice of a target with distribution p approximates log(1 + q·p/ε), where ε
        is ``SMOOTHING``. The coefficients start from the expected logarithm Σ q log(1 + p/ε), and are
        corrected by weighted least squares on random examples; those with wanted values weigh most.
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
        """Return the slices [B, n] of queries whose inner product with a target's slice is Σ q·p.

        ``values`` [B, values] are q.
        """
        values = values.float()
        return self._reduced(torch.cat([torch.zeros_like(values), values], dim=1))

    def read(self, slices: Tensor) -> Tensor:
        """Decode slices [N, n] of targets to distributions [N, values]."""
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
    """What is needed to make the pieces of :class:`ValueSlices` again for other wanted values."""

    layout: ValueSlices
    scales: Tensor
    """[C]: weight of each column in its piece."""
    firmness: Tensor | None = None
    """[B, C]: what a target gains if it surely shows the wanted values, besides the logarithm; None:
    nothing."""

    def pieces(self, wanted: Sequence[Tensor]) -> Tensor:
        """Return the part of each column in queries, [B, C, 1, D], from its wanted values [B, values]."""
        pieces = self.scales[:, None, None] * self.layout.pieces(wanted)
        return pieces if self.firmness is None else pieces + self.firm(wanted, self.firmness)

    def firm(self, wanted: Sequence[Tensor], firmness: Tensor) -> Tensor:
        """Return what ``firmness`` [B, C] adds to the pieces, [B, C, 1, D]."""
        return (self.scales * firmness)[:, :, None, None] * self.layout.chances(wanted)


def slice_widths(sizes: Sequence[int], room: int) -> tuple[int, ...]:
    """Return how many of ``room`` numbers each column gets: two for each of its values.

    ``sizes`` are the columns' numbers of values. If there is not enough room, the widest columns are reduced
    to the same width. Raises :class:`DataError` if some column would get no number.
    """
    whole = [2 * size for size in sizes]
    fitting = [most for most in range(1, max(whole) + 1) if sum(min(n, most) for n in whole) <= room]
    if not fitting:
        raise DataError(
            f"{len(sizes)} columns do not fit into the {max(room, 0)} numbers that a picture's vector has "
            "besides its base vector: name fewer columns"
        )
    return tuple(min(n, fitting[-1]) for n in whole)


def _numbers(values: Tensor) -> Tensor:
    """Return all numbers of a slice [N, 2 · values]: log(1 + p/ε) and p of each value."""
    values = values.float()
    return torch.cat([(values / SMOOTHING).log1p(), values], dim=1)
