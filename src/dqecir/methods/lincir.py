"""LinCIR: textual inversion that is learned from texts alone (arXiv 2312.01998).

φ learns to express several words of a text in one vector: words of a caption are replaced by φ of the
caption's embedding plus noise, and the embedding of the caption should not change. In a search φ reads the
feature of an image instead.

The publication replaces the nouns and adjectives that a tagger finds. Here the words in the attributes'
lexicons are replaced, so that no tagger is needed; other words stay.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from dqecir.encoders.encoder import Encoder, TextBatch
from dqecir.encoders.tokenizer import Placeholder
from dqecir.methods.inversion import Inversion, InversionOptions, placeholder_of
from dqecir.methods.method import MethodContext, MethodOptions, TrainingBatch, register


class LincirOptions(InversionOptions):
    """Options of LinCIR; published: AdamW at 1e-4, weight decay 0.01, batches of 512, 20,000 steps."""

    attributes: tuple[str, ...] = Field(default=("colour", "shape", "pattern"), min_length=1)
    """Vocabularies whose words are replaced by φ."""
    noise: float = Field(default=1.0, ge=0)
    """Scale of the noise u·ε that stands for the difference between texts and images; for each text, u is
    uniform in 0 to 1 and ε normal."""


@register("lincir")
class Lincir(Inversion):
    """Train φ with only the texts of a batch (self-masking projection)."""

    options_type = LincirOptions

    def __init__(
        self,
        backbone: Encoder,
        options: LincirOptions,
        placeholder: Placeholder,
        special_ids: Collection[int],
    ) -> None:
        super().__init__(backbone, options, placeholder)
        self.noise, self.special_ids = options.noise, special_ids

    @classmethod
    def from_context(cls, backbone: Encoder, options: MethodOptions, context: MethodContext) -> Lincir:
        assert isinstance(options, LincirOptions)
        placeholder = placeholder_of(context, cls.name)
        special = () if context.text_encoder is None else context.text_encoder.tokenizer.special_ids
        return cls(backbone, options, placeholder, special)

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Return the mean squared difference of caption embeddings before and after φ replaces their words.

        A caption is the query text without its beginning "a photo of $". Texts without a word of the lexicons
        are left out.
        """
        text = self._caption_of(batch.text)
        marked = text.mentions.any(dim=1)
        rows = marked.any(dim=1)
        if not bool(rows.any()):
            return {"reconstruction": 0.0 * self.phi(torch.zeros_like(self.embedded(text))).sum()}
        text, marked = text[rows.nonzero()[:, 0]], marked[rows]
        whole = self.embedded(text)  # e
        shares = torch.rand(len(whole), 1, device=whole.device)
        words = self.phi(whole + self.noise * shares * torch.randn_like(whole))
        ids, mask, places = collapsed(text.ids, text.mask, marked)
        replaced = self.backbone.text_with_words(ids, mask, words, places)
        return {"reconstruction": F.mse_loss(replaced, whole)}

    @torch.no_grad()
    def embedded(self, text: TextBatch) -> Tensor:
        """Return embeddings [B, D] of texts, not normalised."""
        return self.backbone.pooled_text(text)

    def _caption_of(self, text: TextBatch) -> TextBatch:
        """Return the texts without the part up to their placeholder, which is the same in all.

        A start token stays.
        """
        start = int((text.ids[0] == self.placeholder.id).int().argmax()) + 1
        kept = int(int(text.ids[0, 0]) in self.special_ids)
        ids, mask, mentions = (
            torch.cat([part[..., :kept], part[..., start:]], dim=-1)
            for part in (text.ids, text.mask, text.mentions)
        )
        return TextBatch(ids, mask, mentions)


def collapsed(ids: Tensor, mask: Tensor, marked: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Replace every run of tokens that are ``marked`` [B, L] by its first token.

    Return token ids, mask, and which tokens stand for a run, all [B, L]. Texts get shorter; the rest is
    filled with masked tokens at the end.
    """
    lost = marked.clone()
    lost[:, 0] = False
    lost[:, 1:] &= marked[:, :-1]
    order = lost.int().argsort(dim=1, stable=True)
    kept = mask * ~lost
    return ids.gather(1, order), kept.gather(1, order), (marked & ~lost).gather(1, order)
