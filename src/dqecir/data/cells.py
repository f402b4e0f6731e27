"""Read cells of tables and values of payloads as texts and numbers, and recognise unknown values."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

from dqecir.data.currencies import COIN, currency_code

UNKNOWN = "?"
"""A cell whose value is unknown. If an attribute does not apply, the cell is empty."""

UNKNOWN_CODE = -1
"""What stands for :data:`UNKNOWN` where values are integers."""

DecimalSign = Literal[",", "."]

_BLANKS = " \u00a0\u2007\u2009\u202f"
_QUOTES = "'’ʼ"
_UNIT = (
    r"(?:(?:[mckµ]?m|in|inch|inches|ft|feet|yd|yds|[mk]?g|lbs?|oz|[mcd]?l|L|gal|k?W|m?V|m?Ah|k?Wh|[kMGT]B|"
    r"[kMG]?Hz|px|dpi|[ckm]m²|m2|pcs?|stk|den|ct|kt|years?|yrs?)\.?|%|°[CF]?|[\"″]|'')"
)
_CELL = re.compile(
    rf"(?P<sign>[-−+]?)(?P<before>{COIN})?[{_BLANKS}]*(?P<sign2>[-−+]?)"
    rf"(?P<body>[.,]?[0-9](?:[0-9.,{_QUOTES}{_BLANKS}]*[0-9])?)(?P<dash>[.,][-–—]{{0,2}}|:-)?"
    rf"[{_BLANKS}]*(?:(?P<behind>{COIN})|{_UNIT})?"
)
_GROUPED = re.compile(
    rf"[1-9][0-9]{{0,2}}(?:([{_QUOTES}]|[{_BLANKS}])[0-9]{{3}})(?:\1[0-9]{{3}})*([.,][0-9]+)?"
)
_PLAIN = re.compile(r"[-−]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_DIGITS = 15
"""A number with more digits than this, which a float cannot hold, is a code."""


def has_value(cell: str) -> bool:
    """Return whether a cell has a value: it is neither empty nor unknown."""
    return cell not in ("", UNKNOWN)


def values_of(table: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Return column -> its different values, sorted; empty and unknown cells are left out."""
    return {column: sorted(filter(has_value, set(cells))) for column, cells in table.items()}


