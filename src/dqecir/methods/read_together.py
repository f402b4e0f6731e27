"""The method ``read_together``: an encoder that was trained for it reads reference and text together."""

from __future__ import annotations

from torch import Tensor

from dqecir.encoders.encoder import TextBatch, unit
from dqecir.methods.baselines import Baseline
from dqecir.methods.method import PooledMethod, Query, register


@register("read_together")
class ReadTogether(PooledMethod, Baseline):
    """The query is one vector of image and text together, a target one vector of an image.

    Nothing is trained.
    """

    requires = frozenset({"image", "composed"})

    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        return Query(unit(self.backbone.pooled_composed(reference, text))[:, None])
