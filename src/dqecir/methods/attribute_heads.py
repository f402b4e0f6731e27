"""Find the words of attributes in texts, and predict attributes of images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from tokenizers import Encoding
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from dqecir.encoders.encoder import TextBatch
from dqecir.encoders.tokenizer import TextTokenizer
from dqecir.errors import DataError
from dqecir.language.vocabulary import Vocabulary
from dqecir.settings import Strict, nearest

_WORD = re.compile(r"\w+")
_HALF = re.compile(r"[\ud800-\udfff]")


class TextEncoder:
    """Turns texts into token ids, and marks the tokens of words that belong to an attribute's lexicon.

    A lexicon is the set of words that signal an attribute, such as "red" for colour. ``vocabularies``: one
    for each attribute, in the order of all results. ``max_length``: largest number of tokens of a text.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        vocabularies: Sequence[Vocabulary],
        max_length: int = 32,
    ) -> None:
        self.tokenizer = tokenizer
        self.vocabularies = tuple(vocabularies)
        self.max_length = max_length

    def __call__(self, texts: Sequence[str], blank: bool = False) -> TextBatch:
        """Return the token ids of ``texts`` and, for each attribute, which tokens belong to its lexicon.

        Texts are cut on the right to ``max_length`` tokens, and padded to the longest. Raises
        :class:`DataError` for an empty text, unless ``blank`` allows it (CIRR's test split has one), and for
        a text with lone surrogates, which come from a terminal with another encoding.
        """
        for text in texts:
            if not text.strip() and not blank:
                raise DataError("a modification text is empty: say what should change")
            if _HALF.search(text):
                raise DataError(
                    f"the modification text {text!r} has bytes that are not UTF-8, or half of a character: "
                    "save its file as UTF-8, or set the terminal to UTF-8 (export LANG=C.UTF-8)"
                )
        cut = self.tokenizer(texts, self.max_length)
        ids, mask = (
            pad_sequence([torch.tensor(row) for row in rows], batch_first=True)  # 0 is [PAD]
            for rows in ([one.ids for one in cut], [one.attention_mask for one in cut])
        )
        mentions = torch.zeros(len(texts), len(self.vocabularies), ids.shape[1], dtype=torch.bool)
        for row, text in enumerate(texts):
            for place, word in _words(cut[row], text):
                for attribute, vocabulary in enumerate(self.vocabularies):
                    mentions[row, attribute, place] = word in vocabulary.lexicon
        return TextBatch(ids, mask, mentions, tuple(texts))

    def lexicon_ids(self) -> list[Tensor]:
        """Return the token ids of all words in each attribute's lexicon, one tensor for each attribute."""
        return [
            torch.tensor(sorted({piece for word in vocabulary.lexicon for piece in self.tokenizer.ids(word)}))
            for vocabulary in self.vocabularies
        ]


def _words(cut: Encoding, text: str) -> list[tuple[int, str]]:
    """Return (place of the token, word in lower case) for every token of ``text`` that belongs to a word.

    ``cut`` are the tokens of ``text``. Words are found in the text itself, because some tokenizers count a
    space as part of the word after it, or a whole text as one word.
    """
    places = []
    for place, (word, (start, end)) in enumerate(zip(cut.word_ids, cut.offsets, strict=True)):
        span = cut.word_to_chars(word) if word is not None else None
        for found in _WORD.finditer(text, *span) if span is not None else ():
            if found.start() < end and found.end() > start:
                places.append((place, found[0].lower()))
    return places


class HeadsConfig(Strict):
    """What attribute heads predict.

    ``columns``: column -> its values, in the order of the predictions. ``token_width``: size of an image
    token.
    """

    token_width: int
    columns: Mapping[str, tuple[str, ...]]


class AttributeHeads(nn.Module):
    """One classifier for each catalogue column; each pools the image tokens by its own attention.

    The first stage of training from scratch trains the image tower with them; later they predict the
    attributes of images.
    """

    def __init__(self, config: HeadsConfig) -> None:
        super().__init__()
        self.config = config
        width = config.token_width
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.empty(len(config.columns), width).normal_(0, width**-0.5))
        self.dropout = nn.Dropout(0.2)
        self.classifiers = nn.ModuleList(nn.Linear(width, len(values)) for values in config.columns.values())

    def pooled(self, tokens: Tensor) -> Tensor:
        """Pool image tokens [B, M, W] to one vector for each of C columns, [B, C, W]."""
        states = self.norm(tokens.to(self.norm.weight.dtype))
        attention = torch.einsum("cw,bmw->bcm", self.queries, states).softmax(dim=2)
        return torch.einsum("bcm,bmw->bcw", attention, states)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Return the logits of every column's values, column -> [B, its values], for tokens [B, M, W]."""
        pooled = self.dropout(self.pooled(tokens))
        return {
            column: classifier(pooled[:, place])
            for place, (column, classifier) in enumerate(
                zip(self.config.columns, self.classifiers, strict=True)
            )
        }

    def renamed(self, names: Mapping[str, str]) -> AttributeHeads:
        """Return frozen heads with the same weights, where ``names`` maps a column to its head's name here.

        A head that had the column's name is left out. Raises :class:`DataError` if there is no head of a name
        that a column is mapped to.
        """
        known = list(self.config.columns)
        for name in names.values():
            if name not in known:
                raise DataError(f"the model has no attribute head for {name!r}{nearest(name, known)}")
        others = [name for name in known if name not in names and name not in names.values()]
        sources = {**{name: name for name in others}, **names}
        columns = {column: self.config.columns[name] for column, name in sources.items()}
        heads = AttributeHeads(HeadsConfig(token_width=self.config.token_width, columns=columns))
        heads.norm.load_state_dict(self.norm.state_dict())
        for place, name in enumerate(sources.values()):
            heads.queries.data[place] = self.queries.data[known.index(name)]
            heads.classifiers[place].load_state_dict(self.classifiers[known.index(name)].state_dict())
        return heads.to(self.queries.device).requires_grad_(False).eval()
