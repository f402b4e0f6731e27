"""The learned part of the reader: it tags the words of a text that request something.

A small transformer over word pieces (three layers like MiniLM's) predicts for every word a role (such as
colour or garment, or none), an operation (such as "is" or "is not"), a usual value, and whether it requests
something that belongs to no column. It knows the roles in ``ROLES`` and their usual values; words that name a
catalogue's own values and columns are marked in its input (``Mark``).
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from dqecir.errors import CheckpointError
from dqecir.language.spoken import USUAL

Operation = Literal["is", "is not", "more", "less"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
OWN = "value"
"""Role of words that name a value of a column that the tagger does not know."""
ROLES = (*USUAL, OWN)
VALUES: tuple[str | None, ...] = (None, *sorted({value for values in USUAL.values() for value in values}))
WEIGHTS = "reader.safetensors"
WINDOW = 48
"""Number of words that are tagged together; a longer text is tagged in parts."""
BEYOND = 0.4
"""Least probability at which a word counts as a request that belongs to no column."""
_USUAL_KIND = "shirt"
"""Kind of the reference if it is unknown, because few training texts had none."""
_PIECES = 8
"""Most word pieces that are read of one word."""
_LETTERS = 60
"""Most letters that are read of one word."""
_WIDTH, _HEADS, _INNER = 384, 12, 1536
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*|\d+|[^\w\s]|_")
_UNKNOWN = "[UNK]"


class Mark(IntEnum):
    """What a word names in the catalogue: nothing, a value, or a column."""

    NONE = 0
    VALUE = 1
    COLUMN = 2


class Word(NamedTuple):
    """A word or a symbol of a text in lower case, and its position [start, end) in characters."""

    text: str
    start: int
    end: int


def words_of(text: str) -> list[Word]:
    """Return the words, numbers and symbols of a text, in order."""
    return [Word(found.group().lower(), found.start(), found.end()) for found in _WORD.finditer(text)]


@dataclass(frozen=True)
class Tag:
    """What the tagger predicts for one word; ``role`` is None if it names nothing.

    ``scores`` are log-probabilities of ``VALUES`` [V]. ``beyond``: the word requests something that belongs
    to no column. ``sure`` is the probability of role and operation.
    """

    role: str | None
    operation: Operation
    scores: NDArray[np.float32]
    beyond: bool
    sure: float = 1.0


class TaggerPieces:
    """Splits words into ids of word pieces; the longest known piece is taken first."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = tuple(pieces)
        self._ids = {piece: place for place, piece in enumerate(pieces)}
        self.start, self.end = self._ids["[CLS]"], self._ids["[SEP]"]
        self._cached = lru_cache(maxsize=20_000)(self._split)

    def __call__(self, word: str) -> tuple[int, ...]:
        """Return the ids of the pieces of a word, from 1 to 8 of them."""
        return self._cached(word)

    def __contains__(self, word: str) -> bool:
        return word in self._ids

    def _split(self, word: str) -> tuple[int, ...]:
        plain = "".join(
            c for c in unicodedata.normalize("NFKD", word[:_LETTERS]) if not unicodedata.combining(c)
        )
        found: list[int] = []
        for part in re.findall(r"\w+|[^\w\s]", plain.replace("\u2019", "'")):
            found += self._longest(part)
        return tuple(found[:_PIECES]) or (self._ids[_UNKNOWN],)

    def _longest(self, part: str) -> list[int]:
        found, start = [], 0
        while start < len(part):
            for end in range(len(part), start, -1):
                piece = ("##" if start else "") + part[start:end]
                if piece in self._ids:
                    break
            else:
                return [self._ids[_UNKNOWN]]
            found.append(self._ids[piece])
            start = end
        return found


class _Layer(nn.Module):
    """A transformer layer that normalises after each residual sum, as in BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(_WIDTH, 3 * _WIDTH), nn.Linear(_WIDTH, _WIDTH)
        self.n1, self.n2 = nn.LayerNorm(_WIDTH, eps=1e-12), nn.LayerNorm(_WIDTH, eps=1e-12)
        self.f1, self.f2 = nn.Linear(_WIDTH, _INNER), nn.Linear(_INNER, _WIDTH)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the states [B, T, D] after the layer; ``mask`` [B, 1, 1, T] is False for padding."""
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, _HEADS, d // _HEADS).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = self.n1(x + self.drop(self.o(seen.transpose(1, 2).reshape(b, t, d))))
        out: Tensor = self.n2(x + self.drop(self.f2(functional.gelu(self.f1(x)))))
        return out


