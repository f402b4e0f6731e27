"""Join and clean captions as published code does.

Sources: CLIP4Cir (joining, four-way draw), LAVIS ``BlipCaptionProcessor`` (cleaning).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

READINGS = {"fixed": 1, "two_way": 2, "four_way": 4}
"""Setting -> number of the orders of :func:`caption_order` from which training draws with the same chance."""

_BLIP_NOISE = re.compile(r"[.!\"()*#:;~]")
_STRIPPED = ".?, "


def join_fashioniq(captions: Sequence[str]) -> str:
    """Join captions with " and ", without ``.?, `` at their ends and with the first capitalised.

    Capitalising turns the rest of the first caption into lower case; the others keep their case.
    """
    first, *others = (caption.strip(_STRIPPED) for caption in captions)
    return " and ".join([first.capitalize(), *others])


def caption_order(captions: tuple[str, ...], reading: int) -> tuple[str, ...]:
    """Return the captions in one of the orders that training draws (CLIP4Cir).

    ``reading`` 0: all in the given order; 1: all in reverse order; 2: only the first; 3: only the last. If a
    single caption has no words, all are returned (FashionIQ has 17 such captions).
    """
    chosen = (captions, captions[::-1], captions[:1], captions[-1:])[reading]
    return chosen if any(caption.strip(_STRIPPED) for caption in chosen) else captions


def blip_clean(text: str, max_words: int = 50) -> str:
    """Lower the case, replace ``. ! " ( ) * # : ; ~`` by blanks, and keep ``max_words`` words (LAVIS)."""
    cleaned = re.sub(r"\s{2,}", " ", _BLIP_NOISE.sub(" ", text.lower()))
    words = cleaned.rstrip("\n").strip(" ").split(" ")
    return " ".join(words[:max_words])
