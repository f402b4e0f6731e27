"""Word pieces of texts, as a model folder holds them: published ones, or those trained here.

The files are transformers', and transformers reads them too; importing it takes longer than reading them.
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
"""In the order of their ids; ``[DEC]`` is BLIP-2's start token."""

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
"""What transformers is told of word pieces that are trained here."""


@dataclass(frozen=True)
class Placeholder:
    """A text that is one token wherever it stands as a word, for textual inversion to write over."""

    text: str
    id: int


class TextTokenizer(Protocol):
    """How an encoder's texts become tokens; special tokens that stand around a text are among them."""

    unknown_id: int
    """The token that stands for what the tokenizer does not know."""
    special_ids: list[int]
    """Tokens that stand for no words of a text."""
    placeholder: Placeholder | None

    def __call__(self, texts: Sequence[str], max_length: int) -> list[Encoding]:
        """Cut texts into at most ``max_length`` tokens each."""

    def __len__(self) -> int: ...

    def ids(self, words: str) -> list[int]:
        """Return the tokens of words, without special ones."""

    def vocabulary(self) -> dict[str, int]:
        """Return every token with its id."""

    def save_pretrained(self, folder: Path) -> None:
        """Write what reads the same tokenizer again."""


PLACEHOLDERS = ("[MASK]", "<mask>", "$", "*", "thing")
"""What may stand in a text for an image: a mask token, or else a word that few texts have."""


class WordPieces:
    """Cuts texts into the word pieces that a model knows.

    ``settings`` are those of transformers; they are kept as they are and not read.
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
        """Read what :meth:`save_pretrained` or transformers wrote; raises :class:`CheckpointError`."""
        parts: list[Any] = []
        for name, read in ((_SETTINGS_FILE, _settings_from), (_FILE, Tokenizer.from_str)):
            try:
                parts.append(read((folder / name).read_text(encoding="utf-8")))
            except FileNotFoundError as error:
                raise CheckpointError(
                    f"{folder / name} is missing: the model folder is half there, copy it again"
                ) from error
            except Exception as error:  # the library raises nothing narrower
                raise CheckpointError(f"{folder / name} is damaged ({error}): copy it again") from error
        settings, pieces = parts
        return cls(pieces, settings)

    def save_pretrained(self, folder: Path) -> None:
        """Write the two files that transformers writes."""
        # How far texts were cut belongs to their reader.
        write_json(folder / _FILE, json.loads(self.pieces.to_str()) | {"truncation": None})
        write_json(folder / _SETTINGS_FILE, dict(self.settings))

    def __len__(self) -> int:
        """Return the number of word pieces."""
        return self.pieces.get_vocab_size()

    def vocabulary(self) -> dict[str, int]:
        """Return every word piece with its id."""
        return self.pieces.get_vocab()

    def __call__(self, texts: Sequence[str], max_length: int) -> list[Encoding]:
        """Cut texts into at most ``max_length`` pieces each, [CLS] and [SEP] among them."""
        cut = self.pieces.truncation
        if cut is None or cut["max_length"] != max_length:
            self.pieces.enable_truncation(max_length)
        return self.pieces.encode_batch(list(texts))

    def ids(self, words: str) -> list[int]:
        """Return the ids of the pieces of words, without special tokens."""
        return self.pieces.encode(words, add_special_tokens=False).ids

    def _as_placeholder(self, word: str) -> Placeholder | None:
        """``word`` as a placeholder, where it is one known token, the same one at every place of a text."""
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
        """Return the id of one piece, such as ``[MASK]``; None where there is none."""
        return self.pieces.token_to_id(token)


def train_word_pieces(corpus: Iterable[str], size: int) -> WordPieces:
    """Train an uncased word-piece tokenizer of at most ``size`` entries on ``corpus``."""
    texts = list(corpus)
    learner = _untrained({})
    assert learner.normalizer is not None
    letters = sorted({letter for text in texts for letter in learner.normalizer.normalize_str(text)})
    # Pieces are numbered as they are met, in the order of a hash, and equally frequent pairs are joined in
    # the order of those numbers: given beforehand, the same corpus makes the same pieces every time.
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