def folded(text: str) -> str:
    """Return a text for comparison: in one Unicode form and in lower case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def number_in(cell: str, decimal: DecimalSign | None = None, is_money: bool = False) -> float | None:
    """Return the number in a cell, which may have a currency or a unit; None if the cell is no number.

    ``decimal`` is the decimal sign of the column, which decides ambiguous cells such as ``1.299``. Default:
    three digits after a single comma are thousands; after a point too, if the cell has a currency or
    ``is_money``. Codes (``007``, ``1E5``, 18 digits), sizes and ranges are no numbers.

    >>> number_in("1,299.50 EUR"), number_in("€ 12,5"), number_in("XL"), number_in("0,750 kg")
    (1299.5, 12.5, None, 0.75)
    >>> number_in("1.299", ","), number_in("1.299 €"), number_in("1.299")
    (1299.0, 1299.0, 1.299)
    """
    found = _CELL.fullmatch(cell.strip())
    if found is None or (found["sign"] and found["sign2"]):
        return None
    body = _body(found)
    if body is None:
        return None
    is_money = is_money or bool(found["before"] or found["behind"])
    if body.ambiguous and not body.is_decimal(decimal, is_money):
        body = _Body(body.whole + body.fraction, "")
    number = float(f"{body.whole}.{body.fraction or 0}")
    return -number if (found["sign"] or found["sign2"]) in ("-", "−") else number


def currency_in(cell: str) -> str | None:
    """Return the currency of a cell that is a number with a currency; None for other cells.

    >>> currency_in("39,90 €"), currency_in("EUR 5"), currency_in("5")
    ('EUR', 'EUR', None)
    """
    found = _CELL.fullmatch(cell)
    coin = (found["before"] or found["behind"]) if found else None
    return currency_code(coin) if coin and found and _body(found) is not None else None


def decimal_sign(cells: Iterable[str]) -> DecimalSign | None:
    """Return the decimal sign of a column, by those of its cells in which only one sign is possible.

    None if there is no such cell, or if fewer than four of five agree.
    """
    bodies = (_body(found) for found in map(_CELL.fullmatch, cells) if found)
    votes = Counter(body.sign for body in bodies if body is not None and body.sign)
    if not votes:
        return None
    ((sign, count),) = votes.most_common(1)
    return sign if count >= 0.8 * votes.total() else None


def plainly(cell: str, decimal: DecimalSign | None, is_money: bool = False) -> str:
    """Rewrite a cell so that its number can be read alone: ``1.299`` becomes ``1299`` next to ``39,90``.

    ``decimal`` is the decimal sign of the column; ``is_money``: whether it holds prices. A cell whose number
    does not depend on them is returned unchanged.
    """
    number = number_in(cell, decimal, is_money)
    if number is None or number == number_in(cell):
        return cell
    found = _CELL.fullmatch(cell)
    assert found is not None
    # Three decimals would again be ambiguous.
    written = f"{abs(number):.0f}" if number == int(number) else f"{abs(number):.4f}"
    return cell[: found.start("body")] + written + cell[found.end("body") :]


def as_number(value: object) -> float:
    """Return the number by which two values are equal; NaN if ``value`` is no number, a bool or infinite.

    Of texts, only plain decimals with at most 15 digits, such as ``12.50``, have one.
    """
    if isinstance(value, str) and _PLAIN.fullmatch(value) and sum(map(str.isdigit, value)) <= _DIGITS:
        return float(value.replace("−", "-"))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


_CLEAR = re.compile(r"[1-9][0-9]{0,14}|[1-9][0-9]{0,11}\.[0-9]{1,2}")
"""Numbers that can be read in only one way; they are read fast, because a large index has millions of
them."""


def measured(value: object) -> float:
    """Return the number in a value as people write it, for comparisons such as <; NaN if there is none."""
    if not isinstance(value, str):
        return as_number(value)
    if _CLEAR.fullmatch(value):
        return float(value)
    number = number_in(value)
    return math.nan if number is None else number


class _Body:
    """The digits of a number before (``whole``) and after the decimal sign (``fraction``)."""

    def __init__(
        self, whole: str, fraction: str, sign: DecimalSign | None = None, ambiguous: DecimalSign | None = None
    ) -> None:
        self.whole, self.fraction = whole, fraction
        self.sign = sign
        """The decimal sign that these digits need; None if they have none, or fit both."""
        self.ambiguous = ambiguous
        """The sign between ``whole`` and ``fraction``, if it may also separate thousands."""

    @classmethod
    def of(cls, text: str) -> _Body | None:
        """Read digits with their signs; None if they are a code."""
        grouped = _GROUPED.fullmatch(text)
        if grouped:
            text = re.sub(rf"[{_QUOTES}{_BLANKS}]", "", text)
        body = cls._parted(text, grouped is not None)
        if body is None or not f"{body.whole}{body.fraction}".isdecimal():
            return None
        is_code = len(body.whole) > 1 and body.whole.startswith("0")
        return None if is_code or len(body.whole + body.fraction) > _DIGITS else body

    @classmethod
    def _parted(cls, text: str, grouped: bool) -> _Body | None:
        signs = re.findall(r"[.,]", text)
        if not signs:
            return cls(text, "")
        last: DecimalSign = signs[-1]
        other: DecimalSign = "." if last == "," else ","
        if len(signs) == 1:
            whole, fraction = text.split(last)
            if not grouped and len(fraction) == 3 and re.fullmatch(r"[1-9][0-9]{0,2}", whole):
                return cls(whole, fraction, ambiguous=last)
            return cls(whole or "0", fraction, last)
        if len(set(signs)) == 1:
            return cls(text.replace(last, ""), "", other) if _in_groups(text, last) else None
        whole, fraction = text.rsplit(last, 1)
        return cls(whole.replace(other, ""), fraction, last) if _in_groups(whole, other) else None

    def is_decimal(self, decimal: DecimalSign | None, is_money: bool) -> bool:
        """Return whether the ambiguous sign is the decimal sign."""
        if decimal is not None:
            return self.ambiguous == decimal
        return self.ambiguous == "." and not is_money


def _body(found: re.Match[str]) -> _Body | None:
    """Return the digits in a cell; a dash for the cents, as in ``1.299,-``, shows the decimal sign."""
    dash = found["dash"] or ""
    whole = _Body.of(f"{found['body']}{dash[0]}0") if len(dash) > 1 and dash[0] in ".," else None
    return whole or _Body.of(found["body"])


def _in_groups(text: str, sign: str) -> bool:
    """Return whether ``sign`` separates groups of digits in ``text``: thousands, or lakhs and crores."""
    part = re.escape(sign)
    return re.fullmatch(rf"[1-9][0-9]{{0,2}}(?:{part}[0-9]{{3}})+", text) is not None or (
        re.fullmatch(rf"[1-9][0-9]?(?:{part}[0-9]{{2}})+{part}[0-9]{{3}}", text) is not None
    )
