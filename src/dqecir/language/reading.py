"""Read free English by rules, for texts that do not consist of a vocabulary's phrases.

Names of values, names of objects ("the stars", "main shape") and comparatives are found anywhere in the text;
roles.py decides whether each is wanted. If several columns have a name, the words around it decide: first
those next to it, then those in the same part of the text, then the topic of the part before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from dqecir.language.english import stem, word_set
from dqecir.language.lexicon import Lexicon
from dqecir.language.mentions import Clause, Kind, Mention
from dqecir.language.roles import Role
from dqecir.language.spotting import Name, Text, taken_in
from dqecir.language.vocabulary import ColumnVocabulary

_POINTING = word_set("it them that ones one mine there those these this")
_DETERMINERS = word_set("a an the any some its her his their more very really")
_MODALS = word_set("should would could must need needs want may might")
_JOINING = word_set("in is are was were should be to being of all that which")
_HAVING = word_set("with has have having got add put want need needs kind sort")
FRAGMENT = 3
"""Most words of a refusal that belongs to the part before it: "long sleeves, not short"."""
_ANOTHER = word_set("add adding include also too well another second besides accompanied beside next")
_COMMON = word_set(
    """high round right left top bottom body regular standard normal usual average classic ordinary full
    half low flat box boxy man men fall spring work little wide smart middle single lone set other
    wine rose square tall medium"""
)
"""Everyday words that name a value only if the text also hints at the column."""
_SMALL_WORDS = word_set(
    """a able about actually after all almost also am an and another any anything are around as ask at be
    been being bit but buy by can chance change close come could cut different do does else
    everything except exact exactly fan find fine for from get give go good got great had happier
    has have having hello help hey hi hmm how i if in instead is it item its kind kinda let like
    little look looking love made make makes maybe me mind mine more much my need needs nice no not
    nothing now of off oh ok okay on one ones only or other otherwise our out over perfect picture
    please prefer product put quite rather really same see shall should show similar so some
    something sort still style stuff such sure switch take than thank thanks that the their them
    then there these they thing think this those time to too try up us use version very want wants
    was way we well were what when which while will wish with without would yes yet you your"""
)


@dataclass
class _Topic:
    """What the parts of a text so far were about."""

    columns: frozenset[str] = frozenset()
    told: bool = False
    """Whether the last part describes the reference, so that the next part probably changes it."""
    refused: bool = False
    owners: Sequence[tuple[str, str]] = ()


class RuleReader:
    """Reads free English about the columns of one catalogue."""

    def __init__(self, lexicon: Lexicon, spoken: Mapping[str, ColumnVocabulary]) -> None:
        self.lexicon, self.spoken = lexicon, spoken
        self.owner_of = {column: known.owner.column for column, known in spoken.items() if known.owner}

    def read(self, text: str) -> list[Clause]:
        """Return the clauses of a text: those with readings, and those that could not be read."""
        known = taken_in(text, self.lexicon)
        topic, clauses = _Topic(), []
        lefts: list[Clause] = []
        wanted = False
        for start, end in known.parts:
            words = " ".join(known.words[start:end])
            said = self._part(known, start, end, topic)
            for role, readings in said:
                clause = Clause(words, readings)
                if role is Role.LEFT:
                    lefts.append(clause)
                elif role is not Role.TOLD:
                    clauses.append(clause)
                    wanted = wanted or readings[0].kind != "is not"
            if not said and set(known.words[start:end]) - _SMALL_WORDS:
                clauses.append(Clause(words, ()))
        # Ignore "instead of X" when something else is requested.
        return clauses if wanted else clauses + lefts

    def _part(
        self, text: Text, start: int, end: int, topic: _Topic
    ) -> list[tuple[Role, tuple[Mention, ...]]]:
        """Return the readings of the part [start, end) of a text, each with its role."""
        names = [name for name in text.names if start <= name.start < end]
        owners = [name for name in names if name.kind == "owner"]
        values = [name for name in names if name.kind != "owner" and not self._is_cue(text, name, names)]
        owners += self._modified(text, values, owners)
        values = [name for name in values if not any(name.start == other.start for other in owners)]
        if not values and any(value == "" for name in owners for _, value in name.means):
            # "the circle shape for the main figure"
            values = [
                Name(name.start, name.start + length, means)
                for name in owners
                if all(value for _, value in name.means)
                for length, means in [self.lexicon.find(text.words, name.start)]
                if means
            ]
            owners = [name for name in owners if not any(name.start == value.start for value in values)]
        pointing = bool(_POINTING & set(text.words[start:end]))
        near = [mean for name in owners for mean in name.means]
        if owners:
            topic.owners = near
        said: list[tuple[Role, tuple[Mention, ...]]] = []
        before: Name | None = None
        for name in values:
            readings = self._readings(text, name, start, end, owners, topic, pointing)
            choice = before is not None and "or" in text.words[before.end : name.start]
            before = name
            if readings and choice and said:
                both = _either(said[-1], (text.roles[name.start], readings))
                if both is not None:
                    said[-1] = both
                    continue
            if readings:
                said.append((text.roles[name.start], readings))
        if not said:
            said = self._things(text, start, end, owners)
        columns = frozenset(reading.column for _, readings in said for reading in readings)
        columns = columns or frozenset().union(*text.cues[start:end])
        if not columns:
            topic.told = topic.refused = False
        else:
            topic.columns = columns
            spoken = set(text.words[start:end])
            shown = (
                spoken & {"is", "are", "count"}
                and not spoken & _MODALS
                and text.words[start] not in ("is", "are")
            )
            topic.told = bool(said) and (shown or all(role is Role.TOLD for role, _ in said))
            topic.refused = bool(said) and all(role in (Role.REFUSED, Role.LEFT) for role, _ in said)
        return said

    @staticmethod
    def _is_fragment(text: Text, role: Role, start: int, end: int) -> bool:
        """Return whether a part only refuses an alternative: "not short" after "long sleeves"."""
        short = role is Role.REFUSED and end - start <= FRAGMENT
        return short and text.words[end : end + 1] != ["but"]

    def _is_cue(self, text: Text, name: Name, names: Sequence[Name]) -> bool:
        """Return whether a name only hints at the column of the name before it: "print" in "flower print"."""
        return name.end - name.start == 1 and any(
            other.end == name.start and column in text.cues[name.start]
            for other in names
            for column, _ in other.means
            if other.kind == "value" and column not in {own for own, _ in name.means}
        )

    def _modified(self, text: Text, values: Sequence[Name], owned: Sequence[Name]) -> list[Name]:
        """Return the nouns that a value describes, which name objects: "two stars", "bigger stars"."""
        found: list[Name] = []
        left = any(text.roles[name.start] is Role.LEFT for name in (*values, *owned))
        for name, after in () if left else pairwise(values):
            size, owners = self.lexicon.owner(text.words[: after.end], after.start)
            beside = name.end == after.start and size == after.end - after.start
            if owners and beside and any(column in self.owner_of for column, _ in name.means):
                found.append(Name(after.start, after.end, owners, "owner"))
        for name in values:
            size, owners = self.lexicon.owner(text.words[: name.end], name.start)
            if owners and text.roles[name.start] is Role.LEFT:
                found.append(Name(name.start, name.end, owners, "owner"))
        return found

    def _readings(
        self,
        text: Text,
        name: Name,
        start: int,
        end: int,
        owners: Sequence[Name],
        topic: _Topic,
        pointing: bool,
    ) -> tuple[Mention, ...]:
        """Return the likeliest readings of a name: columns and values."""
        role = text.roles[name.start]
        kind: Kind = "is not" if role in (Role.REFUSED, Role.LEFT) else "is"
        if name.kind in ("more", "less"):
            if role is not Role.WANTED and not name.turned:
                return ()
            kind = "more" if name.kind == "more" else "less"
        scored = []
        for column, value in name.means:
            weight = self._weight(text, name, column, start, end)
            if column in topic.columns:
                ones = name.kind == "value" and {"one", "ones"} & set(text.words[start:end])
                refused = topic.refused and (ones or text.words[start - 1 : start] == ["but"])
                refused = refused or self._is_fragment(text, role, start, end)
                meant = text.words[name.end : name.end + 1] == ["ones"]  # "with sleeves, long ones"
                weight += 0.3 if topic.told or refused or meant else 0.05 * pointing
            weight += 0.1 * (column in self.lexicon.alone)
            if column in self.owner_of:
                ofs = self._ofs(text, name, column, owners, topic, start, end, pointing, weight)
            else:
                ofs = [(0.0, "")] if weight >= 0.3 or self._speaks_alone(text, name, column) else []
            gone = (
                role is Role.REFUSED
                and self.owner_of.get(column) == column
                and "not" not in text.words[start : name.start]
            )
            for extra, of in ofs:
                mention = Mention(column, kind, value, of)
                if gone and not of:
                    absent = self.lexicon.absent.get(column)
                    mention = Mention(column, "is" if absent else kind, absent or value, value)
                scored.append((round(weight + extra, 3), mention))
        best = max((score for score, _ in scored), default=0.0)
        return tuple(dict.fromkeys(mention for score, mention in scored if score == best))

    def _speaks_alone(self, text: Text, name: Name, column: str) -> bool:
        """Return whether a name is understood without another word that hints at its column."""
        words = text.words[name.start : name.end]
        if len(words) > 1 or name.kind != "value":
            return True
        if column in self.lexicon.alone:
            return not (words[0] == "one" or words[0].isdigit())
        return not (words[0] in _COMMON or len(words[0]) < 3 or words[0].isdigit() or words[0] == "one")

    def _weight(self, text: Text, name: Name, column: str, start: int, end: int) -> float:
        """Return how strongly the words around a name hint at ``column``; 0: not at all."""
        weight = 0.0
        ends = {other.end: other for other in text.names if other.kind == "value"}
        weight += self._of_noun(text, name, column, start, end)
        seen = set()
        for place in range(start, end):
            if column not in text.cues[place] or stem(text.words[place]) in seen:
                continue
            if name.start <= place < name.end:
                weight += 0.2
                continue
            other = ends.get(place)
            if place == name.end:
                weight += 1.5
            elif (
                other is not None
                and text.roles[other.start] is text.roles[name.start]
                and any(c == column for c, _ in other.means)
            ):
                weight += 0.05
                continue
            else:
                weight += 1.0 if text.chunk[place] == text.chunk[name.start] else 0.5
            seen.add(stem(text.words[place]))
        return weight

    def _of_noun(self, text: Text, name: Name, column: str, start: int, end: int) -> float:
        """Return how strongly a noun near the name hints at ``column``: "red dots", "the dots in red"."""
        if name.end < end and column in self.lexicon.nouns.get(text.words[name.end], ()):
            return 1.5
        for place in range(name.start - 1, max(start, name.start - 4) - 1, -1):
            if column in self.lexicon.nouns.get(text.words[place], ()):
                taken = place > start and any(other.end == place for other in text.names)
                return 0.0 if taken else 1.0
            if text.words[place] not in _JOINING:
                return 0.0
        return 0.0

    def _ofs(
        self,
        text: Text,
        name: Name,
        column: str,
        owners: Sequence[Name],
        topic: _Topic,
        start: int,
        end: int,
        pointing: bool,
        weight: float,
    ) -> list[tuple[float, str]]:
        """Return (weight, object) for each object that may have the value of a name."""
        owner = self.owner_of[column]
        itself = owner == column
        word = text.words[name.start]
        if word == "one" and name.end - name.start == 1:
            nearby = text.words[max(start, name.start - 2) : name.start]
            of_it = any(o.start - name.end in (0, 1, 2) for o in owners)
            if not of_it and not {"just", "only", "exactly", "single"} & set(nearby):
                return []
        found = [(0.5, of) for other in owners for o, of in other.means if o == owner]
        wanted = text.roles[name.start] is Role.WANTED
        if itself and wanted and _ANOTHER & set(text.words[start:end]) and column in self.lexicon.absent:
            found = found or [(0.4, "")]
        if found or owners:
            return found
        if any(o == owner for o, _ in topic.owners) and (pointing or column in topic.columns):
            return [(0.3, of) for o, of in topic.owners if o == owner]
        if itself:
            return [(0.0, "")]
        named = len({c for c, _ in name.means}) == 1 and self._speaks_alone(text, name, column)
        return [(0.0, "")] if weight >= 0.5 or (named and not word.isdigit()) else []

    def _things(
        self, text: Text, start: int, end: int, owners: Sequence[Name]
    ) -> list[tuple[Role, tuple[Mention, ...]]]:
        """Return requests that name a column's object but no value: "without sleeves", "add a pattern"."""
        for place in range(start, end):
            for column, value in self.lexicon.things.get(stem(text.words[place]), ()):
                if text.roles[place] is Role.REFUSED:
                    return [(Role.REFUSED, (Mention(column, "is", value),))]
                before = [w for w in text.words[start:place] if w not in _DETERMINERS]
                if text.roles[place] is Role.WANTED and before[-1:] and before[-1] in _HAVING:
                    return [(Role.WANTED, (Mention(column, "is not", value),))]
        stems = [stem(word) for word in text.words[start:end]]
        refused = any(role is Role.REFUSED for role in text.roles[start:end])
        for sign, denied, column, kind, value in self.lexicon.signs:
            if denied is refused and sign <= set(stems):
                return [(Role.WANTED, (Mention(column, kind, value),))]
        for owner in owners:
            if text.roles[owner.start] is Role.REFUSED:
                readings = tuple(
                    Mention(column, "is", self.lexicon.absent[column], of)
                    for column, of in owner.means
                    if column in self.lexicon.absent and self.owner_of.get(column) == column
                )
                if readings:
                    return [(Role.REFUSED, readings)]
        return []


def _either(
    first: tuple[Role, tuple[Mention, ...]], second: tuple[Role, tuple[Mention, ...]]
) -> tuple[Role, tuple[Mention, ...]] | None:
    """Join two alternative values of one column into one request; None if they are not alternatives."""
    (role, before), (other, after) = first, second
    if not role is other is Role.WANTED or len(before) != 1 or len(after) != 1:
        return None
    one, two = before[0], after[0]
    if one.column != two.column or one.kind != "is" or two.kind != "is":
        return None
    return role, (replace(one, others=(*one.others, two.value)),)
