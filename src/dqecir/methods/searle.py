"""SEARLE: textual inversion that is learned from images alone (arXiv 2303.15247).

Each image is first inverted alone: a pseudo-word is optimised until the embedding of "a photo of $" (with the
pseudo-word for $) is near the image's. φ learns to predict these words. The publication inverts a large set
of images in advance; here the different images of a batch are inverted in each step, with fewer iterations.

A second loss of the publication compares a pseudo-word with generated sentences about the concept that is
nearest to the image. A catalogue has no such sentences; this loss is used only if ``concepts`` gives some.
"""

from __future__ import annotations

import torch
from pydantic import Field, field_validator
from torch import Tensor

from dqecir.encoders.encoder import Encoder, TextBatch, unit
from dqecir.encoders.tokenizer import Placeholder
from dqecir.errors import DataError
from dqecir.methods.attribute_heads import TextEncoder
from dqecir.methods.inversion import Inversion, InversionOptions, paired_contrast, placeholder_of
from dqecir.methods.method import MethodContext, MethodOptions, TrainingBatch, register

TEMPLATES = (
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "a good photo of {}",
    "a close view of {}",
    "this is {}",
    "{}",
)
"""Sentences for inversion; one is drawn for every image and step. {} is the placeholder."""

SPREAD = 0.02
"""Standard deviation of the random pseudo-word with which the inversion of an image starts."""


class SearleOptions(InversionOptions):
    """Options of SEARLE; published: AdamW at 1e-4, weight decay 0.01, batches of 256, 100 epochs."""

    inversion_steps: int = Field(default=30, gt=0)
    """Number of optimisation steps of an inversion; published: 350."""
    inversion_rate: float = Field(default=2e-2, gt=0)
    inversion_decay: float = Field(default=0.01, ge=0)
    """Weight decay of the pseudo-words."""
    averaging: float = Field(default=0.8, ge=0, lt=1)
    """Decay of a pseudo-word's running mean in each step; published: 0.99 over 350 steps."""
    temperature: float = Field(default=0.25, gt=0)
    concepts: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Concept -> sentences with its name, as a language model would continue "a photo of <concept> that".
    Empty: no loss with concepts."""
    inversion_concept_weight: float = Field(default=0.5, ge=0)
    concept_weight: float = Field(default=0.75, ge=0)

    @field_validator("concepts")
    @classmethod
    def _sentences_name_their_concept(
        cls, concepts: dict[str, tuple[str, ...]]
    ) -> dict[str, tuple[str, ...]]:
        for concept, sentences in concepts.items():
            if not sentences or any(concept not in sentence for sentence in sentences):
                raise ValueError(f"the concept {concept!r} needs sentences, each with {concept!r} in it")
        return concepts


class Sentences:
    """Fixed texts, encoded once, from which training draws."""

    def __init__(self, encoder: TextEncoder, texts: list[str]) -> None:
        self.batch = encoder(texts)

    def __len__(self) -> int:
        return len(self.batch.texts)

    def drawn(self, rows: Tensor) -> TextBatch:
        """Return the encoded texts of ``rows`` [B], on the device of ``rows``."""
        return self.batch.to(rows.device)[rows]


class Concepts:
    """Concepts and their sentences, each once with the concept's name and once with the placeholder."""

    def __init__(self, encoder: TextEncoder, concepts: dict[str, tuple[str, ...]], placeholder: str) -> None:
        pairs = [(name, sentence) for name, sentences in concepts.items() for sentence in sentences]
        self.names = Sentences(encoder, [f"a photo of {name}" for name in concepts])
        self.written = Sentences(encoder, [sentence for _, sentence in pairs])
        self.open = Sentences(encoder, [text.replace(name, placeholder, 1) for name, text in pairs])
        places = {name: place for place, name in enumerate(concepts)}
        self.owner = torch.tensor([places[name] for name, _ in pairs])  # [S]


