"""SPRC: sentence-level prompts from the reference image (arXiv 2310.05473, ICLR 2024).

One Q-Former is run three times. The first pass encodes reference and text. The second puts the query states
of the first as a prompt before the text, without the image; the state of its [CLS] is the query. The third,
only in training, has learned prompts after [CLS]; its query must also find the target, and its prompts
attract the query states of the first pass. Published: BLIP-2 ViT-g with 32 query tokens and 32 prompts, AdamW
(0.9, 0.98), decay 0.05, batch 128; FashionIQ 2e-5 over 30 epochs, CIRR 1e-5 over 50.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dqecir.encoders.blip2 import Blip2
from dqecir.encoders.checkpoints import LoadReport, load_lavis_method
from dqecir.encoders.encoder import TextBatch, unit
from dqecir.errors import DataError
from dqecir.methods.losses import contrastive
from dqecir.methods.method import (
    InBatchOptions,
    Method,
    Query,
    TrainingBatch,
    register,
)
from dqecir.methods.scoring import score


class SprcOptions(InBatchOptions):
    """Weights of SPRC's auxiliary losses; a loss with weight 0 is not computed.

    The published weights are 1 for FashionIQ (the defaults) and 0.4 for CIRR.
    """

    prompt_weight: float = Field(default=1.0, ge=0)
    """Weight of the contrastive loss of queries made from the learned prompt and the text; 0: none."""
    alignment_weight: float = Field(default=1.0, ge=0)
    """Weight of the distance between the mean query state and the mean learned prompt."""


@register("sprc")
class Sprc(Method):
    """SPRC over a BLIP-2 backbone.

    The score is the largest product of the query [B, 1, D] with a target token.
    """

    backbone: Blip2
    options_type = SprcOptions
    requires = frozenset({"text_states", "composed", "word_embeddings"})

    def __init__(self, backbone: Blip2, options: SprcOptions) -> None:
        super().__init__(backbone)
        self.options = options
        self.prompt_tokens = nn.Parameter(torch.empty_like(backbone.query_tokens).normal_(0, 0.02))
        # The alignment loss must not change the prompts, so they are detached.
        self.prompt_tokens.requires_grad_(options.prompt_weight > 0)

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        fused, _ = self.backbone.composed_states(reference, text.ids, text.mask)
        return Query(self.sentence_query(fused, text)[:, None])

    def sentence_states(self, fused: Tensor, text: TextBatch) -> Tensor:
        """Run the second pass, without the image: the query states of the first pass, then the text.

        ``fused`` are these query states [B, n_q, H]. Return the states of all tokens [B, n_q + L, H].
        """
        slots = self.backbone.embeddings(text.ids, fused)
        mask = torch.cat([text.mask.new_ones(fused.shape[:2]), text.mask], dim=1)
        return self._read(slots, mask)

    def sentence_query(self, fused: Tensor, text: TextBatch) -> Tensor:
        """Return unit queries [B, D]: the projected state of the text's [CLS] in the second pass.

        ``fused`` are the query states of the first pass [B, n_q, H].
        """
        cls_state = self.sentence_states(fused, text)[:, fused.shape[1]]
        return unit(self.backbone.text_projection(cls_state))

    def prompted_states(self, text: TextBatch) -> Tensor:
        """Run the third pass: [CLS], the learned prompts, the rest of the text; return all [B, n_q + L, H].

        Every token has a position embedding. Raises :class:`DataError` if the backbone has fewer text
        positions than tokens.
        """
        embeddings = self.backbone.embeddings
        words = embeddings.word_embeddings(text.ids)
        prompts = self.prompt_tokens.expand(len(words), -1, -1)
        slots = torch.cat([words[:, :1], prompts.to(words.dtype), words[:, 1:]], dim=1)
        count, positions = slots.shape[1], self.backbone.config.text_positions
        if count > positions:
            raise DataError(
                f"sprc reads {prompts.shape[1]} prompts and {words.shape[1]} tokens at once, and the "
                f"backbone has {positions} text positions: shorten the texts, or set prompt_weight to 0"
            )
        slots = slots + embeddings.position_embeddings.weight[:count]
        mask = torch.cat([text.mask[:, :1], text.mask.new_ones(prompts.shape[:2]), text.mask[:, 1:]], dim=1)
        return self._read(slots, mask)

    def _read(self, slots: Tensor, mask: Tensor) -> Tensor:
        # No token counts as a query, so all use the feed-forward layers of texts, as published.
        states: Tensor = self.backbone.qformer(slots, 0, mask)
        return states

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        options, text = self.options, batch.text
        fused, _ = self.backbone.composed_states(batch.reference, text.ids, text.mask)
        candidates = self.embed_target(batch.candidates)
        terms = {"contrast": self._contrast(self.sentence_query(fused, text), candidates, batch)}
        if options.prompt_weight > 0:
            prompted = unit(self.backbone.text_projection(self.prompted_states(text)[:, 0]))
            terms["prompt"] = options.prompt_weight * self._contrast(prompted, candidates, batch)
        if options.alignment_weight > 0:
            wanted = self.prompt_tokens.detach().mean(dim=1).expand(len(fused), -1)
            terms["alignment"] = options.alignment_weight * F.mse_loss(fused.float().mean(dim=1), wanted)
        return terms

    def _contrast(self, query: Tensor, candidates: Tensor, batch: TrainingBatch) -> Tensor:
        scores = score(query[:, None], candidates, self.score_rule)
        return contrastive(scores, batch.targets, self.backbone.temperature)

    def load_published(self, state: Mapping[str, Tensor]) -> LoadReport:
        """Load a complete published state dict; its heads for matching and language are left out.

        Raises :class:`CheckpointError` that lists the names if a tensor is missing or left over.
        """
        own = {key: value for key, value in state.items() if key == "prompt_tokens"}
        return load_lavis_method(self, self.backbone, state, own)
