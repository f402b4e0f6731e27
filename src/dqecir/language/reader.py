"""Read a modification text with the columns and values of one catalogue, and list its unread words.

Rules read numbers (numeric_constraints.py); typing errors are corrected to words that the catalogue or the
reader knows; the tagger (tagging.py) marks the words that request something; the linker (linking.py) finds
the values that they name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from dqecir.language.english import other_number, slips, stem, word_set
from dqecir.language.linking import Linker, usual_values, usual_words
from dqecir.language.numeric_constraints import NumericConstraint, constraint_reader, speaks_of_numbers
from dqecir.language.roles import Role, roles, segments
from dqecir.language.spoken import USUAL, spoken
from dqecir.language.tagging import (
    OWN,
    VALUES,
    Operation,
    Tag,
    Tagger,
    likeliest,
    shipped_tagger,
    words_of,
)

SMALL = word_set(
    """a about also am an and any anything are as at be bit but by can could different do does else for
    from on get give has have how i i'd i'm i'll if in instead is isn't it it's its just kind less let
    like little look looking looks lot made make maybe me more much my need needs no not nothing now of
    one ones only or other pair please rather really same see should show similar slightly so some
    something style styled than thank thanks that the their them then there these they thing this those to
    too type up very want was we what when which while will with without would you your item garment"""
)
"""Words that request nothing by themselves."""
_PATTERN = word_set("a any design designs has pattern patterned patterns print printed prints some with")
"""Words of a request for any pattern; it is read as a refusal of "plain"."""
_LONGEST = 40
"""A word with more letters than this requests nothing, unless it is the exact name of a value."""
_MENDED = 4
"""Words with at least this many letters are corrected."""
SURE = 0.65
"""Least probability of a request; below it, its words are unread.

