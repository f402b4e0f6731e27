"""MGUR: match coarsely under uncertainty of features, and finely (arXiv 2211.07394).

It uses CoSMo's composer. In training, noise with the statistics of the targets is added to the targets; the
weight of this coarse loss decreases over time. Published: ResNet-50 (14 x 14 map) and RoBERTa, SGD 2e-2,
momentum 0.9, decay 5e-5, text encoder x0.01, 60 epochs, rate x0.1 at 35 and 42, batch 32.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from dqecir.encoders.encoder import Encoder
from dqecir.methods.cosmo import LENGTH, Cosmo, CosmoOptions
from dqecir.methods.losses import contrastive
from dqecir.methods.method import TrainingBatch, register
from dqecir.methods.scoring import score


class MgurOptions(CosmoOptions):
    """Options of MGUR, besides those of CoSMo."""

    fading: float = Field(default=1.0, ge=0)
    """How fast the weight of the coarse loss decreases [γ₀]: it is exp(-fading · share of training done)."""
    scale_noise: float = Field(default=1.0, ge=0)
    """Strength of the random scales [α]."""
    shift_noise: float = Field(default=1.0, ge=0)
    """Strength of the random shifts [β]."""


def standardised(features: Tensor) -> Tensor:
    """Scale each row of ``features`` [C, D] to mean 0 and variance 1 (biased, eps 1e-5)."""
    return F.layer_norm(features, features.shape[1:])


@torch.no_grad()
def drawn_noise(features: Tensor, scale_noise: float, shift_noise: float) -> tuple[Tensor, Tensor]:
    """Return random scales α ~ N(1, s) and shifts β ~ N(m, s) for features [C, D], both [C, D].

    m and s are the mean and the standard deviation of each row. α is then multiplied by ``scale_noise``, and
    β by ``shift_noise``.
    """
    mean = features.mean(dim=1, keepdim=True).expand_as(features)
    deviation = features.std(dim=1, keepdim=True).expand_as(features)
    scales = torch.normal(torch.ones_like(features), deviation)
    return scale_noise * scales, shift_noise * torch.normal(mean, deviation)


def coarse_loss(queries: Tensor, augmented: Tensor, targets: Tensor) -> Tensor:
    """Return ½(e^(-S) · CE(q · f̃) + S) for queries q [B, D] and candidates with noise f̃ [C, D].

    CE is the cross-entropy of the ``targets`` [B] among the candidates; S is the standard deviation of all
    numbers in f̃. f̃ is ``augmented``.
    """
    spread = augmented.std()
    matched = contrastive(queries @ augmented.T, targets, queries.new_tensor(1.0))
    return 0.5 * ((-spread).exp() * matched + spread)


@register("mgur")
class Mgur(Cosmo):
    """CoSMo's composer, trained with random noise on the targets; searches are the same as CoSMo's."""

    options_type = MgurOptions

    def __init__(self, backbone: Encoder, options: MgurOptions) -> None:
        super().__init__(backbone, options)
        self.uncertainty = options

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        options = self.uncertainty
        queries = self.embed_query(batch.reference, batch.text).embeddings
        candidates = self.embed_target(batch.candidates)
        scores = score(queries, candidates, self.score_rule)  # [B, C]
        fine = contrastive(scores, batch.targets, scores.new_tensor(LENGTH**-2))
        features = LENGTH * candidates[:, 0]
        scales, shifts = drawn_noise(features, options.scale_noise, options.shift_noise)
        augmented = scales * standardised(features) + shifts
        coarse = coarse_loss(LENGTH * queries[:, 0], augmented, batch.targets)
        share = math.exp(-options.fading * batch.progress)
        return {"coarse": share * coarse, "fine": (1 - share) * fine}
