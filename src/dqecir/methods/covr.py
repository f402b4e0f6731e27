"""CoVR and CoVR-2: contrast with weighted hard negatives, against target embeddings that never change.

Source: arXiv 2308.14746 and its BLIP-2 successor. Targets are embedded by a frozen copy of the untrained
backbone. Only the query side is trained, without ``ln_vision`` and the vision projection. Published: AdamW
1e-4, decay 0.05, cosine schedule over epochs to 0, 6 epochs, batch 512 on each device for FashionIQ and CIRR;
BLIP-L at 384 pixels for CoVR, BLIP-2 ViT-g at 364 for CoVR-2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from dqecir.encoders.blip import BLIP_KEYS, blip_composer_of
from dqecir.encoders.blip2 import Blip2
from dqecir.encoders.checkpoints import LoadReport, PublishedKeys, lavis_state, load_lavis_method
from dqecir.encoders.encoder import TextBatch, unit
from dqecir.methods.method import (
    InBatchOptions,
    PooledMethod,
    Query,
    TrainingBatch,
    register,
)
from dqecir.methods.score_rules import ScoreRule
from dqecir.methods.scoring import score


def hn_nce(
    scores: Tensor, temperature: float, alpha: float, beta: float, published_normaliser: bool = False
) -> Tensor:
    """Return the HN-NCE loss: cross-entropy over rows plus over columns, in which hard negatives weigh more.

    ``scores`` [B, B] have the right pairs on the diagonal; s = scores / τ. The loss of row i is log(α
    e^{s_ii} + Σ_{j≠i} w_ij e^{s_ij}) - s_ii with weights w_ij = (B-1) e^{β s_ij} / Σ_{k≠i} e^{β s_ik}; that
    of a column is analogous. The weights have a gradient. With β = 0 and α = 1 these are two plain
    cross-entropies.

    ``published_normaliser`` divides w_ij of the rows by the sum of row j instead of row i, as the published
    code does. τ is ``temperature``, α ``alpha`` and β ``beta``. Raises ``ValueError`` if the scores are not
    [B, B] with B of at least 2.
    """
    rows = len(scores)
    if scores.shape != (rows, rows) or rows < 2:
        raise ValueError(f"hn_nce takes scores [B, B] of at least two pairs, not {list(scores.shape)}")
    logits = scores.float() / temperature
    pairs = torch.eye(rows, dtype=torch.bool, device=scores.device)
    hardness = beta * logits
    others = hardness.masked_fill(pairs, -torch.inf)
    by_row, by_column = others.logsumexp(dim=1), others.logsumexp(dim=0)
    normalisers = {1: by_row[None] if published_normaliser else by_row[:, None], 0: by_column[None]}
    terms = []
    for dim, normaliser in normalisers.items():
        log_weights = math.log(rows - 1) + hardness - normaliser
        log_weights = log_weights.masked_fill(pairs, math.log(alpha))
        terms.append(((logits + log_weights).logsumexp(dim=dim) - logits.diagonal()).mean())
    return terms[0] + terms[1]


class CovrOptions(InBatchOptions):
    """Options of CoVR: those of its loss (:func:`hn_nce`)."""

    alpha: float = Field(default=1.0, gt=0)
    """Weight of the right pair in the denominators [α]."""
    beta: float = Field(default=0.5, ge=0)
    """How much more hard negatives weigh [β]; 0: equal weights."""
    temperature: float = Field(default=0.07, gt=0)
    """Fixed temperature of the loss [τ]; the backbone's learned temperature is not used."""
    published_normaliser: bool = False
    """Divide the weights of a row by the sum of another row, as the published code does (:func:`hn_nce`)."""


class Covr2Options(CovrOptions):
    """Options of CoVR-2."""

    score: Literal["mean_mean", "max_max"] = "mean_mean"
    """The score rule of searches; published: mean_mean for FashionIQ and CIRCO, max_max for CIRR. The loss
    always uses mean_mean, as published."""


