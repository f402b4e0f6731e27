"""QuRe: one hard negative for each query with a pairwise KL loss (arXiv 2507.12416).

DQE-CIR extends it. The query is the mean of the projected query states; a target is its 32 projected states;
negatives are between the two steepest drops of the scores after the target. Published: BLIP-2 ViT-L, AdamW
with decay 0.05 on all weights, cosine schedule over epochs to a hundredth of the rate, batch 32; FashionIQ
5e-6 over 30 epochs, CIRR 1e-5 over 50.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dqecir.encoders.blip2 import Blip2
from dqecir.encoders.checkpoints import LoadReport, load_lavis_method
from dqecir.encoders.encoder import TextBatch, unit
from dqecir.methods.losses import pairwise_kl
from dqecir.methods.method import Method, MethodOptions, Query, TrainingBatch, register
from dqecir.methods.negatives import NegativeSampling
from dqecir.methods.scoring import score


class QureOptions(MethodOptions):
    """Options of QuRe."""

    use_temperature: bool = True
    """Whether the loss divides scores by the learned temperature, which has no limits."""

    def check_negatives(self, negatives: NegativeSampling) -> None:
        """Raise ``ValueError`` for settings with which the loss would have no negatives."""
        if negatives.choose == "none":
            raise ValueError("qure compares the target with a negative: set negatives.choose")
        if negatives.mined and negatives.warm_up == "in_batch":
            raise ValueError("qure has no in-batch contrast to warm up with: set negatives.warm_up to random")


@register("qure")
class Qure(Method):
    """QuRe over a BLIP-2 backbone.

    The score is the largest product of the query [B, 1, D] with a target token.
    """

    backbone: Blip2
    options_type = QureOptions
    requires = frozenset({"text_states", "composed"})

    def __init__(self, backbone: Blip2, options: QureOptions) -> None:
        super().__init__(backbone)
        self.options = options
        backbone.temperature.requires_grad_(options.use_temperature)

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        states, _ = self.backbone.composed_states(reference, text.ids, text.mask)
        return Query(unit(self.backbone.text_projection(states).mean(dim=1))[:, None])

    def contrasted(self, batch: TrainingBatch) -> Tensor:
        """Return a mask [B, C] of the drawn negatives."""
        return torch.zeros_like(batch.right).scatter_(1, batch.negatives, True)

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        query = self.embed_query(batch.reference, batch.text)
        scores = score(query.embeddings, self.embed_target(batch.candidates), self.score_rule)  # [B, C]
        positive = scores.gather(1, batch.targets[:, None])[:, 0]
        negative = scores.gather(1, batch.negatives)
        learned = self.backbone.temperature
        temperature = learned if self.options.use_temperature else torch.ones_like(learned)
        return {"pair": pairwise_kl(positive, negative, temperature)}

    def load_published(self, state: Mapping[str, Tensor]) -> LoadReport:
        """Load a complete published state dict; its heads for matching and language are left out.

        Raises :class:`CheckpointError` that lists the names if a tensor is missing or left over.
        """
        return load_lavis_method(self, self.backbone, state, {})
