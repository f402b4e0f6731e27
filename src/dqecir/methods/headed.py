"""The common part of DQE's variants with attribute heads: the compared columns and their values in images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from dqecir.encoders.blip2 import Blip2
from dqecir.methods.attribute_heads import AttributeHeads
from dqecir.methods.dqe import Dqe, DqeOptions


class HeadedOptions(DqeOptions):
    """Options of DQE with other defaults.

    The only loss is the contrast within the batch, in which known right answers do not count as negatives.
    """

    attributes: tuple[str, ...] = Field(default=("colour", "shape", "pattern"), min_length=1)
    pair_weight: float = Field(default=0.0, ge=0)
    ranking_weight: float = Field(default=0.0, ge=0)
    attribute_weight: float = Field(default=0.0, ge=0)
    contrast_weight: float = Field(default=1.0, ge=0)
    contrast_right_answers: Literal["kept", "left_out"] = "left_out"


class HeadedDqe(Dqe):
    """DQE over a backbone with frozen attribute heads.

    ``places``: compared column -> place of its attribute. The following are in the order of the columns:
    ``columns`` (names), ``sizes`` (numbers of values), ``owners`` (places of their attributes) and
    ``head_places`` (places among the heads' columns).
    """

    only_evaluated = ("heads",)

    def __init__(
        self, backbone: Blip2, options: DqeOptions, heads: AttributeHeads, places: Mapping[str, int]
    ) -> None:
        super().__init__(backbone, options)
        self.heads = heads.requires_grad_(False)
        known = heads.config.columns
        self.columns = tuple(column for column in known if column in places)
        self.sizes = tuple(len(known[column]) for column in self.columns)
        self.owners = tuple(places[column] for column in self.columns)
        self.head_places = tuple(list(known).index(column) for column in self.columns)

    @property
    def weighted_attributes(self) -> tuple[int, ...]:
        return tuple(sorted(set(self.owners)))

    def target_state(self) -> dict[str, Tensor]:
        return super().target_state() | self.heads.state_dict(prefix="heads.")

    @property
    def target_values(self) -> Mapping[str, Sequence[str]]:
        return {column: self.heads.config.columns[column] for column in self.columns}

    def _by_attribute(self, pieces: Tensor) -> Tensor:
        """Sum the parts of columns [B, C, n_q, D] by attribute: [B, A, n_q, D]."""
        places = torch.tensor(self.owners, device=pieces.device)
        whole = pieces.new_zeros(len(pieces), len(self.options.attributes), *pieces.shape[2:])
        return whole.index_add(1, places, pieces)

    def shown_values(self, tokens: Tensor) -> list[Tensor]:
        """Return the heads' probabilities of each column's values, [N, values], for tokens [N, M, W]."""
        logits = self.heads(tokens)
        return [logits[column].float().softmax(dim=1) for column in self.columns]
