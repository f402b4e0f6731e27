"""Filter items by an expression over their payloads.

    color in {red, pink} and price < 40 and not sleeves = long

Comparisons are ``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``in {…}`` and ``not in {…}``; they are joined by
``not``, ``and``, ``or`` and parentheses. Values of several words need quotes, and a quote within a quotation
is doubled. Values are equal if their texts are, ignoring case, or if both are equal plain numbers (``40`` and
``40.0``, but not the codes ``7`` and ``007``). Orders compare numbers as people write them, so ``€ 12.50`` is
less than 40. An item without the attribute fails every comparison, so it passes ``not size = s`` and ``size
!= s``, which mean the same. If an item has several values, one of them must fulfil a comparison; one number
must fulfil all orders that ``and`` joins.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from typing import Any, Literal

import numpy as np

from dqecir.data.cells import folded, measured
from dqecir.data.currencies import is_currency
from dqecir.data.payload_fields import RESERVED
from dqecir.errors import FilterError
from dqecir.index.payload_columns import Columns, Mask
from dqecir.language.numeric_constraints import Order
from dqecir.settings import nearest


def has_numbers(columns: Collection[Columns], name: str) -> bool:
    """Return whether any item has a number in this attribute.

    ``name`` is the attribute, ``columns`` those of the index in parts.
    """
    return any(part[name].has_numbers for part in columns)


class Filter(ABC):
    """A condition that items fulfil or not, by their payloads."""

    @abstractmethod
    def mask(self, columns: Columns) -> Mask:
        """Return a mask [N] of those of the N items of ``columns`` that fulfil the filter."""

    def comparisons(self) -> Iterator[Equal | Compare]:
        """Yield every comparison in the filter, with those inside of ``not``, ``and`` and ``or``."""
        match self:
            case Equal() | Compare():
                yield self
            case Not(part):
                yield from part.comparisons()
            case And(parts) | Or(parts):
                for part in parts:
                    yield from part.comparisons()

    @abstractmethod
    def __str__(self) -> str:
        """Return the filter as an expression that :func:`parse_filter` reads back."""

    def check(self, columns: Collection[Columns]) -> None:
        """Raise :class:`FilterError` for an unknown attribute, or for < or > without any numbers.

        ``columns`` are those of the index in parts.
        """
        known = {name for part in columns for name in part.names} - RESERVED
        for comparison in self.comparisons():
            name = comparison.name
            if not any(name in part for part in columns):
                raise FilterError(f"no item of the index has an attribute {name!r}{nearest(name, known)}")
            if isinstance(comparison, Compare) and not has_numbers(columns, name):
                raise FilterError(
                    f"{name!r} cannot be compared by {comparison.order}: no item has a number there"
                )


@dataclass(frozen=True)
class Equal(Filter):
    """The attribute has one of ``values``, as text or as number."""

    name: str
    values: tuple[str, ...]

    def mask(self, columns: Columns) -> Mask:
        return columns[self.name].matching(self.values)

    def __str__(self) -> str:
        values = ", ".join(map(_quoted, self.values))
        return f"{_quoted(self.name)} " + (f"= {values}" if len(self.values) == 1 else f"in {{{values}}}")


_ORDERS: dict[Order, np.ufunc] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


@dataclass(frozen=True)
class Compare(Filter):
    """The attribute is a number that is smaller or larger than ``bound``, as ``order`` says (< <= > >=)."""

    name: str
    order: Order
    bound: float

    def mask(self, columns: Columns) -> Mask:
        return columns[self.name].between([(_ORDERS[self.order], self.bound)])

    def __str__(self) -> str:
        return f"{_quoted(self.name)} {self.order} {_number(self.bound)}"


@dataclass(frozen=True)
class Not(Filter):
    """``part`` is not fulfilled."""

    part: Filter

    def mask(self, columns: Columns) -> Mask:
        return ~self.part.mask(columns)

    def __str__(self) -> str:
        return f"not ({self.part})"


@dataclass(frozen=True)
class And(Filter):
    """All of ``parts`` are fulfilled."""

    parts: tuple[Filter, ...]

    def mask(self, columns: Columns) -> Mask:
        orders, others = self.parted()
        numbers = (
            columns[name].between((_ORDERS[one.order], one.bound) for one in own)
            for name, own in orders.items()
        )
        return reduce(np.logical_and, chain(numbers, (part.mask(columns) for part in others)))

    def parted(self) -> tuple[dict[str, list[Compare]], list[Filter]]:
        """Return attribute (in lower case) -> its comparisons with numbers, and all other parts.

        If an item has several numbers, one of them must fulfil all comparisons of the attribute.
        """
        orders: dict[str, list[Compare]] = {}
        others: list[Filter] = []
        for part in conjuncts(self):
            if isinstance(part, Compare):
                orders.setdefault(folded(part.name), []).append(part)
            else:
                others.append(part)
        return orders, others

    def __str__(self) -> str:
        return " and ".join(f"({part})" for part in self.parts)


@dataclass(frozen=True)
class Or(Filter):
    """At least one of ``parts`` is fulfilled."""

    parts: tuple[Filter, ...]

    def mask(self, columns: Columns) -> Mask:
        return reduce(np.logical_or, (part.mask(columns) for part in self.parts))

    def __str__(self) -> str:
        return " or ".join(f"({part})" for part in self.parts)


def conjuncts(where: Filter | None) -> Iterator[Filter]:
    """Yield the filters that must all be fulfilled: the parts of an ``and``, or the filter itself.

    Without a filter (None), yield nothing.
    """
    if isinstance(where, And):
        for part in where.parts:
            yield from conjuncts(part)
    elif where is not None:
        yield where


def all_of(parts: Iterable[Filter]) -> Filter | None:
    """Return a filter that is fulfilled if all ``parts`` are; None if there are none."""
    found = tuple(parts)
    return And(found) if len(found) > 1 else next(iter(found), None)


def filter_from(expression: str | None, conditions: Iterable[Mapping[str, Any]]) -> Filter | None:
    """Return one filter for an expression and conditions, which must all be fulfilled; None without any.

    A condition has four keys: ``attribute``; ``values``, of which the attribute must have one (empty: any);
    ``least`` and ``most``, between which its number must be (None: no limit). Raises :class:`FilterError` if
    the expression cannot be read.
    """
    parts = [] if expression is None or not expression.strip() else [parse_filter(expression)]
    for condition in conditions:
        name = condition["attribute"]
        if condition["values"]:
            parts.append(Equal(name, tuple(condition["values"])))
        if condition["least"] is not None:
            parts.append(Compare(name, ">=", condition["least"]))
        if condition["most"] is not None:
            parts.append(Compare(name, "<=", condition["most"]))
    return all_of(parts)


def parse_filter(text: str) -> Filter:
    """Parse a filter expression; raises :class:`FilterError` if it cannot be read."""
    parser = _Parser(text)
    found = parser.any_of()
    if parser.here is not None:
        raise parser.error(f"{parser.here.shown} is not expected; join comparisons by and, or")
    return found


_BARE = r"""[^\s{}()<>=!,"']+"""
_TOKEN = re.compile(rf"""\s*(?:"((?:[^"]|"")*)"|'((?:[^']|'')*)'|({_BARE})|([<>!]=|[{{}}()<>=,]))""")
_WORDS = ("and", "or", "not", "in")
_LONG_NUMBER = re.compile(r"-?(?=(?:\.?[0-9]){16})[0-9]+(?:\.[0-9]+)?")
_DEPTH = 100


def _quoted(value: str) -> str:
    """Return a name or a value as it must stand in an expression: in quotes if necessary."""
    if re.fullmatch(_BARE, value) and value not in _WORDS:
        return value
    return '"' + value.replace('"', '""') + '"'


def _number(value: float) -> str:
    return np.format_float_positional(value, trim="-")


@dataclass(frozen=True)
class _Token:
    text: str
    kind: Literal["quoted", "bare", "sign"]
    place: int

    @property
    def is_value(self) -> bool:
        return self.kind == "quoted" or (self.kind == "bare" and self.text not in _WORDS)

    @property
    def shown(self) -> str:
        return f"{self.text!r} at character {self.place + 1}"


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._tokens(text))
        self.place = 0
        self.depth = 0

    def error(self, what: str) -> FilterError:
        return FilterError(f"the filter {self.text!r} cannot be read: {what}")

    def _tokens(self, text: str) -> Iterator[_Token]:
        place, end = 0, len(text.rstrip())
        while place < end:
            match = _TOKEN.match(text, place)
            if match is None:
                rest = text[place:].lstrip()
                if rest[0] in "\"'":
                    raise self.error(
                        f"the quotation that begins with {rest[:12]!r} is not closed: add a quote"
                    )
                raise self.error(f"{rest[0]!r} is not expected here: remove it, or quote the value")
            group = match.lastindex or 0
            kind: Literal["quoted", "bare", "sign"] = (
                "quoted" if group <= 2 else "bare" if group == 3 else "sign"
            )
            # Within a quotation, a quote of its kind is doubled.
            quote = {1: '"', 2: "'"}.get(group, "")
            said = match[group].replace(2 * quote, quote) if quote else match[group]
            yield _Token(said, kind, match.start(group) - (kind == "quoted"))
            place = match.end()

    @property
    def here(self) -> _Token | None:
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def take(self, *texts: str) -> str | None:
        """Consume the next word or symbol if it is one of ``texts``, and return it; else return None."""
        here = self.here
        if here is not None and here.kind != "quoted" and here.text in texts:
            self.place += 1
            return here.text
        return None

    def any_of(self) -> Filter:
        found = [self.all_of()]
        while self.take("or"):
            found.append(self.all_of())
        return Or(tuple(found)) if len(found) > 1 else found[0]

    def all_of(self) -> Filter:
        found = [self.one()]
        while self.take("and"):
            found.append(self.one())
        return And(tuple(found)) if len(found) > 1 else found[0]

    def one(self) -> Filter:
        self.depth += 1
        if self.depth > _DEPTH:
            raise self.error(f"it is nested more than {_DEPTH} deep: use fewer parentheses")
        try:
            if self.take("not"):
                return Not(self.one())
            if self.take("("):
                inner = self.any_of()
                if not self.take(")"):
                    raise self.error("a parenthesis is not closed: add )")
                return inner
            return self.comparison()
        finally:
            self.depth -= 1

    def comparison(self) -> Filter:
        name = self.value("the name of an attribute")
        if sign := self.take("=", "!="):
            equal = Equal(name, (self.value(f"a value of {name!r}"),))
            return equal if sign == "=" else Not(equal)
        if self.take("in"):
            return Equal(name, self.values(name))
        if self.take("not"):
            if self.take("in"):
                return Not(Equal(name, self.values(name)))
            raise self.error(f"after {name!r}, not must be followed by in {{…}}")
        for order in _ORDERS:
            if self.take(order):
                value = self.value(f"a number after {name} {order}")
                if is_currency(value):
                    value += self.value(f"a number after {name} {order} {value}")
                elif self.here is not None and is_currency(self.here.text):
                    self.place += 1
                # In a table so many digits are a code, but an order needs a number.
                bound = float(value) if _LONG_NUMBER.fullmatch(value) else measured(value)
                if not math.isfinite(bound):
                    raise self.error(f"after {name} {order} a number is expected, not {value!r}")
                return Compare(name, order, bound)
        found = "the end" if self.here is None else self.here.shown
        raise self.error(
            f"after {name!r} one of = != < <= > >= in is expected, not {found}; quote values of several words"
        )

    def value(self, wanted: str) -> str:
        here = self.here
        if here is None or not here.is_value:
            found = "the end" if here is None else here.shown
            raise self.error(f"{wanted} is expected, not {found}")
        self.place += 1
        return here.text

    def values(self, name: str) -> tuple[str, ...]:
        if not self.take("{"):
            raise self.error(f"after {name} in a list in braces is expected, such as {{red, pink}}")
        values = [self.value(f"a value of {name!r}")]
        while self.take(","):
            values.append(self.value(f"a value of {name!r}"))
        if not self.take("}"):
            if self.here is None:
                raise self.error(f"the brace after {name} in is not closed: add }}")
            raise self.error(
                f"in the braces after {name} in a comma is expected, not {self.here.shown}; "
                "quote values of several words"
            )
        return tuple(values)