@register("searle")
class Searle(Inversion):
    """Train φ to predict the pseudo-words of inverted images; only the images of a batch are used."""

    options_type = SearleOptions

    def __init__(
        self, backbone: Encoder, options: SearleOptions, placeholder: Placeholder, encoder: TextEncoder
    ) -> None:
        super().__init__(backbone, options, placeholder)
        self.options = options
        word = placeholder.text
        self.templates = Sentences(encoder, [template.format(word) for template in TEMPLATES])
        self.concepts = Concepts(encoder, options.concepts, word) if options.concepts else None

    @classmethod
    def from_context(cls, backbone: Encoder, options: MethodOptions, context: MethodContext) -> Searle:
        assert isinstance(options, SearleOptions)
        placeholder = placeholder_of(context, cls.name)
        if context.text_encoder is None:
            raise DataError(
                "searle needs a text encoder for the sentences with which it inverts images: build it with "
                "the text encoder of a model"
            )
        return cls(backbone, options, placeholder, context.text_encoder)

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Return the losses of φ for the images of a batch.

        ``distillation``: against the pseudo-words that inversion finds. ``concepts``, if there are some:
        against sentences about the concept that is nearest to the image.
        """
        nearest = self._nearest_concepts(batch.candidates)
        inverted = self.invert(batch.candidates, nearest)
        words = self.phi(self.image_feature(batch.candidates))
        terms = {"distillation": paired_contrast(words, inverted, self.options.temperature)}
        if nearest is not None and self.options.concept_weight > 0:
            terms["concepts"] = self.options.concept_weight * self.apart_from_concepts(words, nearest).mean()
        return terms

    def invert(self, tokens: Tensor, nearest: Tensor | None = None) -> Tensor:
        """Return pseudo-words [C, W] of images [C, M, W'], each optimised alone, without gradient.

        ``nearest`` [C]: the nearest concept of each image; None without concepts. ``tokens`` are the image
        tokens.
        """
        options = self.options
        wanted = self.direction(tokens)
        words = SPREAD * torch.randn(len(tokens), self.backbone.sizes.word_width, device=tokens.device)
        mean = words.clone()
        words.requires_grad_(True)
        optimiser = torch.optim.AdamW(
            [words], lr=options.inversion_rate, weight_decay=options.inversion_decay
        )
        weight = 0.0 if nearest is None else options.inversion_concept_weight
        with torch.enable_grad():
            for _ in range(options.inversion_steps):
                drawn = torch.randint(len(TEMPLATES), (len(words),), device=words.device)
                text = unit(self.injected(self.templates.drawn(drawn), words))
                apart = 1 - (text * wanted).sum(dim=1)
                if nearest is not None and weight > 0:
                    apart = apart + weight * self.apart_from_concepts(words, nearest)
                # Sum the losses, so that the steps of an image do not depend on the number of images.
                words.grad = torch.autograd.grad(apart.sum() / (1 + weight), words)[0]
                optimiser.step()
                mean.lerp_(words.detach(), 1 - options.averaging)
        return mean

    @torch.no_grad()
    def direction(self, tokens: Tensor) -> Tensor:
        """Return the direction [C, D] in which a text about an image should be embedded.

        It is the unit mean of the image's target embeddings, for image tokens [C, M, W'].
        """
        return unit(self.backbone.target_embeddings(tokens).mean(dim=1))

    @torch.no_grad()
    def _nearest_concepts(self, tokens: Tensor) -> Tensor | None:
        """Return the place of the concept whose name is nearest to each image, [C]; None without concepts."""
        if self.concepts is None:
            return None
        every = torch.arange(len(self.concepts.names), device=tokens.device)
        names = unit(self.backbone.pooled_text(self.concepts.names.drawn(every)))
        return (self.direction(tokens) @ names.T).argmax(dim=1)

    def apart_from_concepts(self, words: Tensor, nearest: Tensor) -> Tensor:
        """Return 1 - cosine between a sentence with the concept's name and one with the pseudo-word, [C].

        Both are the same sentence, drawn at random from those of the concept. ``words`` [C, W] are the
        pseudo-words, ``nearest`` [C] the concepts of the images.
        """
        assert self.concepts is not None
        owner = self.concepts.owner.to(nearest.device)
        chances = torch.rand(len(nearest), len(owner), device=nearest.device)
        drawn = chances.masked_fill(owner[None] != nearest[:, None], -1.0).argmax(dim=1)
        with torch.no_grad():
            written = unit(self.backbone.pooled_text(self.concepts.written.drawn(drawn)))
        spoken = unit(self.injected(self.concepts.open.drawn(drawn), words))
        return 1 - (spoken * written).sum(dim=1)
