"""Currencies as people write them next to a number, in cells, filters and texts."""

from __future__ import annotations

import re

SIGNS = "$£¥€¢₠-⃀฿﷼＄￡￥"
"""Currency signs, for a character class of a regular expression."""

_CODES = (
    "AED ARS AUD BDT BGN BHD BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HRK HUF IDR ILS INR ISK JOD JPY "
    "KES KRW KWD MAD MXN MYR NGN NOK NZD OMR PEN PHP PKR PLN QAR RON RSD RUB SAR SEK SGD THB TND TRY TWD UAH "
    "USD UYU VND ZAR"
)
_WORDS = "euros?|dollars?|bucks|pounds?|francs?|yen|kr|zł|zl|kč|lei|лв|руб|грн|rs|rm|rp|tl|s?fr"

COIN = (
    rf"(?:(?:[A-Za-z]{{0,3}}|[A-Z]{{2,3}} )[{SIGNS}]|{_CODES.replace(' ', '|')}"
    rf"|{_CODES.lower().replace(' ', '|')}|(?i:{_WORDS}|ft)\.?|円|元)"
)
"""Regular expression of a currency next to a number in a cell, where ``ft`` may be forints (or feet)."""

SPOKEN_COIN = rf"(?:[a-z]{{0,3}}[{SIGNS}]|(?:{_CODES.replace(' ', '|')}|{_WORDS})(?!\w)\.?)"
"""Regular expression of a currency in a modification text, without ``ft``, which means feet there.

Compile it with ``re.IGNORECASE``.
"""

_WHOLE = re.compile(COIN)


def is_currency(text: str) -> bool:
    """Return whether a text is only the sign, the code or the name of a currency.

    >>> is_currency("€"), is_currency("EUR"), is_currency("40 €")
    (True, True, False)
    """
    return _WHOLE.fullmatch(text) is not None
