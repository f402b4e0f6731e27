"""Split texts into tokens, with a published tokenizer or one trained here.

The files are those of transformers, which is not used here because it is slow to import.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tokenizers import (
    Encoding,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from dqecir.errors import CheckpointError
from dqecir.io.files import write_json

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")
"""Special tokens in the order of their ids; ``[DEC]`` is BLIP-2's start token."""

_FILE, _SETTINGS_FILE = "tokenizer.json", "tokenizer_config.json"
_SETTINGS: Mapping[str, Any] = {
    "backend": "tokenizers",
    "tokenizer_class": "TokenizersBackend",
    "bos_token": "[DEC]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}
"""Settings that transformers needs to read a tokenizer that was trained here."""


@dataclass(frozen=True)
class Placeholder:
    """A word that is one token in every text; textual inversion replaces it by a vector."""

    text: str
    id: int


class TextTokenizer(Protocol):
    """The interface of a tokenizer; its results contain the special tokens around a text."""

    unknown_id: int
    """Id of the token for unknown words; 0 if there is none."""
    special_ids: list[int]
    """Ids of the tokens that are not words of a text."""
    placeholder: Placeholder | None
    """None if no candidate is one token everywhere in a text."""

    def __call__(self, texts: Sequence[str], max_length: int) -> list[Encoding]:
        """Tokenise texts; each is cut to at most ``max_length`` tokens."""

    def __len__(self) -> int: ...

    def ids(self, words: str) -> list[int]:
        """Return the ids of the tokens of ``words``, without special tokens."""

    def vocabulary(self) -> dict[str, int]:
        """Return token -> id for all tokens."""

    def save_pretrained(self, folder: Path) -> None:
        """Write the files from which the same tokenizer can be read."""


PLACEHOLDERS = ("[MASK]", "<mask>", "$", "*", "thing")
"""Candidates for the placeholder of an image: a mask token, else a rare word; the first known one is
taken."""


class WordPieces:
    """A tokenizer of the library ``tokenizers``: word pieces, or another kind that was published.

    ``settings`` are those of transformers; they are stored unchanged and not used here.
    """

    def __init__(self, pieces: Tokenizer, settings: Mapping[str, Any]) -> None:
        self.pieces, self.settings = pieces, settings
        pieces.no_padding()
        pieces.no_truncation()
        special = (id for id, token in pieces.get_added_tokens_decoder().items() if token.special)
        self.special_ids = sorted(special)
        named = settings.get("unk_token") or "[UNK]"
        unknown = self.id_of(str(named["content"] if isinstance(named, Mapping) else named))
        self.unknown_id = 0 if unknown is None else unknown
        known = (self._as_placeholder(word) for word in PLACEHOLDERS)
        self.placeholder = next((word for word in known if word is not None), None)

    @classmethod
    def from_pretrained(cls, folder: Path) -> WordPieces:
        """Read a tokenizer that :meth:`save_pretrained` or transformers wrote.

        Raises :class:`CheckpointError` if a file is missing or damaged.
        """
        parts: list[Any] = []
        for name, read in ((_SETTINGS_FILE, _settings_from), (_FILE, Tokenizer.from_str)):
            try:
                parts.append(read((folder / name).read_text(encoding="utf-8")))
            except FileNotFoundError as error:
                raise CheckpointError(
                    f"{folder / name} is missing: the model folder is incomplete, copy it again"
                ) from error
            except Exception as error:  # The library raises no narrower exception.
                raise CheckpointError(f"{folder / name} is damaged ({error}): copy it again") from error
        settings, pieces = parts
        return cls(pieces, settings)

    def after(self, steps: Sequence[normalizers.Normalizer]) -> WordPieces:
        """Return a tokenizer that first changes texts by ``steps``.

        This tokenizer shares the change: do not use it afterwards. Without steps it is returned unchanged.
        """
        if not steps:
            return self
        own = self.pieces.normalizer
        self.pieces.normalizer = normalizers.Sequence([*steps, *([own] if own is not None else [])])
        return WordPieces(self.pieces, self.settings)

    def save_pretrained(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``, which transformers can also read."""
        # Remove the maximum length of texts, which is not a setting of this tokenizer.
        write_json(folder / _FILE, json.loads(self.pieces.to_str()) | {"truncation": None})
        write_json(folder / _SETTINGS_FILE, dict(self.settings))

    def __len__(self) -> int:
        """Return the number of tokens."""
        return self.pieces.get_vocab_size()

    def vocabulary(self) -> dict[str, int]:
        """Return token -> id for all tokens."""
        return self.pieces.get_vocab()

    def __call__(self, texts: Sequence[str], max_length: int) -> list[Encoding]:
        """Tokenise texts; each is cut to at most ``max_length`` tokens, counting special tokens."""
        cut = self.pieces.truncation
        if cut is None or cut["max_length"] != max_length:
            self.pieces.enable_truncation(max_length)
        return self.pieces.encode_batch(list(texts))

    def ids(self, words: str) -> list[int]:
        """Return the ids of the pieces of ``words``, without special tokens."""
        return self.pieces.encode(words, add_special_tokens=False).ids

    def _as_placeholder(self, word: str) -> Placeholder | None:
        """Return ``word`` as a placeholder if it is one known token, the same everywhere in a text.

        Return None for every other word.
        """
        found = set()
        for before in ("", "this is ", "a photo of "):
            for after in ("", " that is", " is"):
                cut = self.pieces.encode(f"{before}{word}{after}", add_special_tokens=False)
                start, end = len(before), len(before) + len(word)
                spans = zip(cut.ids, cut.offsets, strict=True)
                found.add(tuple(id for id, (a, b) in spans if a < end and b > start))
        (ids, *others) = found
        usable = not others and len(ids) == 1 and ids[0] != self.unknown_id
        return Placeholder(word, ids[0]) if usable else None

    def id_of(self, token: str) -> int | None:
        """Return the id of a piece such as ``[MASK]``; None if there is no such piece."""
        return self.pieces.token_to_id(token)


def train_word_pieces(corpus: Iterable[str], size: int) -> WordPieces:
    """Train an uncased word-piece tokenizer with up to ``size`` pieces on the texts of ``corpus``.

    It has more if ``size`` is too small for the special tokens and
    two pieces for each letter of the corpus, which are always included.
    """
    texts = list(corpus)
    learner = _untrained({})
    assert learner.normalizer is not None
    letters = sorted({letter for text in texts for letter in learner.normalizer.normalize_str(text)})
    # The trainer numbers pieces in the order of a hash, and joins equally frequent pairs in that order.
    # With numbers given by us, the same corpus always gives the same pieces.
    given = [
        *SPECIAL_TOKENS,
        *(form for letter in letters for form in (letter, f"##{letter}") if letter > " "),
    ]
    learner.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=size, special_tokens=given, show_progress=False)
    )
    tokenizer = _untrained(learner.get_vocab())
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return WordPieces(tokenizer, _SETTINGS)


def _untrained(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def _settings_from(text: str) -> dict[str, Any]:
    settings = json.loads(text)
    if not isinstance(settings, dict):
        raise ValueError("a map is expected")
    return settings
