"""Parse a modification text into requested values, by rules and vocabularies; nothing is learned.

A text that consists of a vocabulary's phrases is looked up directly. Any other text is read as free English
(reading.py), with the words for values in the vocabularies and in ``vocabularies/heard.yaml``. Phrases that
are held out of training are in no table here. However, the authors of the rules could read the held-out
phrases, so that the accuracy on unseen wordings is an upper bound.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from dqecir.language.lexicon import Lexicon, without_article
from dqecir.language.mentions import Clause, Kind, Mention
from dqecir.language.reading import RuleReader
from dqecir.language.vocabulary import ColumnVocabulary, Phrases, Value, Vocabulary

__all__ = ["Clause", "Kind", "Mention", "Parser"]

_CONNECTOR = re.compile(r"(,|\band\b|(?<!anything )\bbut\b)")
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
REMEMBERED = 50_000
"""Number of texts whose readings a parser caches."""
_IDLE = frozenset(
    re.findall(
        r"\w+",
        """a all an and any anything are as at be but by do does for from has have i in is it its kind like
        make more no not nothing now of on one put same should show similar so some style than that the there
        this to want way with without""",
    )
)


class Parser:
    """Parses modification texts about the columns of one catalogue.

    ``values``: column -> its values (neither ``""`` nor ``UNKNOWN``).
    """

    def __init__(self, vocabularies: Sequence[Vocabulary], values: Mapping[str, Sequence[str]]) -> None:
        self.values = {column: tuple(value for value in names if value) for column, names in values.items()}
        self._columns = {column: _spoken(vocabularies, column, self.values[column]) for column in self.values}
        self._owners = {
            column: spoken.owner.column for column, spoken in self._columns.items() if spoken.owner
        }
        self._phrases: dict[str, list[Mention]] = defaultdict(list)
        for column, spoken in self._columns.items():
            self._learn(column, spoken)
        self._most_parts = max((len(_CONNECTOR.split(phrase)) for phrase in self._phrases), default=1)
        self._reader = RuleReader(Lexicon(self._columns, self.values), self._columns)
        self._read: dict[str, tuple[Clause, ...]] = {}

    @property
    def phrases(self) -> Mapping[str, Sequence[Mention]]:
        """Phrase in plain words -> its possible readings, for every phrase that can be a whole clause."""
        return self._phrases

    def mentions(self, text: str) -> list[tuple[Mention, ...]]:
        """Return the possible readings of each clause of a text; clauses that cannot be read are left out."""
        return [clause.readings for clause in self.clauses(text) if clause.readings]

    def clauses(self, text: str) -> tuple[Clause, ...]:
        """Return the clauses of a text with their readings.

        Clauses with only connecting words are left out.
        """
        if text not in self._read:
            if len(self._read) >= REMEMBERED:
                self._read.clear()
            known = self._as_phrases(text)
            self._read[text] = tuple(self._reader.read(text) if known is None else known)
        return self._read[text]

    def _as_phrases(self, text: str) -> list[Clause] | None:
        """Return the clauses of a text if every clause is a known phrase; else None."""
        clauses = []
        parts = _CONNECTOR.split(_plain(text))  # a connector between any two parts
        start = 0
        while start < len(parts):
            # A value's name may contain connectors: "tops and tees".
            for end in range(min(len(parts), start + self._most_parts), start, -2):
                words = "".join(parts[start:end]).strip(" .?!")
                if words in self._phrases:
                    clauses.append(Clause(words, tuple(self._phrases[words])))
                    break
            else:
                if set(_WORD.findall(words)) - _IDLE:
                    return None
            start = end + 1
        return clauses

    def asked(self, text: str, reference: Mapping[str, Mapping[str, float]]) -> dict[str, frozenset[str]]:
        """Return column -> requested values, for every column that a text mentions.

        ``reference``: column -> value -> probability that the reference image shows it. Comparisons start
        from the most probable value, and "the stars" are the most probable stars of the image. If a column is
        mentioned several times, the intersection is requested; if that is empty, what is mentioned last. A
        comparison that no value fulfils requests nothing.
        """
        return self.admissible(self.mentions(text), reference)

    def admissible(
        self, mentions: Sequence[Sequence[Mention]], reference: Mapping[str, Mapping[str, float]]
    ) -> dict[str, frozenset[str]]:
        """Return column -> requested values as :meth:`asked` does, from the readings of clauses."""
        likely = {
            column: max(shares, key=lambda value: shares[value])
            for column, shares in reference.items()
            if shares
        }
        wanted: dict[str, frozenset[str]] = {}
        for readings in mentions:
            mention = max(readings, key=lambda reading: self._plausible(reading, reference))
            admissible = self._admissible(mention, likely)
            if admissible:
                both = wanted.get(mention.column, admissible) & admissible
                wanted[mention.column] = both or admissible
        return wanted

    def _plausible(self, mention: Mention, reference: Mapping[str, Mapping[str, float]]) -> float:
        owner = self._owners.get(mention.column)
        if not mention.of or owner is None:
            return 0.0
        return reference.get(owner, {}).get(mention.of, 0.0)

    def _admissible(self, mention: Mention, likely: Mapping[str, str]) -> frozenset[str]:
        values = self.values[mention.column]
        if mention.kind == "is":
            return frozenset({mention.value, *mention.others})
        if mention.kind == "is not":
            return frozenset(values) - {mention.value}
        order = self._columns[mention.column].order
        assert order is not None  # Comparisons follow from an order.
        beyond = order.beyond(likely.get(mention.column, ""), mention.kind == "more")
        return frozenset(value for value in values if value in beyond)

    def _learn(self, column: str, spoken: ColumnVocabulary) -> None:
        """Store every training phrase of a column as a whole clause, with every word for every value."""
        owners = self._owner_names(spoken)
        for value in self.values[column]:
            known = spoken.values.get(value, Value())
            for template in (known.statements or spoken.statements).seen:
                self._note(template, column, "is", value, known, owners)
            for template in (known.negations or spoken.negations).seen:
                self._note(template, column, "is not", value, known, owners)
        if spoken.order:
            for template in spoken.order.up.seen:
                self._note(template, column, "more", "", Value(), owners)
            for template in spoken.order.down.seen:
                self._note(template, column, "less", "", Value(), owners)

    def _note(
        self,
        template: str,
        column: str,
        kind: Kind,
        value: str,
        known: Value,
        owners: Sequence[tuple[str, str]],
    ) -> None:
        plain = value.replace("_", " ")
        nouns = (*known.nouns, *known.plural) or (plain,)
        for word in known.words or (plain,) if "{value}" in template else ("",):
            for noun in nouns if "{noun}" in template else ("",):
                for name, of in owners if "{owner}" in template else (("", ""),):
                    phrase = template.format(
                        value=word, noun=noun, owner=name, column=column.replace("_", " ")
                    )
                    mention = Mention(column, kind, value, of)
                    readings = self._phrases[_plain(phrase)]
                    if mention not in readings:
                        readings.append(mention)

    def _owner_names(self, spoken: ColumnVocabulary) -> list[tuple[str, str]]:
        """Return the words for a column's object, each with the value of the owning column that it names."""
        if spoken.owner is None:
            return []
        owner = (
            self._columns[spoken.owner.column] if spoken.owner.column in self._columns else ColumnVocabulary()
        )
        names = [(spoken.owner.unknown, "")]
        for value, known in owner.values.items():
            for noun in (*known.nouns, *known.plural, *known.words):
                names.append((without_article(noun), value))
        return names


def _spoken(vocabularies: Sequence[Vocabulary], column: str, values: Sequence[str]) -> ColumnVocabulary:
    """Return a column's vocabulary; if there is none, a vocabulary of the values' own names."""
    for vocabulary in vocabularies:
        known = vocabulary.column(column)
        if known is not None:
            return known
    plain = Phrases(seen=("is {value}", "{value}", f"the {column.replace('_', ' ')} is {{value}}"))
    return ColumnVocabulary(values=dict.fromkeys(values, Value()), statements=plain)


def _plain(text: str) -> str:
    """Return a text in lower case, with single blanks and "a" instead of "an"."""
    return re.sub(r"\s+", " ", re.sub(r"\ban\b", "a", text.lower())).strip()
