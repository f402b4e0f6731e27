"""Attribute heads without labels: predict the value whose descriptions are most similar to the image.

A description is a statement of a vocabulary, such as "is red", in one of several sentence frames. Some
descriptions are similar to every image, so each one's mean similarity to the gallery is subtracted.
Probabilities use the temperature of the encoder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dqecir.language.vocabulary import Vocabulary
from dqecir.questions.wording import CaptionGenerator

FRAMES = ("{}", "a photo of a product: {}")
"""Sentence frames into which a statement is put."""

MOST_STATEMENTS = 8
"""Largest number of statements that describe a value, evenly spaced among those of its vocabulary."""

UNSAID = ("other", "")
"""Values for which there is no description."""

_OF_CHANGE = re.compile(r"\b(more|less|instead|rather|change|should|make|add|remove)\b")


def described_columns(vocabularies: Sequence[Vocabulary]) -> dict[str, tuple[str, ...]]:
    """Return column -> its values that can be described, for columns of ``vocabularies`` with two or more."""
    found = {
        name: tuple(value for value in column.values if value not in UNSAID)
        for vocabulary in vocabularies
        for name, column in vocabulary.columns.items()
    }
    return {name: values for name, values in found.items() if len(values) > 1}


def descriptions(wording: CaptionGenerator, column: str, value: str) -> list[str]:
    """Return texts that describe an image with this value in this column; ``wording`` words them."""
    said = [text for text in wording.statements(column, value) if _OF_CHANGE.search(text) is None]
    step = max(1, len(said) / MOST_STATEMENTS)
    drawn = [said[int(place * step)] for place in range(min(len(said), MOST_STATEMENTS))]
    return [frame.format(text) for text in drawn for frame in FRAMES]


class PromptHeads(nn.Module):
    """Predicts every column's values from the similarities of image vectors to descriptions."""

    def __init__(self, columns: Mapping[str, Sequence[str]], width: int) -> None:
        super().__init__()
        self.columns = {column: tuple(values) for column, values in columns.items()}
        count = sum(map(len, self.columns.values()))
        self.directions: Tensor
        self.usual: Tensor
        self.register_buffer("directions", torch.zeros(count, width))
        self.register_buffer("usual", torch.zeros(count))

    def learn(
        self, images: Tensor, vocabularies: Sequence[Vocabulary], encode: Callable[[list[str]], Tensor]
    ) -> None:
        """Embed the descriptions of all values, and calibrate them with a gallery.

        ``images`` are unit vectors [N, D] of the gallery's images. ``vocabularies`` word the descriptions,
        and ``encode`` returns unit vectors [T, D] of T texts.
        """
        wording = CaptionGenerator(vocabularies, self.columns)
        means = [
            encode(descriptions(wording, column, value)).mean(dim=0)
            for column, values in self.columns.items()
            for value in values
        ]
        self.directions.copy_(F.normalize(torch.stack(means), dim=1))
        self.usual.copy_((images @ self.directions.T).mean(dim=0))

    def forward(self, images: Tensor, temperature: Tensor) -> list[Tensor]:
        """Return the probabilities of each column's values, [N, values], for images' unit vectors [N, D].

        ``temperature`` is that of the encoder.
        """
        logits = (images @ self.directions.T - self.usual) / temperature
        parts = logits.split([len(values) for values in self.columns.values()], dim=1)
        return [part.softmax(dim=1) for part in parts]
