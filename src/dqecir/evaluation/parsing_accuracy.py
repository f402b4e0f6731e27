"""Measure how often a parser reads exactly the requested values from which a text was made."""

from __future__ import annotations

from collections.abc import Mapping

from dqecir.data.captions import join_fashioniq
from dqecir.data.triplets import Benchmark
from dqecir.language.parsing import Parser


def parsing_accuracy(parser: Parser, benchmark: Benchmark) -> dict[str, float]:
    """Return in percent how often the parser reads exactly the requested values, ``Triplet.asked``.

    ``all``, ``seen`` and ``unseen``: of all questions, and of those in seen and unseen wordings.
    ``precision/<column>``: of the requests of a column that the parser reads; ``recall/<column>``: of those
    that the text has. The parser gets the true attributes of the reference, so that only parsing is measured.
    """
    right: dict[str, list[bool]] = {"all": [], "seen": [], "unseen": []}
    read: dict[str, list[bool]] = {}
    meant: dict[str, list[bool]] = {}
    for triplet in benchmark.triplets:
        reference = _shown(benchmark.attributes, triplet.reference)
        parsed = parser.asked(join_fashioniq(triplet.captions), reference)
        wanted = {column: values for column, values in triplet.asked.items() if column in parser.values}
        exact = parsed == wanted
        right["all"].append(exact)
        right["unseen" if triplet.unseen_wording else "seen"].append(exact)
        for column, values in parsed.items():
            read.setdefault(column, []).append(wanted.get(column) == values)
        for column, values in wanted.items():
            meant.setdefault(column, []).append(parsed.get(column) == values)
    table = {name: _percent(rows) for name, rows in right.items() if rows}
    table |= {f"precision/{column}": _percent(rows) for column, rows in sorted(read.items())}
    return table | {f"recall/{column}": _percent(rows) for column, rows in sorted(meant.items())}


def _shown(attributes: Mapping[str, tuple[str, ...]], image: int) -> dict[str, dict[str, float]]:
    return {column: {values[image]: 1.0} for column, values in attributes.items()}


def _percent(rows: list[bool]) -> float:
    return 100 * sum(rows) / len(rows)
