"""Join and clean captions by the conventions of published code.

Sources: CLIP4Cir (joining, four-way draw), LAVIS ``BlipCaptionProcessor`` (cleaning).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

READINGS = {"fixed": 1, "two_way": 2, "four_way": 4}
"""Number of orders of :func:`caption_order` that training draws from, with equal chance."""

_BLIP_NOISE = re.compile(r"[.!\"()*#:;~]")
_STRIPPED = ".?, "


def join_fashioniq(captions: Sequence[str]) -> str:
    """Strip ``.?, `` from every caption, capitalise the first, join with " and ".

    Capitalising lowers the rest of the first caption; the others keep their case.
    """
    first, *others = (caption.strip(_STRIPPED) for caption in captions)
    return " and ".join([first.capitalize(), *others])


def caption_order(captions: tuple[str, ...], reading: int) -> tuple[str, ...]:
    """Return the captions of one of the orders that training draws (CLIP4Cir).

    0: all in their own order; 1: all reversed; 2: the first alone; 3: the last alone. If the one alone has
    no words, all are returned (FashionIQ has 17 such captions).
    """
    chosen = (captions, captions[::-1], captions[:1], captions[-1:])[reading]
    return chosen if any(caption.strip(_STRIPPED) for caption in chosen) else captions


def blip_clean(text: str, max_words: int = 50) -> str:
    """Lower case; replace ``. ! " ( ) * # : ; ~`` by blanks; keep ``max_words`` words (LAVIS)."""
    cleaned = re.sub(r"\s{2,}", " ", _BLIP_NOISE.sub(" ", text.lower()))
    words = cleaned.rstrip("\n").strip(" ").split(" ")
    return " ".join(words[:max_words])
