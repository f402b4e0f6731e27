"""Train attribute heads for the columns of a catalogue, on stored image tokens of a frozen tower.

Heads are not trained by ``Trainer``, which trains a method on triplets for a fixed number of steps and keeps
one best model. A head is a linear classifier of one column. Each column keeps the weights of its best round
on dev, and training ends when no column improves any more. It takes seconds, so an interrupted training
simply starts again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dqecir.data.cells import UNKNOWN_CODE
from dqecir.encoders.store import Store
from dqecir.io.device import chosen_device
from dqecir.io.progress import track
from dqecir.methods.attribute_heads import AttributeHeads, HeadsConfig
from dqecir.methods.dqe_values import DqeValues

ROUNDS, PATIENCE, BATCH, RATE = 40, 6, 64, 2e-3
STEPS = 15
"""Least number of steps between two evaluations on dev, so that a small catalogue is read several times."""
_CHUNK = 256


@dataclass(frozen=True)
class HeadScore:
    """Accuracy of a head on dev, and that of always predicting the commonest value of train, in percent."""

    accuracy: float
    commonest: float
    kept: bool
    """Whether the model keeps its earlier head, because training did not improve it."""

    @property
    def is_shown(self) -> bool:
        """Whether the head is better than always predicting the commonest value."""
        return self.accuracy > self.commonest


def fit_heads(
    old: AttributeHeads | None,
    columns: Mapping[str, tuple[str, ...]],
    token_width: int,
    train: tuple[Store, Tensor],
    dev: tuple[Store, Tensor],
    seed: int,
    quiet: bool = False,
) -> tuple[AttributeHeads, dict[str, HeadScore]]:
    """Train heads for ``columns`` (column -> its values); return them, and column -> its score on dev.

    ``old`` are heads to start from, if there are any; each column keeps its best weights on dev. ``train``
    and ``dev`` are stores of images with codes [N, C]: the place of the value in each column, or
    ``UNKNOWN_CODE``. ``token_width`` is W of the image tokens.
    """
    torch.manual_seed(seed)
    device = chosen_device()
    heads = AttributeHeads(HeadsConfig(token_width=token_width, columns=columns)).to(device)
    inherited = _inherit(heads, old) if old is not None else set()
    heads.norm.requires_grad_(False)  # All heads use it, including those that are not trained.
    best = copy.deepcopy(heads.state_dict())
    reached = _accuracies(heads, *dev) if inherited else {}
    reached = {column: value for column, value in reached.items() if column in inherited}
    kept, idle = set(reached), 0
    store, codes = train
    optimizer = torch.optim.AdamW(
        [parameter for parameter in heads.parameters() if parameter.requires_grad], RATE, weight_decay=0.05
    )
    generator = torch.Generator().manual_seed(seed)
    for _ in track(range(ROUNDS), "learning the columns, at most", quiet=quiet):
        if idle == PATIENCE:
            continue
        heads.train()
        for rows in _round(len(store), generator):
            logits = heads(store.gather(rows).to(device))
            losses = column_losses(logits, codes[rows])
            if losses:
                torch.stack(losses).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
        now = _accuracies(heads, *dev)
        better = [column for column, value in now.items() if value > reached.get(column, -1.0)]
        idle = 0 if better else idle + 1
        reached |= {column: now[column] for column in better}
        kept -= set(better)
        for column in better:
            _copy(heads.state_dict(), best, column, list(columns))
    heads.load_state_dict(best)
    common = _commonest(codes, dev[1], columns)
    scores = {
        column: HeadScore(100 * reached[column], 100 * common[column], column in kept) for column in columns
    }
    return heads.requires_grad_(False).eval(), scores


def heads_of_columns(heads: AttributeHeads, columns: Mapping[str, tuple[str, ...]]) -> AttributeHeads:
    """Return new, frozen heads for ``columns`` (column -> its values), with weights copied from ``heads``.

    A column that ``heads`` do not have with the same values gets random weights.
    """
    some = AttributeHeads(HeadsConfig(token_width=heads.config.token_width, columns=columns))
    _inherit(some, heads)
    return some.to(heads.queries.device).requires_grad_(False).eval()


def column_losses(logits: Mapping[str, Tensor], codes: Tensor, smoothing: float = 0.0) -> list[Tensor]:
    """Return the cross-entropy of each column that has a known value in the batch.

    ``logits``: column -> [B, values]; ``codes`` [B, C]: place of the right value, or ``UNKNOWN_CODE``.
    ``smoothing`` is the label smoothing, 0 to 1.
    """
    return [
        F.cross_entropy(
            values.float(),
            codes[:, place].to(values.device),
            ignore_index=UNKNOWN_CODE,
            label_smoothing=smoothing,
        )
        for place, values in enumerate(logits.values())
        if bool((codes[:, place] != UNKNOWN_CODE).any())
    ]


def _round(images: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield batches of row numbers of all images; all are repeated until there are :data:`STEPS` batches."""
    for _ in range(-(-STEPS * BATCH // images) if images < STEPS * BATCH else 1):
        yield from torch.randperm(images, generator=generator).split(BATCH)


def warm_start(new: DqeValues, old: DqeValues) -> None:
    """Copy from ``old`` to ``new`` the shared parameters, and those of columns with equal values in both."""
    for name in ("key", "word_norm", "read_norm"):
        new.get_submodule(name).load_state_dict(old.get_submodule(name).state_dict())
    new.base_scale.data.copy_(old.base_scale.data)
    for place, column in enumerate(new.columns):
        values = new.heads.config.columns[column]
        if column not in old.columns or old.heads.config.columns[column] != values:
            continue
        before = old.columns.index(column)
        for name in ("prompts", "lexicon_bias", "asks", "asks_bias", "column_scale", "emphasis"):
            new.get_parameter(name).data[place] = old.get_parameter(name).data[before]
        new.values[place].load_state_dict(old.values[before].state_dict())
        new.moves[place].load_state_dict(old.moves[before].state_dict())


def _inherit(heads: AttributeHeads, old: AttributeHeads) -> set[str]:
    """Copy from ``old`` the shared norm, and the heads of columns that have the same values in both.

    Return these columns.
    """
    heads.norm.load_state_dict(old.norm.state_dict())
    before, columns = old.config.columns, list(heads.config.columns)
    same = {column for column in columns if before.get(column) == heads.config.columns[column]}
    for column in same:
        place, source = columns.index(column), list(before).index(column)
        heads.queries.data[place] = old.queries.data[source]
        heads.classifiers[place].load_state_dict(old.classifiers[source].state_dict())
    return same


def _copy(source: Mapping[str, Tensor], target: dict[str, Tensor], column: str, columns: list[str]) -> None:
    place = columns.index(column)
    target["queries"][place] = source["queries"][place]
    for name in ("weight", "bias"):
        target[f"classifiers.{place}.{name}"].copy_(source[f"classifiers.{place}.{name}"])


@torch.no_grad()
def _accuracies(heads: AttributeHeads, store: Store, codes: Tensor) -> dict[str, float]:
    """Return column -> share (0 to 1) of right predictions among the images of ``store`` with a known value.

    ``codes`` [N, C] are the right values. The share is 0 if no image has a known value.
    """
    heads.eval()
    named = []
    for rows in torch.arange(len(store)).split(_CHUNK):
        logits = heads(store.gather(rows).to(heads.queries.device))
        named.append(torch.stack([values.argmax(dim=1) for values in logits.values()], dim=1).cpu())
    right, known = torch.cat(named) == codes, codes != UNKNOWN_CODE
    return {
        column: float((right & known)[:, place].sum() / known[:, place].sum().clamp(min=1))
        for place, column in enumerate(heads.config.columns)
    }


def _commonest(train: Tensor, dev: Tensor, columns: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """Return column -> share (0 to 1) of the images of ``dev`` that have the commonest value of ``train``.

    ``train`` and ``dev`` are codes [N, C]. Images whose value is unknown do not count.
    """
    shares = {}
    for place, column in enumerate(columns):
        seen, asked = (codes[codes[:, place] != UNKNOWN_CODE, place] for codes in (train, dev))
        guess = seen.mode().values if len(seen) else torch.tensor(UNKNOWN_CODE)
        shares[column] = float((asked == guess).float().mean()) if len(asked) else 0.0
    return shares
