"""Normalise typed English: contractions, spellings, endings and typing errors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from rapidfuzz.distance import OSA

_SPELLINGS = tuple(
    (re.compile(pattern), plain)
    for pattern, plain in (
        (r"[\u2018\u2019\u00b4`]", "'"),
        (r"->|=>|\u2192", " to "),
        (r"&|\+|\bas well as\b|\n", " and "),
        (r"(?<=\s)-+(?=\s)", " , "),
        (r"\bw/o\b", "without"),
        (r"\b(?:can't|cant|cannot)\b", "can not"),
        (r"\b(?:won't|wont)\b", "will not"),
        (r"\b(do|does|did|is|are|was|were|should|would|could|has|have|had|must|need)n'?t\b", r"\1 not"),
        (r"\b(it|that|this|there|here|what|one|who|let)'s\b", r"\1 is"),
        (r"'s\b", ""),
        (r"\bi'?m\b", "i am"),
        (r"'d\b|\b(?<=i)d\b", " would"),
        (r"'ll\b", " will"),
        (r"'ve\b", " have"),
        (r"'re\b", " are"),
        (r"\bgimme\b", "give me"),
        (r"\blemme\b", "let me"),
        (r"\bwanna\b", "want to"),
        (r"\b(?:pls|plz)\b", "please"),
        (r"colour", "color"),
        (r"\bgrey", "gray"),
        (r"\bcentre", "center"),
        (r"chequer", "checker"),
        (r"favour", "favor"),
        (r"woollen", "woolen"),
    )
)
_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[,;:.!?()\u2013\u2014]")
_UNCHANGED = frozenset(("shorts", "less", "this", "does", "goes", "was", "has", "is", "its", "plus", "minus"))
TYPED = 6
"""Words with at least this many letters are recognised with one typing error."""


def tokens(text: str) -> list[str]:
    """Return a text's words and punctuation in lower case and American spelling; hyphens split words."""
    text = text.lower()
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    return _TOKEN.findall(text.replace("_", " "))


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text that are separated by blanks."""
    return frozenset(text.split())


@lru_cache(maxsize=10_000)
def stem(word: str) -> str:
    """Return a word without plural and participle endings: stripes, striped and stripe give the same stem."""
    if word in _UNCHANGED or len(word) < 4:
        return word
    if word.endswith("s") and not word.endswith(("ss", "us")):
        word = word[:-1]
    if len(word) > 4 and word.endswith("ed"):
        word = word[:-2]
        if word[-1] == word[-2] and word[-1] not in "ls":
            word = word[:-1]
    return word[:-1] if len(word) > 4 and word.endswith("e") else word


def other_number(word: str) -> str:
    """Return the singular of a plural in "s", and of any other word the plural in "s"."""
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else f"{word}s"


def slips(word: str, known: Iterable[str]) -> list[str]:
    """Return the words in ``known`` with the same first letter that are one edit away from ``word``."""
    return [
        other for other in known if other[0] == word[0] and OSA.distance(word, other, score_cutoff=1) == 1
    ]
