"""Vocabularies for columns that no shipped vocabulary knows: their values have their own names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from dqecir.data.cells import number_in
from dqecir.language.vocabulary import ColumnVocabulary, Phrases, Value, Vocabulary, shipped_vocabularies


def vocabularies_for(columns: Mapping[str, Sequence[str]], had: Sequence[Vocabulary]) -> list[Vocabulary]:
    """Return vocabularies that name the values of ``columns`` (column -> values).

    A column gets the first vocabulary in ``had`` that knows it, else a shipped one, else a new one in which
    the values have their own names.
    """
    shared = Counter(value.casefold() for values in columns.values() for value in values)
    known = [*had, *shipped_vocabularies()]
    taken = {vocabulary.name for vocabulary in known}
    chosen: dict[str, Vocabulary] = {}
    for column, values in columns.items():
        speaking = next((one for one in known if one.column(column) is not None), None)
        if speaking is None:
            # The name of a shop's column may be that of a shipped vocabulary ("shape").
            name = re.sub(r"[^\w-]+", "-", column.casefold())
            while name in taken:
                name += "-own"
            taken.add(name)
            speaking = _plain_vocabulary(name, column, values, shared)
        chosen.setdefault(speaking.name, speaking)
    return list(chosen.values())


def _plain_vocabulary(name: str, column: str, values: Sequence[str], shared: Mapping[str, int]) -> Vocabulary:
    """Return a vocabulary ``name`` in which a column's values have their own names.

    A value that other columns have too is named together with its column, as is a number or a value of one or
    two letters. ``shared``: value in lower case -> number of columns that have it.
    """
    with_column = Phrases(
        seen=("the {column} is {value}", "with {value} {column}"),
        held_out=("should have {value} as its {column}",),
    )
    denied = Phrases(seen=("the {column} is not {value}",))
    spoken = {
        value: Value(
            words=(value.replace("_", " ").lower(),),
            statements=with_column if _ambiguous(value, shared) else None,
            negations=denied if _ambiguous(value, shared) else None,
        )
        for value in values
        if value
    }
    return Vocabulary(
        name=name,
        columns={
            column: ColumnVocabulary(
                values=spoken,
                statements=Phrases(
                    seen=("is {value}", *with_column.seen),
                    held_out=("should be {value}", *with_column.held_out),
                ),
                negations=Phrases(seen=("is not {value}", *denied.seen)),
                words=tuple(re.findall(r"[^\W_]+", column.lower())),
            )
        },
    )


def _ambiguous(value: str, shared: Mapping[str, int]) -> bool:
    return shared[value.casefold()] > 1 or len(value) < 3 or number_in(value) is not None