Chosen by cross-validation on captions: of 0.4 to 0.7 in steps of 0.05, the largest that costs at most 0.1
points of F1."""
_SURE_GARMENT = 0.5
"""Least probability of a request for a garment: a bare noun ("dress, in blue") seldom has more, and matters
most in a search."""
_POINTING = word_set("the this that")
_SUBJECT_VERBS = word_set("is has looks look should was needs does doesn't doesnt isn't hasn't have")
_GENERIC = {"dress": word_set("dress"), "shirt": word_set("shirt"), "toptee": word_set("shirt top")}
"""Kind of the reference -> nouns that mean only the reference if they are the subject: "the dress is red"
requests no dress."""
_AFTER_GARMENT = word_set("by for from in of that which with without")
"""Words that may follow a requested garment at the beginning of a text: "dress in red"."""
_LESS = word_set("less not")
"""Words that reverse the direction of an adjective: "less dark", "not as dark"."""
_DEGREES: Mapping[str, Mapping[Operation, frozenset[str]]] = {
    "color": {
        "more": word_set("bright brighter light lighter vivid vibrant brightly"),
        "less": word_set("dark darker dull duller"),
    },
    "fit": {
        "more": word_set("baggy baggier flowing flowy flowier loose looser roomy"),
        "less": word_set("fitted fitting tight tighter clingy snug"),
    },
}
"""Role -> operation -> the adjectives that mean it; "less dark" means the other operation."""
_SEVERAL = ("color", "pattern_color")
"""Roles for which neighbouring words may name several values: "black white"."""


@dataclass(frozen=True)
class Ask:
    """A request of a text: a value of a column that items should, or should not, have.

    ``value`` is None for a comparison with the reference ("longer").
    """

    column: str
    operation: Operation
    value: str | None
    words: str


@dataclass(frozen=True)
class Correction:
    """A word, and the word that it was read as, because of a typing error."""

    word: str
    read_as: str


@dataclass(frozen=True)
class Reading:
    """What was read in one text."""

    asks: tuple[Ask, ...] = ()
    constraints: tuple[NumericConstraint, ...] = ()
    corrections: tuple[Correction, ...] = ()
    unread: tuple[str, ...] = ()
    language: str = "English"
    """Language of the text. If it is not English, only names of values and numeric constraints are read."""


@dataclass(frozen=True)
class _Span:
    """Neighbouring words [start, end) that are one request."""

    start: int
    end: int
    role: str = OWN
    operation: Operation = "is"
    usual: str | None = None


Link = tuple[str, str | None] | None
"""The column and the value that words name; None if they could not be read."""


class Reader:
    """Reads texts about the columns of one catalogue."""

    def __init__(
        self,
        values: Mapping[str, Sequence[str]] = USUAL,
        numbers: Iterable[str] = (),
        tagger: Tagger | None = None,
    ) -> None:
        """Take column -> values, the names of columns with numbers, and a tagger.

        Default: the columns and values that the tagger knows, and the shipped tagger.
        """
        self.tagger = tagger or shipped_tagger()
        self.linker = Linker(values, self._vector)
        self._numbers = tuple(sorted(numbers))
        self.columns = frozenset((*values, *self._numbers))
        self._dictionary = SMALL | usual_words() | self.linker.names
        known = sorted(word for word in self._dictionary - SMALL if len(word) >= _MENDED)
        self._mendable = sorted(known, key=len, reverse=True)

    def read(self, text: str, category: str = "") -> Reading:
        """Read a text; ``category`` is the kind of the reference's garment, such as dress, if it is known."""
        constraints: tuple[NumericConstraint, ...] = ()
        if self._numbers and speaks_of_numbers(text):
            text, constraints = constraint_reader(self._numbers).parted(text)
        typed = [word.text for word in words_of(text)]
        language = self._language(typed)
        words = typed if language != "English" else [self._mended(word) for word in typed]
        asks: dict[tuple[str, str, str | None], Ask] = {}
        unread: set[int] = set()
        numbers = {place for place in range(len(words)) if _is_amount(words, place)}
        for span, link in self._foreign(words) if language != "English" else self._linked(words, category):
            places = range(span.start, span.end)
            if link is None:
                unread |= set(places)
            else:
                numbers -= set(places)
                ask = Ask(link[0], span.operation, link[1], " ".join(typed[place] for place in places))
                asks.setdefault((ask.column, ask.operation, ask.value), ask)
        mended = dict.fromkeys(zip(typed, words, strict=True))
        left = (typed[place] for place in sorted(unread | numbers) if _says_something(words[place]))
        return Reading(
            tuple(asks.values()),
            constraints,
            tuple(Correction(*pair) for pair in mended if pair[0] != pair[1]),
            tuple(dict.fromkeys(left)),
            language,
        )

    def _linked(self, words: Sequence[str], category: str) -> Iterator[tuple[_Span, Link]]:
        """Yield the requests that the tagger marks, each with the value that it names; None: it is unread."""
        tags = self.tagger.tag(words, self.linker.marks(words), category.lower()) if words else []
        spans, unsure = _spans(tags)
        opening = _opening_garment(words, spans)
        if opening is not None:
            spans = sorted([opening, *spans], key=lambda span: span.start)
            unsure = [span for span in unsure if span.role != "garment"]
        for place, tag in enumerate(tags):
            opens = opening is not None and place < opening.end
            if (tag.beyond and not opens) or (tag.role is None and not self._knows(words[place])):
                yield _Span(place, place + 1), None
        yield from ((span, None) for span in unsure)
        spans = [part for span in spans for part in self._parted(words, span)]
        told = _told(words, spans)
        for span in spans:
            said = words[span.start : span.end]
            if span.role in _SEVERAL and any(map(str.isdecimal, said)):
                # No colour has a number.
                yield span, None
                continue
            if span.operation == "is" and told.issuperset(range(span.start, span.end)):
                continue
            if span.role == "garment" and _is_subject(words, span, category.lower()):
                continue
            span = _turned(words, span)
            if (
                span.usual == "other"
                and span.role == "pattern"
                and span.operation == "is"
                and _PATTERN.issuperset(said)
            ):
                span = replace(span, operation="is not", usual="plain")
            named = list(self.linker.named(said)) if span.role == OWN else []
            for start, end, link in named:
                yield replace(span, start=span.start + start, end=span.start + end), link
            if not named and any(map(_is_word, said)):
                yield from ((span, link) for link in self._links(span, said))

    def _parted(self, words: Sequence[str], span: _Span) -> Sequence[_Span]:
        """Return a span; if it is a garment with its length ("mini skirt"), the spans of both.

        A value of the catalogue that has this name is one span.
        """
        said = words[span.start : span.end]
        if span.role != "garment" or span.operation != "is" or len(said) != 2:
            return [span]
        length = usual_values("length").get(stem(said[0]))
        garment = usual_values("garment").get(stem(said[1]))
        is_value = any(end - start == 2 for start, end, _ in self.linker.named(said))
        if length is None or garment is None or is_value:
            return [span]
        middle = span.start + 1
        first = replace(span, end=middle, role="length", usual=length[0])
        return [first, replace(span, start=middle, usual=garment[0])]

    def _foreign(self, words: Sequence[str]) -> Iterator[tuple[_Span, Link]]:
        """Yield the names of values in a text that is not English; all other words are unread."""
        rest = set(range(len(words)))
        for start, end, named in self.linker.named(words):
            rest -= set(range(start, end))
            yield _Span(start, end), named
        for place in sorted(rest):
            yield _Span(place, place + 1), None

    def _language(self, words: Sequence[str]) -> str:
        """Return the language to which most of the words belong; English if it is not clear."""
        tables = spoken()["languages"]
        counts = {name: sum(word in known for word in words) for name, known in tables.items()}
        likeliest_one = max(counts, key=lambda name: counts[name])
        english = sum(word in SMALL or word in usual_words() for word in words)
        return likeliest_one if counts[likeliest_one] > english else "English"

    def _links(self, span: _Span, words: Sequence[str]) -> Sequence[Link]:
        if span.operation in ("more", "less") and span.usual is None and span.role != OWN:
            columns = self.linker.columns.get(span.role)
            return [(columns[0], None) if columns else None]
        names = [word for word in words if word not in SMALL] or words
        return self.linker.named_values(span.role, names, span.usual) or [None]

    def _mended(self, word: str) -> str:
        """Return the known word that a mistyped one probably means; a known word is returned unchanged."""
        if len(word) < _MENDED or self._knows(word):
            return word
        return next(iter(slips(word, self._mendable)), word)

    def _knows(self, word: str) -> bool:
        known = {word, other_number(word)} & self._dictionary
        return word in self.tagger.pieces or bool(known) or not word.isalpha()

    def _vector(self, word: str) -> NDArray[np.float32]:
        table = self.tagger.network.emb.weight
        mean: NDArray[np.float32] = table[list(self.tagger.pieces(word))].mean(0).detach().numpy()
        return mean


