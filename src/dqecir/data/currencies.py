"""Currencies as people write them next to a number, in cells, filters and texts."""

from __future__ import annotations

import re

SIGNS = "$£¥€¢₠-⃀฿﷼＄￡￥"
"""Currency signs, for a character class of a regular expression."""

_CODES = (
    "AED AFN AMD ANG AOA ARS AUD AWG AZN BBD BDT BGN BHD BIF BMD BND BRL BSD BTN BWP BYN BZD CAD CDF CHF "
    "CLP CNY COP CRC CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GHS GIP GMD GNF GTQ GYD HKD HNL "
    "HRK HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LBP LKR LRD LSL LYD "
    "MAD MDL MGA MKD MMK MNT MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN "
    "PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SRD SSP STN SVC SYP SZL THB TJS TMT TND TRY "
    "TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW"
)
_WORDLIKE = "BAM BOB GEL LAK MOP"
"""Codes that are also common words, so that only cells have them, in capitals."""
_WORDS = "euros?|dollars?|bucks|pounds?|francs?|yen|kr|zł|zl|kč|lei|лв|руб|грн|rs|rm|rp|tl|s?fr"

COIN = (
    rf"(?:(?:[A-Za-z]{{0,3}}|[A-Z]{{2,3}} )[{SIGNS}]|{_CODES.replace(' ', '|')}"
    rf"|{_WORDLIKE.replace(' ', '|')}|{_CODES.lower().replace(' ', '|')}|(?i:{_WORDS}|ft)\.?|円|元)"
)
"""Regular expression of a currency next to a number in a cell, where ``ft`` may be forints (or feet)."""

SPOKEN_COIN = rf"(?:[a-z]{{0,3}}[{SIGNS}]|(?:{_CODES.replace(' ', '|')}|{_WORDS})(?!\w)\.?)"
"""Regular expression of a currency in a modification text, without ``ft``, which means feet there.

Compile it with ``re.IGNORECASE``.
"""

_WHOLE = re.compile(COIN)
_SAME = {
    spelling: code
    for code, spellings in {
        "EUR": "€ euro euros",
        "USD": "$ us$ dollar dollars bucks",
        "GBP": "£ pound pounds",
        "JPY": "¥ ￥ 円 yen",
        "CHF": "fr sfr franc francs",
        "PLN": "zł zl",
        "CZK": "kč",
        "HUF": "ft",
        "INR": "₹ rs",
        "IDR": "rp",
        "MYR": "rm",
        "RUB": "₽ руб",
        "TRY": "₺ tl",
        "UAH": "₴ грн",
        "BGN": "лв",
        "RON": "lei",
    }.items()
    for spelling in spellings.split()
}
"""Sign or name of a currency -> its code."""


def is_currency(text: str) -> bool:
    """Return whether a text is only the sign, the code or the name of a currency.

    >>> is_currency("€"), is_currency("EUR"), is_currency("40 €")
    (True, True, False)
    """
    return _WHOLE.fullmatch(text) is not None


def currency_code(coin: str) -> str:
    """Return one name for all spellings of a currency, mostly its code.

    >>> currency_code("€"), currency_code("eur"), currency_code("Kč"), currency_code("kr.")
    ('EUR', 'EUR', 'CZK', 'KR')
    """
    plain = "".join(coin.casefold().removesuffix(".").split())
    return _SAME.get(plain, plain.upper())
