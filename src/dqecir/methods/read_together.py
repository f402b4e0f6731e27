"""The reference and the text, read together by an encoder that was trained to: no training here."""

from __future__ import annotations

from torch import Tensor

from dqecir.encoders.encoder import TextBatch, unit
from dqecir.methods.baselines import Baseline
from dqecir.methods.method import PooledMethod, Query, register


@register("read_together")
class ReadTogether(PooledMethod, Baseline):
    """One vector of the image with the text, against one an image."""

    requires = frozenset({"image", "composed"})

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        return Query(unit(self.backbone.pooled_composed(reference, text))[:, None])