class Batch(NamedTuple):
    """Word pieces of B texts: ids, mask and marks [B, T].

    ``pool`` [B, W, T] averages the pieces of each word.
    """

    ids: Tensor
    mask: Tensor
    marks: Tensor
    pool: Tensor


class Scores(NamedTuple):
    """Logits of every word [B, W, ...]: of no role and ``ROLES``, ``OPERATIONS``, ``VALUES``, and beyond."""

    role: Tensor
    operation: Tensor
    value: Tensor
    beyond: Tensor


class TaggerNetwork(nn.Module):
    """The network: word pieces to scores of words."""

    def __init__(self, pieces: int, layers: int) -> None:
        super().__init__()
        self.emb, self.pos = nn.Embedding(pieces, _WIDTH), nn.Embedding(512, _WIDTH)
        self.flag, self.n = nn.Embedding(4, _WIDTH), nn.LayerNorm(_WIDTH, eps=1e-12)
        nn.init.zeros_(self.flag.weight)
        self.layers = nn.ModuleList(_Layer() for _ in range(layers))
        self.drop = nn.Dropout(0.15)
        self.role, self.op = nn.Linear(_WIDTH, 1 + len(ROLES)), nn.Linear(_WIDTH, len(OPERATIONS))
        self.val, self.other = nn.Linear(_WIDTH, len(VALUES)), nn.Linear(_WIDTH, 1)

    def forward(self, batch: Batch) -> Scores:
        x = self.emb(batch.ids) + self.pos.weight[: batch.ids.shape[1]] + self.flag(batch.marks)
        x = self.drop(self.n(x))
        mask = batch.mask[:, None, None, :]
        for layer in self.layers:
            x = layer(x, mask)
        h = self.drop(torch.bmm(batch.pool.to(x.dtype), x))
        return Scores(self.role(h), self.op(h), self.val(h), self.other(h).squeeze(-1))


