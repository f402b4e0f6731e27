"""Read numeric constraints, which pictures do not show: "cheaper", "under 40 euros", "after 2019".

A model ignores such words (``questions/comparatives.py``); a search removes them from the text and filters by
them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from dqecir.data.cells import number_in
from dqecir.data.currencies import SPOKEN_COIN
from dqecir.language.number_words import MONEY, SEEN, YEARS, Direction, by_name, column_words

Order = Literal["<", "<=", ">", ">="]

_SIGNS: dict[Direction, tuple[Order, Order]] = {"less": ("<", "<="), "more": (">", ">=")}
_REACHING: tuple[tuple[Direction, bool, str], ...] = (
    ("less", True, "at most|up to|not? (?:more|higher) than|not (?:over|above)|max(?:imum|\\.)?|<=|≤"),
    ("more", True, "at least|not? (?:less|lower) than|not (?:under|below)|min(?:imum|\\.)?|>=|≥"),
    ("less", False, "under|below|less than|cheaper than|lower than|smaller than|<"),
    ("more", False, "over|above|more than|more expensive than|higher than|larger than|>"),
)
"""Direction, whether the number itself is allowed, and the words before the number."""
_IN_TIME: tuple[tuple[Direction, bool, str], ...] = (
    ("less", True, "until|up to"),
    ("more", True, "since|from"),
    ("less", False, "before|older than"),
    ("more", False, "after|newer than|more recent than"),
)
_COMPARED: tuple[tuple[Direction, str], ...] = (("less", "lower|smaller"), ("more", "higher|larger"))
"""Words before a column's name that compare its number with the reference's."""
_DEAR: tuple[tuple[Direction, str], ...] = (
    ("less", "cheaper|less expensive|less pricey|lower[ -]priced|costs? less|costing less"),
    ("more", "more expensive|pricier|dearer|higher[ -]priced|costs? more|costing more"),
)
_DEAR_THAN: tuple[tuple[Direction, str], ...] = (
    ("less", "cheaper than|less expensive than"),
    ("more", "more expensive than|pricier than"),
)
_RECENT: tuple[tuple[Direction, str], ...] = (("less", "older"), ("more", "newer|more recent"))
_DIGITS = r"\d(?:[\d.,]*\d)?"
_MONEY = rf"(?:{SPOKEN_COIN}\s*{_DIGITS}(?:\s*{SPOKEN_COIN})?|{_DIGITS}\s*{SPOKEN_COIN})"
_YEAR = r"(?:19|20)\d\d\b"
_LEAD = (
    r"(?:,?\s*\b(?:and|but)\b|,)?\s*(?<![\w-])"
    r"(?:(?:is|are|be|it's|its|for|costs?|costing|priced|at|with|of|an?|the)\s+){0,4}(?<!not )(?<!no )"
)
_THAN = r"(?:\s+than\s+(?:this|that|it)(?:\s+one)?\b)?"
_HINT = re.compile(r"\d|cheap|expens|pric|dear|cost|lower|smaller|higher|larger|older|newer|recent", re.I)


@dataclass(frozen=True)
class NumericConstraint:
    """A column's number must be smaller or larger than ``number``; None: than the reference's number."""

    column: str
    direction: Direction
    reached: bool = False
    """Whether the number itself is allowed (<= or >=)."""
    number: float | None = None
    words: str = field(default="", compare=False)
    """The words of the text that say so."""

    @property
    def order(self) -> Order:
        """The comparison sign: < <= > or >=."""
        return _SIGNS[self.direction][self.reached]


def speaks_of_numbers(text: str) -> bool:
    """Return whether a text may have a numeric constraint; faster than reading it."""
    return _HINT.search(text) is not None


class ConstraintReader:
    """Reads numeric constraints about a catalogue's columns.

    If there are several columns of prices, or of years, a text means the one with the shortest name
    (``price`` before ``old_price``).
    """

    def __init__(self, columns: Sequence[str]) -> None:
        """Take the names of the columns with numbers."""
        ordered = by_name(columns)
        self._clauses: list[tuple[re.Pattern[str], str, Direction, bool]] = []
        self._spans: list[tuple[re.Pattern[str], str]] = []
        # "An old price" is not a price.
        for column in reversed(ordered):
            if words := column_words(column):
                self._add_named(column, r"[\s_-]+".join(map(re.escape, words)))
        if (price := _first(ordered, MONEY)) is not None:
            self._add_span(price, "", _MONEY)
            for direction, reached, said in _REACHING:
                self._add(price, direction, reached, rf"(?:{said})\s*(?P<number>{_MONEY})")
                # With words such as "costs", the currency may be missing.
                told = rf"(?:costs?|costing|priced)\s+(?:{said})"
                self._add(price, direction, reached, rf"{told}\s+(?P<number>{_DIGITS})")
            for direction, said in _DEAR_THAN:
                self._add(price, direction, False, rf"(?:{said})\s+(?P<number>{_DIGITS})")
        if (year := _first(ordered, YEARS)) is not None:
            self._add_span(year, "", _YEAR)
            for direction, reached, said in _IN_TIME:
                self._add(
                    year, direction, reached, rf"(?:{said})\s+(?P<number>{_YEAR})(?:\s+on(?:wards)?\b)?"
                )
        for chosen, comparisons in ((price, _DEAR), (year, _RECENT)):
            for direction, said in comparisons if chosen is not None else ():
                self._add(chosen, direction, False, rf"(?:{said})\b(?!{SEEN}){_THAN}")

    def _add_named(self, column: str, name: str) -> None:
        named = rf"{name}(?:\s*:\s*|\s+|(?=[<>≤≥]))(?:(?:is|be|of|that is)\s+)?"
        amount = rf"(?:{_MONEY}|{_DIGITS})"
        self._add_span(column, named, amount)
        for direction, reached, said in _REACHING:
            self._add(column, direction, reached, rf"{named}(?:{said})\s*(?P<number>{amount})")
        for direction, said in _COMPARED:
            self._add(column, direction, False, rf"(?:{said})\s+{name}\b{_THAN}")

    def _add(self, column: str | None, direction: Direction, reached: bool, clause: str) -> None:
        assert column is not None
        self._clauses.append((_compiled(clause), column, direction, reached))

    def _add_span(self, column: str, named: str, amount: str) -> None:
        # "Between 20 and 40 euros" names the currency only once, for both numbers.
        low = rf"(?:{SPOKEN_COIN}\s*)?{_DIGITS}(?:\s*{SPOKEN_COIN})?"
        ends = rf"(?P<low>{low})\s+(?:and|to)\s+(?P<high>{amount})"
        self._spans.append((_compiled(rf"{named}(?:between|from)\s+{ends}"), column))
        # A year without a word before it must be one at both ends.
        low = amount if amount == _YEAR else low
        ends = rf"(?P<low>{low})(?:\s+to\s+|\s*[-–—]\s*)(?P<high>{amount})(?![\w-])"
        self._spans.append((_compiled(f"{named}{ends}"), column))

    def parted(self, text: str) -> tuple[str, tuple[NumericConstraint, ...]]:
        """Return the text without its constraints, and the constraints.

        Negated constraints ("not cheaper") and malformed numbers ("under 1.2.3 euros") stay in the text.
        Several blanks in a row become one.
        """
        # Otherwise the pattern would be tried from each blank of a long run.
        rest = text = re.sub(r"(\s)\s+", r"\1", text)
        found: list[NumericConstraint] = []
        for pattern, column in self._spans:
            while read := _first_readable(pattern, rest, column):
                match, ends = read
                low, high = sorted(ends)
                words = _words(match)
                found.append(NumericConstraint(column, "more", True, low, words))
                found.append(NumericConstraint(column, "less", True, high, words))
                rest = rest[: match.start()] + rest[match.end() :]
        for pattern, column, direction, reached in self._clauses:
            while read := _first_readable(pattern, rest, column):
                match, numbers = read
                number = numbers[0] if numbers else None
                found.append(NumericConstraint(column, direction, reached, number, _words(match)))
                rest = rest[: match.start()] + rest[match.end() :]
        if not found:
            return text, ()
        return re.sub(r"^(?:and|but)\s+", "", rest.strip(" ,.")), tuple(dict.fromkeys(found))


@lru_cache(maxsize=64)
def constraint_reader(columns: tuple[str, ...]) -> ConstraintReader:
    """Return a reader for these columns; it is cached, because many searches use the same columns."""
    return ConstraintReader(columns)


def _words(match: re.Match[str]) -> str:
    return re.sub(r"^(?:and|but)\s+", "", match.group().strip(" ,"))


def _compiled(clause: str) -> re.Pattern[str]:
    return re.compile(_LEAD + clause, re.IGNORECASE)


def _first(columns: Sequence[str], names: frozenset[str]) -> str | None:
    return next((column for column in columns if set(column_words(column)) & names), None)


def _first_readable(
    pattern: re.Pattern[str], text: str, column: str
) -> tuple[re.Match[str], list[float]] | None:
    """Return the first match of ``pattern`` whose amounts are all numbers, and these numbers."""
    is_money = bool(MONEY & set(column_words(column)))
    for match in pattern.finditer(text):
        amounts = [amount.lower() for amount in match.groupdict().values()]
        numbers = [number_in(amount, is_money=is_money) for amount in amounts]
        known = [number for number in numbers if number is not None]
        if len(known) == len(numbers):
            return match, known
    return None
