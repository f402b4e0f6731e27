"""Choose the negatives of queries: pure functions from scores to candidates.

The target-relative score of a candidate is Δ = s(q, target) - s(q, candidate) (docs/method.md, E6): small if
the candidate scores almost like the target. The mid-zone (E7) has the candidates that are neither easy (large
Δ) nor likely right answers (Δ near or below zero). ``steepest_drops`` is QuRe's rule.

Shapes: Q queries, N candidates, K negatives. ``eligible`` [Q, N] bool marks the candidates that may be drawn
(not the target, and not known right answers if they are left out).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from dqecir.settings import Strict

ZoneLimits = tuple[Tensor, Tensor]
Window = tuple[int, int]

POOL_SIZE = 256
"""Largest number of negatives that are kept for a query from one refresh to the next."""


class NegativeSampling(Strict):
    """Settings for choosing negatives; what the publication leaves open is an option."""

    removed_keys: ClassVar[Mapping[str, object]] = {"pool_size": POOL_SIZE}
    removed_values: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "bounds": ("calibrated", "follower_quantile"),
        "empty": ("widen",),
    }

    choose: Literal["mid_zone", "steepest_drops", "around_target", "random", "none"] = "mid_zone"
    bounds: Literal["absolute", "temperature", "quantile"] = "absolute"
    low: float = 0.05
    """Lower bound of the mid-zone, inclusive. By ``bounds`` it is a Δ (score of the target less that of the
    candidate), a Δ divided by the temperature τ, or a share of the ranking from 0 to 1."""
    high: float = 0.15
    empty: Literal["nearest", "random", "previous"] = "nearest"
    """What replaces an empty mid-zone: the ``fallback_size`` candidates ``nearest`` to it, or all candidates
    (``random``). If ``steepest_drops`` finds no two drops, it takes all candidates; with ``previous`` it
    takes the ranks of the previous query's window, as QuRe's code does."""
    fallback_size: int = Field(default=8, gt=0)
    around: int = Field(default=16, gt=0)
    """With ``around_target``: number of candidates ranked just before the target, and as many just after
    it."""
    count: int = Field(default=1, gt=0)
    """Number of negatives that are drawn for a query in each step."""
    draw: Literal["uniform", "hardest"] = "uniform"
    corpus: Literal["targets", "gallery"] = "targets"
    """Candidates: the targets of training triplets in the same category, or all gallery images of the
    category."""
    known_right: Literal["kept", "left_out"] = "kept"
    """Whether known right answers may be drawn as negatives."""
    similar: float | None = None
    """Candidates whose image is at least this similar (cosine) to the target's are not drawn. None: no
    limit."""
    reference: Literal["allowed", "excluded"] = "allowed"
    refresh_epochs: float = Field(default=5.0, gt=0)
    warm_up: Literal["random", "in_batch"] = "random"
    """Negatives before the first refresh: random ones, or the other images of the batch."""

    @model_validator(mode="after")
    def _bounds_make_sense(self) -> NegativeSampling:
        if self.low >= self.high:
            raise ValueError(f"negatives.low ({self.low}) must be below negatives.high ({self.high})")
        if self.bounds == "quantile" and not 0 <= self.low < self.high <= 1:
            raise ValueError("quantile bounds are shares of the ranking: 0 <= low < high <= 1")
        if self.empty == "previous" and self.choose != "steepest_drops":
            raise ValueError(
                "negatives.empty is previous, which needs negatives.choose: steepest_drops; set "
                "negatives.empty to nearest or random otherwise"
            )
        return self

    @property
    def mined(self) -> bool:
        """Whether choosing negatives needs the scores of all candidates."""
        return self.choose in ("mid_zone", "steepest_drops", "around_target")


def target_relative_scores(scores: Tensor, target_scores: Tensor) -> Tensor:
    """Return Δ [Q, N]: a query's score of its target less that of each candidate (E6).

    ``scores`` [Q, N] are those of candidates, ``target_scores`` [Q] those of targets.
    """
    return target_scores[:, None] - scores


def quantile_bounds(delta: Tensor, eligible: Tensor, low: float, high: float) -> ZoneLimits:
    """Return the lower and the upper limit of each query's zone as Δ, both [Q].

    They are the Δ at the shares ``low`` and ``high`` (0 to 1) of the query's ranking, which has only eligible
    candidates. ``delta`` is Δ [Q, N].
    """
    ordered = delta.masked_fill(~eligible, torch.inf).sort(dim=1).values
    last = eligible.sum(dim=1).clamp(min=1) - 1
    columns = torch.stack([(last * low).ceil(), (last * high).floor()]).long()  # [2, Q]
    picked = ordered.gather(1, columns.T)
    return picked[:, 0], picked[:, 1]


def mid_zone(delta: Tensor, eligible: Tensor, bounds: ZoneLimits) -> Tensor:
    """Return a mask [Q, N] of the candidates in the zone low <= Δ <= high (E7).

    ``delta`` is Δ [Q, N]; ``bounds`` are low and high, [Q] each. Only eligible candidates are in a zone.
    """
    low, high = bounds
    return eligible & (delta >= low[:, None]) & (delta <= high[:, None])


def nearest_to_band(delta: Tensor, eligible: Tensor, bounds: ZoneLimits, size: int) -> Tensor:
    """Return a mask [Q, N] of the ``size`` eligible candidates with Δ > 0 that are nearest to the zone.

    ``delta`` is Δ [Q, N]; ``bounds`` are the zone's limits, [Q] each.
    """
    low, high = bounds
    distance = torch.maximum(low[:, None] - delta, delta - high[:, None]).clamp(min=0)
    distance = distance.masked_fill(~(eligible & (delta > 0)), torch.inf)
    return _smallest(distance, size)


def around_target(delta: Tensor, eligible: Tensor, size: int) -> Tensor:
    """Return a mask [Q, N] of ``size`` eligible candidates just before the target, and as many just after.

    Candidates before the target have Δ < 0, and some are right answers that nobody annotated; the mid-zone
    has only candidates after it. ``delta`` is Δ [Q, N].
    """
    before = (-delta).masked_fill(~eligible | (delta >= 0), torch.inf)
    after = delta.masked_fill(~eligible | (delta < 0), torch.inf)
    return _smallest(before, size) | _smallest(after, size)


def zone_or_fallback(
    delta: Tensor, eligible: Tensor, options: NegativeSampling, bounds: ZoneLimits
) -> tuple[Tensor, Tensor]:
    """Return a mask [Q, N] of each query's zone, which is not empty if any candidate is eligible.

    The second result [Q] bool says which zones were empty, and were filled as ``options.empty`` says.
    ``delta`` is Δ [Q, N]; ``bounds`` are the zones' limits, [Q] each.
    """
    members = mid_zone(delta, eligible, bounds)
    empty = ~members.any(dim=1)
    if empty.any():
        substitute = eligible[empty]
        if options.empty == "nearest":
            near = nearest_to_band(
                delta[empty], substitute, (bounds[0][empty], bounds[1][empty]), options.fallback_size
            )
            substitute = torch.where(near.any(dim=1, keepdim=True), near, substitute)
        members[empty] = substitute
    return members, empty


def zone_bounds(delta: Tensor, eligible: Tensor, options: NegativeSampling, temperature: float) -> ZoneLimits:
    """Return the lower and the upper limit of each query's zone as Δ of cosines, both [Q].

    ``delta`` is Δ [Q, N]. By ``options.bounds``, ``absolute`` limits are the same Δ for every query,
    ``temperature`` limits are multiplied by ``temperature``, and ``quantile`` limits come from
    :func:`quantile_bounds`.
    """
    if options.bounds == "quantile":
        return quantile_bounds(delta, eligible, options.low, options.high)
    scale = temperature if options.bounds == "temperature" else 1.0
    rows = delta.shape[:1]
    return delta.new_full(rows, options.low * scale), delta.new_full(rows, options.high * scale)


def drop_window(values: NDArray[np.float32], place: int, threshold: int = 1) -> Window | None:
    """Return the ranks [first, end) between two steep drops of the scores after the target; None if none.

    ``values`` [N] are scores in descending order, ``place`` is the target's rank from 0. The drops between
    neighbouring scores after the target are sorted, the steepest first. In that order, the first two
    neighbours that are more than ``threshold`` ranks apart limit the window: it has the ranks between them.
    """
    drops = np.argsort(np.diff(values[place + 1 :]), kind="stable")
    apart = np.flatnonzero(np.abs(np.diff(drops)) > threshold)
    if apart.size == 0:
        return None
    earlier, later = sorted((int(drops[apart[0]]), int(drops[apart[0] + 1])))
    return place + 2 + earlier, place + 2 + later


@dataclass
class LastWindow:
    """The window of the last query that had one, as ranks [first, end); None before the first.

    QuRe's code uses it again for a query without a window.
    """

    places: Window | None = None


def steepest_drop_members(
    scores: Tensor, targets: Tensor, eligible: Tensor, last: LastWindow | None = None, threshold: int = 1
) -> tuple[Tensor, Tensor]:
    """Return QuRe's negatives as a mask [Q, N]: the candidates in the :func:`drop_window` after each target.

    ``scores`` [Q, N] are those of all candidates, ``targets`` [Q] the places of the targets among them. The
    second result [Q] bool says which queries have no window, or no eligible candidate in it. For these, every
    eligible candidate is taken. With ``last``, a query without a window first tries the ranks of the previous
    window, as QuRe's code does. ``threshold`` as in :func:`drop_window`.
    """
    members = torch.zeros_like(eligible)
    empty = torch.zeros(len(scores), dtype=torch.bool)
    for row, (row_scores, target) in enumerate(zip(scores.cpu(), targets.tolist(), strict=True)):
        values = row_scores.detach().numpy().astype(np.float32)
        order = np.argsort(-values, kind="stable")
        window = drop_window(values[order], int(np.flatnonzero(order == target)[0]), threshold)
        empty[row] = window is None
        if last is not None:
            window = last.places = window or last.places
        if window is not None:
            members[row, torch.from_numpy(order[slice(*window)])] = True
    members &= eligible
    nothing = ~members.any(dim=1)
    members[nothing] = eligible[nothing]
    return members, empty | nothing


class NegativePool:
    """The negatives of every query between two refreshes; each is drawn once before any is drawn again.

    It is in the main process, so that draws do not depend on loader workers. ``members`` [Q, P] holds
    candidate ids in the order of drawing, padded with -1; ``counts`` [Q] is their number; ``drawn`` [Q] is
    the number of draws since the refresh.
    """

    def __init__(self, queries: int, size: int) -> None:
        self.members = torch.full((queries, size), -1, dtype=torch.int64)
        self.counts = torch.zeros(queries, dtype=torch.int64)
        self.drawn = torch.zeros(queries, dtype=torch.int64)

    def fill(self, rows: Tensor, order: Tensor, members: Tensor, ids: Tensor) -> None:
        """Set the pools of q queries ``rows``.

        ``members`` [q, N] bool marks the candidates, ``ids`` [N] are their ids. ``order`` [q, N] decides
        which are kept and drawn first, the lowest numbers (random numbers for a uniform draw, Δ for the
        hardest first).
        """
        size = min(self.members.shape[1], members.shape[1])
        columns = order.masked_fill(~members, torch.inf).topk(size, dim=1, largest=False).indices
        counts = members.sum(dim=1).clamp(max=size)
        kept = ids[columns]
        kept[torch.arange(size) >= counts[:, None]] = -1
        self.members[rows, :size] = kept
        self.members[rows, size:] = -1
        self.counts[rows] = counts
        self.drawn[rows] = 0

    def upcoming(self, rows: Tensor, count: int) -> Tensor:
        """Return the next ``count`` negatives of q queries ``rows``, as ids [q, count], without drawing them.

        Raises ``ValueError`` if the pool of a query is empty.
        """
        counts = self.counts[rows]
        if (counts == 0).any():
            raise ValueError(
                "a query has no candidate that may be drawn as a negative: add images to its category"
            )
        turns = (self.drawn[rows, None] + torch.arange(count)) % counts[:, None]
        return self.members[rows[:, None], turns]

    def advance(self, rows: Tensor, count: int) -> None:
        """Count the next ``count`` negatives of the queries ``rows`` as drawn."""
        self.drawn[rows] += count


def _smallest(values: Tensor, size: int) -> Tensor:
    """Return a mask [Q, N] of the ``size`` smallest finite numbers in each row of ``values`` [Q, N]."""
    picked = values.topk(min(size, values.shape[1]), dim=1, largest=False)
    mask = torch.zeros_like(values, dtype=torch.bool)
    mask.scatter_(1, picked.indices, picked.values.isfinite())
    return mask