class Tagger:
    """A network and its word pieces; ``notes`` say how it was trained."""

    def __init__(
        self, network: TaggerNetwork, pieces: TaggerPieces, notes: Mapping[str, Any] | None = None
    ) -> None:
        self.network, self.pieces, self.notes = network, pieces, dict(notes or {})

    @property
    def name(self) -> str:
        """Identifies the weights, if the tagger was read from a folder."""
        return str(self.notes["weights"])

    def batch(self, texts: Sequence[tuple[Sequence[str], Sequence[int] | None, str]]) -> Batch:
        """Turn texts into tensors.

        A text is (its words, their marks, the reference's kind of garment or "").
        """
        rows = [self._row(*text) for text in texts]
        t, w = max(len(ids) for ids, _, _ in rows), max(len(spans) for _, _, spans in rows)
        ids, marks = torch.zeros(2, len(rows), t, dtype=torch.long)
        mask, pool = torch.zeros(len(rows), t, dtype=torch.bool), torch.zeros(len(rows), w, t)
        for row, (own, flags, spans) in enumerate(rows):
            ids[row, : len(own)], marks[row, : len(own)] = torch.tensor(own), torch.tensor(flags)
            mask[row, : len(own)] = True
            for place, (start, end) in enumerate(spans):
                pool[row, place, start:end] = 1 / (end - start)
        return Batch(ids, mask, marks, pool)

    def _row(
        self, words: Sequence[str], marks: Sequence[int] | None, category: str
    ) -> tuple[list[int], list[int], list[tuple[int, int]]]:
        ids = [self.pieces.start, *(self.pieces(category) if category else ()), self.pieces.end]
        flags, spans = [0] * len(ids), []
        for place, word in enumerate(words):
            own = self.pieces(word)
            spans.append((len(ids), len(ids) + len(own)))
            ids += own
            flags += [marks[place] if marks else 0] * len(own)
        return [*ids, self.pieces.end], [*flags, 0], spans

    @torch.inference_mode()
    def tag(self, words: Sequence[str], marks: Sequence[int], category: str = "") -> list[Tag]:
        """Return the tag of each word.

        ``category`` is the kind of the reference's garment, if it is known. ``marks``: what each word names
        in the catalogue (:class:`Mark`).
        """
        found: list[Tag] = []
        for start in range(0, len(words), WINDOW):
            part = slice(start, start + WINDOW)
            scores = self.network(self.batch([(words[part], marks[part], category or _USUAL_KIND)]))
            found += _tags(scores)
        return found

    def save(self, folder: Path, notes: Mapping[str, Any] | None = None) -> None:
        """Write word pieces and weights to ``folder``.

        Matrices but the smallest are stored with 8 bits and a scale for each row, all else with 16 bits.

        ``notes`` say how it was trained. Default: the notes that it has.
        """
        notes = self.notes if notes is None else notes
        state: dict[str, Tensor] = {}
        for name, tensor in self.network.state_dict().items():
            if tensor.dim() == 2 and name != "flag.weight":
                tensor = tensor[: WINDOW * _PIECES + 32] if name == "pos.weight" else tensor
                scale = tensor.abs().amax(dim=1, keepdim=True).clamp_min(1e-8) / 127
                state[name] = (tensor / scale).round().to(torch.int8)
                state[f"{name}.scale"] = scale.half()
            else:
                state[name] = tensor.half()
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / WEIGHTS)
        (folder / "pieces.txt").write_text("\n".join(self.pieces.pieces) + "\n", encoding="utf-8")
        weights = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()[:16]
        known = {"roles": ROLES, "operations": OPERATIONS, "values": VALUES}
        text = json.dumps(
            {"layers": len(self.network.layers), **notes, "weights": weights, **known}, indent=1
        )
        (folder / "reader.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Tagger:
        """Read what :meth:`save` wrote.

        Raises :class:`CheckpointError` if it is damaged or of another version.
        """
        try:
            notes = json.loads((folder / "reader.json").read_text(encoding="utf-8"))
            pieces = TaggerPieces((folder / "pieces.txt").read_text(encoding="utf-8").splitlines())
            state = load_file(folder / WEIGHTS)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise CheckpointError(f"{folder} holds a damaged text reader ({error}): copy it again") from error
        known = [list(part) for part in (ROLES, OPERATIONS, VALUES)]
        if [notes.get(key) for key in ("roles", "operations", "values")] != known:
            raise CheckpointError(
                f"{folder} holds a text reader with other columns and values than this version of dqecir: "
                "delete this folder, and the model uses the reader of this version"
            )
        whole = {
            name: tensor.float() * state[f"{name}.scale"].float()
            if f"{name}.scale" in state
            else tensor.float()
            for name, tensor in state.items()
            if not name.endswith(".scale")
        }
        try:
            network = TaggerNetwork(len(pieces.pieces), notes["layers"])
            network.pos = nn.Embedding(*whole["pos.weight"].shape)
            network.load_state_dict(whole)
        except (KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"{folder} holds a text reader whose weights do not fit its settings: copy it again"
            ) from error
        return cls(network.eval(), pieces, notes)


@cache
def shipped_tagger(name: str = "reader") -> Tagger:
    """Load a tagger of the package: ``reader``, or ``reader-generated``, trained without captions."""
    with resources.as_file(resources.files("dqecir") / "assets" / name) as folder:
        return Tagger.load(folder)


def shipped_name() -> str:
    """Return the name of the weights of the package's tagger."""
    text = (resources.files("dqecir") / "assets" / "reader" / "reader.json").read_text(encoding="utf-8")
    return str(json.loads(text)["weights"])


_ALLOWED = {role: np.array([value in USUAL.get(role, ()) for value in VALUES]) for role in ROLES}


def likeliest(role: str, operation: Operation, scores: NDArray[np.float32]) -> str | None:
    """Return the value of ``role`` with the highest score; None if the words compare and name no value, or
    if the role has no values of its own.

    ``scores`` as in :class:`Tag`.
    """
    allowed = _ALLOWED[role].copy()
    allowed[0] = operation in ("more", "less") or not allowed.any()
    return VALUES[int(np.where(allowed, scores, -np.inf).argmax())]


def _tags(scores: Scores) -> list[Tag]:
    """Return the most probable tag of each word, for a batch of one text."""
    roles = scores.role[0].softmax(-1).max(-1)
    operations = scores.operation[0].softmax(-1).max(-1)
    values = scores.value[0].log_softmax(-1).numpy()
    beyond = (scores.beyond[0].sigmoid() > BEYOND).tolist()
    sure = (roles.values * operations.values).tolist()
    return [
        Tag(ROLES[role - 1] if role else None, OPERATIONS[operation], *rest)
        for role, operation, *rest in zip(
            roles.indices.tolist(), operations.indices.tolist(), values, beyond, sure, strict=True
        )
    ]