@register("covr")
class Covr(PooledMethod):
    """CoVR with a Q-Former: the query is the state of the text's [CLS]; queries and targets are one vector.

    BLIP's text encoder attends to the image tokens directly. Here words attend to query states, which attend
    to the image tokens. Therefore published CoVR weights do not fit this class; they are read as a
    :class:`~dqecir.encoders.blip.BlipComposer`, over the tokens of BLIP's tower.
    """

    backbone: Blip2
    options_type = CovrOptions
    requires = frozenset({"text_states", "composed"})
    published_keys: ClassVar[PublishedKeys | None] = BLIP_KEYS
    composer_of = staticmethod(blip_composer_of)
    trained_rule: ClassVar[ScoreRule] = "dot"
    only_evaluated = ("target_backbone",)

    def __init__(self, backbone: Blip2, options: CovrOptions) -> None:
        super().__init__(backbone)
        self.options = options
        self.target_backbone = backbone.frozen_copy()
        for part in (backbone.ln_vision, backbone.vision_projection, backbone.temperature):
            part.requires_grad_(False)

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        _, words = self.backbone.composed_states(reference, text.ids, text.mask)
        return Query(unit(self.backbone.text_projection(words[:, :1])))

    @torch.no_grad()
    def embed_target(self, tokens: Tensor) -> Tensor:
        """Return unit vectors [N, 1, D]: each image's mean embedding by the frozen copy of the backbone.

        ``tokens`` are image tokens [N, M, W].
        """
        return unit(self.target_backbone.target_embeddings(tokens).mean(dim=1, keepdim=True))

    def target_state(self) -> dict[str, Tensor]:
        return self.target_backbone.image_state("target_backbone.")

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        query = self.embed_query(batch.reference, batch.text)
        scores = score(query.embeddings, self.embed_target(batch.candidates), self.trained_rule)
        options = self.options
        return {
            "contrast": hn_nce(
                scores[:, batch.targets],
                options.temperature,
                options.alpha,
                options.beta,
                options.published_normaliser,
            )
        }


@register("covr2")
class Covr2(Covr):
    """CoVR-2: queries are unit vectors [B, n_q, D], targets [N, n_q, D]; their means are compared."""

    options_type = Covr2Options
    published_keys = None  # The package has its tower, so a checkpoint becomes a whole model.
    trained_rule: ClassVar[ScoreRule] = "mean_mean"
    published_squash = True

    def __init__(self, backbone: Blip2, options: CovrOptions) -> None:
        assert isinstance(options, Covr2Options)
        super().__init__(backbone, options)
        self.score_rule = options.score

    @property
    def target_shape(self) -> tuple[int, int]:
        return self.backbone.config.query_tokens, self.backbone.config.embedding_size

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        states, _ = self.backbone.composed_states(reference, text.ids, text.mask)
        return Query(unit(self.backbone.text_projection(states)))

    @torch.no_grad()
    def embed_target(self, tokens: Tensor) -> Tensor:
        """Return the unit target embeddings [N, n_q, D] of the frozen copy, for image tokens [N, M, W]."""
        return self.target_backbone.target_embeddings(tokens)

    def load_published(
        self, state: Mapping[str, Tensor], pretrained: Mapping[str, Tensor] | None = None
    ) -> LoadReport:
        """Load a complete published state dict; its names may begin with ``model.``.

        ``pretrained`` is the LAVIS state (BLIP-2 fine-tuned on COCO) that the publication embedded targets
        with. Without it, the frozen copy gets the trained ``state`` too, so target embeddings differ from the
        published ones. The published code does not save the temperature, which therefore stays as it is.
        Raises :class:`CheckpointError` that lists the names if a tensor is missing or left over.
        """
        given = {re.sub(r"^(model|module)\.", "", key): value for key, value in state.items()}
        trained = {"temp": self.backbone.temperature.detach(), **given}
        names = lavis_state(trained if pretrained is None else pretrained, self.backbone.config.tower.kind)
        own = {f"target_backbone.{k}": value for k, value in names.items() if not k.startswith("tower.")}
        report = load_lavis_method(self, self.backbone, trained, own)
        return replace(report, used=tuple(key for key in report.used if key in given))
