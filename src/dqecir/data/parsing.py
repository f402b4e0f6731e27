"""From a modification text to what it asks for, by rules over the vocabularies.

What a shop would write without any learning: the phrases of a vocabulary are recognised as they
stand, other wordings by their words for values, by denials and by comparisons. Phrases that are held
out of training are in no table here either; the general rules of English below were written by people
who could read them, so that accuracy on unseen wordings is an upper bound of what strangers would get.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dqecir.data.vocabulary import Column, Phrases, Value, Vocabulary

Kind = Literal["is", "is not", "more", "less"]

_CONNECTOR = re.compile(r",|\band\b|(?<!anything )\bbut\b")
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_DENIAL = re.compile(
    r"\b(not|no|nothing|without|other than|anything but|away from|free of|except|remove|less|never|another|"
    r"different)\b"
)
_OLD = re.compile(r"\b(?:instead of|in place of|rather than)\b(.*)")
_REWORDED = tuple(
    (re.compile(pattern), plain)
    for pattern, plain in (
        (r"^(?:also|then)\b", ""),
        (r"\bno longer\b", "not"),
        (r"\b(?:take|leave)\b(.*)\b(?:off|away|out)\b", r"remove\1"),
        (r"\b(?:lighten|brighten|brighter)\b", "lighter"),
        (r"\bdarken\b", "darker"),
        (r"\benlarge\b", "larger"),
        (r"\bshrink\b", "smaller"),
        (r"\blengthen\b", "longer"),
        (r"\bshorten\b", "shorter"),
        (r"\b(?:increase|raise|additional|extra)\b", "higher"),
        (r"\b(?:decrease|reduce)\b", "lower"),
    )
)
"""Other ways to deny and to compare, said in the words that phrases use."""
_QUALIFIER = re.compile(r"\bsolid\b(?= \w)")
"""A word that says how a colour is, and not what pattern there is: "solid white"."""
REMEMBERED = 50_000
"""Texts whose readings a parser keeps."""
_IDLE = frozenset(
    re.findall(
        r"\w+",
        """a all an and any anything are as at be but by do does for from has have i in is it its kind like
        make more no not nothing now of on one put same should show similar so some style than that the there
        this to want way with without""",
    )
)


@dataclass(frozen=True)
class Mention:
    """One thing a text says of a column: a value, a value denied, or more or less than the reference.

    ``of`` is the value of the owning column that the text names ("the stars"), where it names one.
    """

    column: str
    kind: Kind
    value: str = ""
    of: str = ""


@dataclass(frozen=True)
class Clause:
    """A clause of a text in plain words, and its readings, any of which may be meant; none if unread."""

    words: str
    readings: tuple[Mention, ...]


class Parser:
    """Reads modification texts about the columns of one catalogue.

    ``values`` maps every column to its values (neither ``""`` nor ``"?"``).
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
        self._cues = {column: self._cue_words(column, spoken) for column, spoken in self._columns.items()}
        self._names = {
            column: _names(spoken, self.values[column]) for column, spoken in self._columns.items()
        }
        self._read: dict[str, tuple[Clause, ...]] = {}
        self._comparatives = frozenset().union(
            *(
                self._comparing(column, phrases)
                for column, spoken in self._columns.items()
                if spoken.order
                for phrases in (spoken.order.up, spoken.order.down)
            )
        )
        self._signs = [
            (sign, denied, mention)
            for phrase, readings in self._phrases.items()
            for mention in readings
            if mention.kind in ("is", "is not") and self._has_own_phrases(mention)
            for sign, denied in [(_stems(phrase), _denials(phrase))]
            if sign
        ]

    @property
    def phrases(self) -> Mapping[str, Sequence[Mention]]:
        """Every phrase that is read as a whole clause, in plain words, with its readings."""
        return self._phrases

    def mentions(self, text: str) -> list[tuple[Mention, ...]]:
        """For each clause of a text that says anything: the readings of it, any of which may be meant."""
        return [clause.readings for clause in self.clauses(text) if clause.readings]

    def clauses(self, text: str) -> tuple[Clause, ...]:
        """The clauses of a text that are more than connecting words, each with its readings."""
        if text not in self._read:
            if len(self._read) >= REMEMBERED:
                self._read.clear()
            parts = [part.strip(" .?!") for part in _CONNECTOR.split(_plain(text))]
            self._read[text] = tuple(
                clause
                for words in parts
                if set(_WORD.findall(words)) - _IDLE
                for clause in self._heard(words)
            )
        return self._read[text]

    def _heard(self, words: str) -> list[Clause]:
        """A clause with its readings; where it plainly names values of several columns, one for each.

        "in white with short sleeves", "a red striped dress".
        """
        whole = self._phrases.get(words)
        if whole:
            return [Clause(words, tuple(whole))]
        readings = self._by_words(words)
        named = self._named(words) if readings and all(r.kind == "is" and not r.of for r in readings) else []
        if len(named) > 1 and any(mention in readings for mention in named):
            return [Clause(words, (mention,)) for mention in named]
        return [Clause(words, tuple(readings))]

    def _named(self, clause: str) -> list[Mention]:
        """One value of each column that a clause names by a word; none where it denies or compares.

        A word that several columns have is that column's whose other words stand in the clause.
        """
        clause = _QUALIFIER.sub("", clause)
        words, stems = set(_WORD.findall(clause)), _stems(clause)
        if _DENIAL.search(clause) or _OLD.search(clause) or words & self._comparatives:
            return []
        claims: dict[tuple[int, int], list[tuple[float, Mention]]] = defaultdict(list)
        for column in self._names.keys() - self._owners.keys():
            weight = len(stems & self._cues[column]) + self._said_alone(column)
            for name, value in self._names[column]:
                found = re.search(rf"\b{re.escape(name)}\b", clause)
                if found:
                    claims[found.span()].append((weight, Mention(column, "is", value)))
        mentions: dict[str, Mention] = {}
        for span in sorted(claims, key=lambda span: span[0] - span[1]):
            best = max(weight for weight, _ in claims[span])
            chosen = [mention for weight, mention in claims[span] if weight == best]
            inside = any(other != span and other[0] <= span[0] and span[1] <= other[1] for other in claims)
            if len(chosen) == 1 and not inside:
                mentions.setdefault(chosen[0].column, chosen[0])
        return list(mentions.values())

    def asked(self, text: str, reference: Mapping[str, Mapping[str, float]]) -> dict[str, frozenset[str]]:
        """Admissible values of every column that a text asks for.

        ``reference`` says what the reference image shows: column -> value -> probability. Comparisons
        start from its most probable value, and "the stars" are what it most probably shows as stars.
        What several mentions of a column ask for is intersected, unless nothing would be left.
        """
        return self.admissible(self.mentions(text), reference)

    def admissible(
        self, mentions: Sequence[Sequence[Mention]], reference: Mapping[str, Mapping[str, float]]
    ) -> dict[str, frozenset[str]]:
        """What :meth:`asked` says of a text, of the mentions of its clauses."""
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
            return frozenset({mention.value})
        if mention.kind == "is not":
            return frozenset(values) - {mention.value}
        order = self._columns[mention.column].order
        assert order is not None  # comparisons are learned from an order alone
        beyond = order.beyond(likely.get(mention.column, ""), mention.kind == "more")
        return frozenset(value for value in values if value in beyond)

    def _learn(self, column: str, spoken: Column) -> None:
        """Every phrase that training shows, with every word for every value, as a whole clause."""
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

    def _owner_names(self, spoken: Column) -> list[tuple[str, str]]:
        """Words for what a column is of, each with the owner's value that they name."""
        if spoken.owner is None:
            return []
        owner = self._columns[spoken.owner.column] if spoken.owner.column in self._columns else Column()
        names = [(spoken.owner.unknown, "")]
        for value, known in owner.values.items():
            for noun in (*known.nouns, *known.plural, *known.words):
                names.append((_without_article(noun), value))
        return names

    def _by_words(self, clause: str) -> list[Mention]:
        """Readings of a clause that is no known phrase: those with the most of their words in it."""
        for pattern, plain in _REWORDED:
            clause = pattern.sub(plain, clause)
        past = _OLD.search(clause)
        old, clause = (past[1], clause[: past.start()]) if past else ("", clause)
        words, stems = set(_WORD.findall(clause)), _stems(clause)
        scored: list[tuple[float, Mention]] = []
        for column, names in self._names.items():
            cues = float(len(stems & self._cues[column]))
            of = self._named_owner(column, clause, old)
            if of is None and column in self._owners and not cues:
                continue  # "one" alone is no count of anything
            cues += 0.5 * bool(of) + self._said_alone(column)
            for name, value in names:
                found = re.search(rf"\b{re.escape(name)}\b", clause)
                if found and value != of:
                    kind: Kind = "is not" if _denials(clause[: found.start()]) else "is"
                    scored.append((len(name.split()) + cues, Mention(column, kind, value, of or "")))
            order = self._columns[column].order
            if order:
                if words & self._comparing(column, order.up):
                    scored.append((1.0 + cues, Mention(column, "more", of=of or "")))
                if words & self._comparing(column, order.down):
                    scored.append((1.0 + cues, Mention(column, "less", of=of or "")))
        denied = _denials(clause)
        scored += [(len(sign), said) for sign, no, said in self._signs if no == denied and sign <= stems]
        best = max((score for score, _ in scored), default=0.0)
        return list(dict.fromkeys(mention for score, mention in scored if score == best))

    def _named_owner(self, column: str, clause: str, old: str) -> str | None:
        """The owner's value that a clause names, "" where it only says "the other shape", else None.

        Where a column is its own owner ("turn the stars into hearts"), what is replaced and what "the"
        points at is the owner, and everything else the value.
        """
        itself = self._owners.get(column) == column
        for name, value in sorted(self._owner_names(self._columns[column]), key=lambda pair: -len(pair[0])):
            if re.search(rf"\b{'the ' if itself else ''}{re.escape(name)}\b", clause):
                return value
            if re.search(rf"\b{re.escape(name)}\b", old):
                return value
        return None

    def _has_own_phrases(self, mention: Mention) -> bool:
        """Whether a mention is made by phrases of its value alone ("has a hood")."""
        known = self._columns[mention.column].values.get(mention.value, Value())
        own = known.statements if mention.kind == "is" else known.negations
        return own is not None and not any("{" in template for template in own.seen)

    def _said_alone(self, column: str) -> float:
        """A small bonus for a column whose values are said without naming it: "is red", "is shorter"."""
        alone = any(not _stems(template) for template in self._columns[column].statements.seen)
        return 0.1 if alone else 0.0

    def _comparing(self, column: str, phrases: Phrases) -> set[str]:
        """Words that only the comparisons of one direction have: "longer", "fewer"."""
        spoken = self._columns[column]
        assert spoken.order is not None
        other = spoken.order.down if phrases is spoken.order.up else spoken.order.up
        own = {word for template in phrases.seen for word in _template_words(template)}
        rest = {
            word for template in other.seen + spoken.statements.seen for word in _template_words(template)
        }
        return {word for word in own - rest if word.endswith("er")} or own - rest

    def _cue_words(self, column: str, spoken: Column) -> frozenset[str]:
        """Stems of a column's phrases and of its name that are not words for values."""
        texts = [*spoken.statements.seen, *spoken.negations.seen, column.replace("_", " ")]
        return frozenset().union(*map(_stems, texts))


