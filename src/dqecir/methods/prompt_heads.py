"""Attribute heads without labels: predict the value whose descriptions are most similar to the image.

The descriptions are a vocabulary's statements in several sentence frames. Some are similar to every image, so
each description's mean similarity to the gallery is subtracted. Probabilities use the encoder's temperature.
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
"""Sentence frames of a statement."""

MOST_STATEMENTS = 8
"""Number of statements of a value, evenly spaced among those of its vocabulary."""

UNSAID = ("other", "")
"""Values that cannot be described."""

_OF_CHANGE = re.compile(r"\b(more|less|instead|rather|change|should|make|add|remove)\b")


def described_columns(vocabularies: Sequence[Vocabulary]) -> dict[str, tuple[str, ...]]:
    """Return the columns of vocabularies with two or more values that can be described, and these values."""
    found = {
        name: tuple(value for value in column.values if value not in UNSAID)
        for vocabulary in vocabularies
        for name, column in vocabulary.columns.items()
    }
    return {name: values for name, values in found.items() if len(values) > 1}


def descriptions(wording: CaptionGenerator, column: str, value: str) -> list[str]:
    """Return texts that describe an image of a value."""
    said = [text for text in wording.statements(column, value) if _OF_CHANGE.search(text) is None]
    step = max(1, len(said) / MOST_STATEMENTS)
    drawn = [said[int(place * step)] for place in range(min(len(said), MOST_STATEMENTS))]
    return [frame.format(text) for text in drawn for frame in FRAMES]


class PromptHeads(nn.Module):
    """Predict every column's values from similarities of unit image vectors to descriptions."""

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
        """Embed the descriptions of all values, and calibrate by a gallery's unit vectors [N, D].

        ``encode`` returns unit vectors [T, D] of texts.
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
        """Turn unit vectors [N, D] into probabilities, [N, values] for each column."""
        logits = (images @ self.directions.T - self.usual) / temperature
        parts = logits.split([len(values) for values in self.columns.values()], dim=1)
        return [part.softmax(dim=1) for part in parts]
