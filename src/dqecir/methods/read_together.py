"""Encode the reference with the text by an encoder that was trained for both; nothing is trained here."""

from __future__ import annotations

from torch import Tensor

from dqecir.encoders.encoder import TextBatch, unit
from dqecir.methods.baselines import Baseline
from dqecir.methods.method import PooledMethod, Query, register


@register("read_together")
class ReadTogether(PooledMethod, Baseline):
    """Compare one vector of the image with the text with one vector of each candidate."""

    requires = frozenset({"image", "composed"})

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        return Query(unit(self.backbone.pooled_composed(reference, text))[:, None])