def _spoken(vocabularies: Sequence[Vocabulary], column: str, values: Sequence[str]) -> Column:
    """How a column is spoken of; one that no vocabulary knows by its values' own names."""
    for vocabulary in vocabularies:
        known = vocabulary.column(column)
        if known is not None:
            return known
    plain = Phrases(seen=("is {value}", "{value}", f"the {column.replace('_', ' ')} is {{value}}"))
    return Column(values=dict.fromkeys(values, Value()), statements=plain)


def _names(spoken: Column, values: Sequence[str]) -> list[tuple[str, str]]:
    """(word, value) of all words for a column's values, longest first.

    A word that most of a value's own statements share, and none of the column's, is a word for it
    too: "knee", "hood".
    """
    found = []
    general = {word for template in spoken.statements.seen for word in _template_words(template)}
    for value in values:
        known = spoken.values.get(value, Value())
        for word in (*known.words, *known.nouns, *known.plural) or (value.replace("_", " "),):
            found.append((_without_article(word), value))
        own = [set(_template_words(template)) for template in (known.statements or Phrases()).seen]
        for word in set().union(*own) - general - _IDLE:
            if 2 * sum(word in words for words in own) > len(own) > 1:
                found.append((word, value))
    return sorted(set(found), key=lambda pair: (-len(pair[0]), pair))


def _stems(text: str) -> frozenset[str]:
    """Words of a phrase or a clause that say what it is about, without their endings."""
    return frozenset(
        re.sub(r"(?<=...)(?:es|ed|s|e|d)$", "", word) for word in _template_words(text) if word not in _IDLE
    )


def _denials(text: str) -> bool:
    """Whether a text denies: an odd number of times, as "not without" says with."""
    return len(_DENIAL.findall(text)) % 2 == 1


def _plain(text: str) -> str:
    """Lower case, single blanks, "an" as "a"."""
    return re.sub(r"\s+", " ", re.sub(r"\ban\b", "a", text.lower())).strip()


def _without_article(noun: str) -> str:
    return re.sub(r"^(an?|the|pair of) ", "", noun)


def _template_words(template: str) -> list[str]:
    return _WORD.findall(re.sub(r"\{[^{}]*\}", " ", template).lower())
