"""Joining and cleaning captions, each by the name of the convention that does it so.

Sources: CLIP4Cir (joining, four-way draw), LAVIS ``BlipCaptionProcessor`` (cleaning).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

Joiner = Callable[[Sequence[str], random.Random | None], str]
"""Captions of a triplet, and a generator where the convention draws, to one text."""

_BLIP_NOISE = re.compile(r"[.!\"()*#:;~]")
_STRIPPED = ".?, "


def join_fashioniq(captions: Sequence[str], rng: random.Random | None = None) -> str:
    """Strip ``.?, `` from every caption, capitalise the first, join with " and "; draws nothing.

    Capitalising lowers the rest of the first caption; the others keep their case.
    """
    first, *others = (caption.strip(_STRIPPED) for caption in captions)
    return " and ".join([first.capitalize(), *others])


def two_way(captions: Sequence[str], rng: random.Random | None = None) -> str:
    """Join all captions in their own order or in the reverse, with equal chance.

    The training draw for catalogues: no caption is dropped, so the text asks for all that the right
    answers of the triplet were decided by.
    """
    drawn = _needed(rng, "two_way").random()
    return join_fashioniq(captions if drawn < 0.5 else captions[::-1])


def four_way(captions: Sequence[str], rng: random.Random | None = None) -> str:
    """Both captions, both in reverse order, the first alone, the second alone: a quarter each (CLIP4Cir).

    Where a triplet knows all its right answers, a caption alone may have more of them. A triplet
    with one caption keeps it. Raises ``ValueError`` for more than two captions.
    """
    drawn = _needed(rng, "four_way").random()
    if len(captions) > 2:
        raise ValueError(f"four_way draws from two captions, not from {len(captions)}")
    if drawn < 0.25:
        return join_fashioniq(captions)
    if drawn < 0.5:
        return join_fashioniq(captions[::-1])
    return join_fashioniq(captions[:1] if drawn < 0.75 else captions[-1:])


def blip_clean(text: str, max_words: int = 50) -> str:
    """Lower case, ``. ! " ( ) * # : ; ~`` to blanks, single blanks, at most ``max_words`` words (LAVIS)."""
    cleaned = re.sub(r"\s{2,}", " ", _BLIP_NOISE.sub(" ", text.lower()))
    words = cleaned.rstrip("\n").strip(" ").split(" ")
    return " ".join(words[:max_words])


CAPTION_JOINERS: dict[str, Joiner] = {
    "fashioniq": join_fashioniq,
    "two_way": two_way,
    "four_way": four_way,
}
"""How captions become one text: ``fashioniq`` for evaluation, the others draw for training."""


def _needed(rng: random.Random | None, convention: str) -> random.Random:
    if rng is None:
        raise ValueError(f"the caption convention {convention!r} draws: give it a seeded random.Random")
    return rng