def _spans(tags: Sequence[Tag]) -> tuple[list[_Span], list[_Span]]:
    """Return two lists of requests, each of neighbouring words: those that are sure, and the others.

    Words are joined if they have the same role and operation, and for colours the same value.
    """
    found: tuple[list[_Span], list[_Span]] = ([], [])

    def alike(place: int) -> tuple[object, ...]:
        tag = tags[place]
        own = likeliest(tag.role, tag.operation, tag.scores) if tag.role in _SEVERAL else None
        return tag.role, tag.operation, own

    for _, group in groupby(range(len(tags)), alike):
        places = list(group)
        first = tags[places[0]]
        if first.role is not None:
            scores = np.array([tags[place].scores for place in places])
            usual = likeliest(first.role, first.operation, scores.sum(axis=0))
            sure = max(tags[place].sure for place in places)
            if first.role != OWN:
                sure *= float(np.exp(scores[:, VALUES.index(usual)].max()))
            is_sure = sure >= (_SURE_GARMENT if first.role == "garment" else SURE)
            found[not is_sure].append(_Span(places[0], places[-1] + 1, first.role, first.operation, usual))
    return found


def _told(words: Sequence[str], spans: Sequence[_Span]) -> set[int]:
    """Return the places of words that request nothing, because they only describe the reference.

    Examples: "this one is white, I want black", and values that another one replaces: "leather" in "replace
    leather with cotton".
    """
    named = [False] * len(words)
    for span in spans:
        named[span.start : span.end] = [True] * (span.end - span.start)
    found = roles(words, segments(words, named), named)
    wanted = {span.role for span in spans if found[span.start] is Role.WANTED and span.operation == "is"}
    told = {place for place, role in enumerate(found) if role is Role.TOLD}
    for span in spans:
        if span.role in wanted and found[span.start] is Role.LEFT:
            told |= set(range(span.start, span.end))
    return told


def _opening_garment(words: Sequence[str], spans: Sequence[_Span]) -> _Span | None:
    """Return a garment at the beginning of a text as a request, if the tagger has not marked any garment.

    Examples: "dress in red", "a skirt", "green skirt". Only an article and other requests may stand before
    it.
    """
    if any(span.role == "garment" for span in spans):
        return None
    asked = {place for span in spans if span.operation == "is" for place in range(span.start, span.end)}
    start = int(words[:1] in (["a"], ["an"]))
    while start in asked:
        start += 1
    known = usual_values("garment").get(stem(words[start])) if len(words) > start else None
    after = words[start + 1] if len(words) > start + 1 else ","
    if known is None or (after[0].isalnum() and after not in _AFTER_GARMENT):
        return None
    return _Span(start, start + 1, "garment", usual=known[0])


def _is_subject(words: Sequence[str], span: _Span, category: str) -> bool:
    """Return whether the words are a noun that only means the reference: "the long shirt is red"."""
    begins = words[0] in _POINTING and span.end < len(words) and words[span.end] in _SUBJECT_VERBS
    nouns = _GENERIC.get(category, frozenset())
    return begins and span.end == span.start + 1 and words[span.start] in nouns and span.operation == "is"


def _turned(words: Sequence[str], span: _Span) -> _Span:
    """Return the request with the opposite direction if "less" reverses its adjective: "less dark"."""
    said = words[max(span.start - 2, 0) : span.end]
    degrees = _DEGREES.get(span.role)
    if degrees is None or span.usual is not None or _LESS.isdisjoint(said):
        return span
    opposites: tuple[tuple[Operation, Operation], ...] = (("more", "less"), ("less", "more"))
    for operation, other in opposites:
        if span.operation in degrees and not degrees[operation].isdisjoint(words[span.start : span.end]):
            return replace(span, operation=other)
    return span


def _says_something(word: str) -> bool:
    return word not in SMALL and word[0].isalnum()


def _is_amount(words: Sequence[str], place: int) -> bool:
    """Return whether a word is a number, but no percentage and no part of a fraction."""
    return words[place].isdecimal() and not {"%", "/"} & {*words[max(place - 1, 0) : place + 2]}


def _is_word(word: str) -> bool:
    return word[0].isalnum() and len(word) <= _LONGEST
