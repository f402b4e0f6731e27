"""Word changed attributes as two captions, as in FashionIQ, and record which values they request."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dqecir.data.cells import UNKNOWN, has_value
from dqecir.errors import DataError
from dqecir.language.vocabulary import ColumnVocabulary, Phrases, Value, Vocabulary

COMPARED = 0.22
"""Share of mentions that compare ("darker") instead of naming the value, if the attribute has an order."""
DENIED = 0.08
"""Share of mentions that only deny the old value ("not red")."""
REPEATED = 0.25
"""Share of pairs with several changes in which both captions mention one of the changes."""
KEPT_ELSE = 0.15
"""Share of captions that also say that everything else stays the same."""

_SAME_BUT = Phrases(
    seen=("is the same but ", "same style but ", "similar but "),
    held_out=("just like this one but ", "keep the rest but "),
)
_BETWEEN = Phrases(seen=(" and ", ", "), held_out=(" and also ", " and then "))
_ARTICLE = re.compile(r"^an? ")
_ANY_COLUMN = ColumnVocabulary(
    statements=Phrases(
        seen=(
            "{column} is {value}",
            "the {column} is {value}",
            "with {value} {column}",
            "has {value} {column}",
            "has a {value} {column}",
            "is {value} in {column}",
        ),
        held_out=(
            "change the {column} to {value}",
            "of {value} {column}",
            "comes with {value} {column}",
            "the {column} should be {value}",
        ),
    ),
    negations=Phrases(
        seen=("{column} is not {value}", "the {column} is not {value}", "is not {value} in {column}"),
        held_out=("without {value} {column}", "no {value} {column}"),
    ),
)
"""Phrases for a column that no vocabulary knows."""


@dataclass(frozen=True, slots=True)
class Change:
    """An attribute whose value differs: ``before`` in the reference, ``after`` in the target."""

    column: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Worded:
    """Two captions, and what they request.

    ``asked``: column that the captions mention -> the values that they request. ``unseen``: whether all
    phrases are held out of training.
    """

    captions: tuple[str, str]
    asked: dict[str, frozenset[str]]
    unseen: bool


@dataclass(slots=True)
class _Text:
    """A text in progress: the reference's known values, requests so far, and if all phrases are unseen."""

    held_out: bool
    known: Mapping[str, str] = field(default_factory=dict)
    asked: dict[str, frozenset[str]] = field(default_factory=dict)
    unseen: bool = True


@dataclass(frozen=True, slots=True)
class _Owned:
    """The object that has an attribute: its noun (empty if none), and whether there are several of it."""

    noun: str = ""
    several: bool = False


class CaptionGenerator:
    """Words captions about the columns of one catalogue, with the phrases of vocabularies.

    ``values``: column -> all its values (neither ``""`` nor ``UNKNOWN``). Raises ``DataError`` if two
    vocabularies know the same column.
    """

    def __init__(self, vocabularies: Sequence[Vocabulary], values: Mapping[str, Sequence[str]]) -> None:
        self._values = {column: tuple(names) for column, names in values.items()}
        self._columns = {column: _spoken_by(vocabularies, column) for column in values}

    def group(self, column: str, value: str) -> str | None:
        """Return the name of the group of values within which ``value`` may change.

        A value in no group is a group of its own, with the value as name. None if the column has no groups,
        so that every value may change into every other.
        """
        known = self._columns[column]
        return known.group(_folded(known, value)) if known.groups else None

    def describe(
        self,
        changes: Sequence[Change],
        rng: random.Random,
        held_out: bool,
        reference: Mapping[str, str] | None = None,
    ) -> Worded:
        """Word two captions that together mention every change, in seen or (``held_out``) held-out phrases.

        ``reference``: column -> value of the reference, which names the objects of a scene. A mention states
        the new value, compares it, or denies the old one; if two mentions of an attribute request different
        sets of values, their intersection is requested. Where a vocabulary has no held-out phrase, a seen one
        is used, and the result is not ``unseen``. ``rng`` draws the phrases.
        """
        text = _Text(held_out, {**(reference or {}), **{change.column: change.before for change in changes}})
        captions = [self._caption(share, text, rng) for share in _shared_out(changes, rng)]
        return Worded((captions[0], captions[1]), text.asked, text.unseen and held_out)

    def portray(self, attributes: Mapping[str, str], rng: random.Random) -> str:
        """Word a caption of one image: a statement of each attribute, in random order, in seen phrases.

        ``attributes``: column -> value, neither ``""`` nor ``UNKNOWN``.
        """
        text = _Text(held_out=False, known=attributes)
        caption = ""
        for column, value in rng.sample(list(attributes.items()), len(attributes)):
            spoken = self._columns[column]
            owned = self._owned(column, value, text, rng)
            if spoken.owner and spoken.owner.column == column:
                owned = _Owned(several=owned.several)  # An object is not turned into itself.
            statements = _statements(spoken, _folded(spoken, value), owned)
            joint = _drawn(_BETWEEN, text, rng) if caption else ""
            caption += joint + _filled(
                _drawn(statements, text, rng), column, _value(spoken, value), value, rng, owned
            )
        return caption

    def statements(self, column: str, value: str) -> list[str]:
        """Return every statement that an image shows ``value``, with all words for the value.

        If the column belongs to an object, the object is called ``Owner.unknown``.
        """
        spoken = self._columns[column]
        known, plain = _value(spoken, value), value.replace("_", " ")
        owned = _Owned("" if spoken.owner is None else spoken.owner.unknown)
        said = (
            _article_fitted(
                template.format(column=column.replace("_", " "), value=word, noun=noun, owner=owned.noun)
            )
            for template in _statements(spoken, _folded(spoken, value), owned).all
            for word in known.words or (plain,)
            for noun in known.nouns or (plain,)
        )
        return list(dict.fromkeys(said))

    def _caption(self, changes: Sequence[Change], text: _Text, rng: random.Random) -> str:
        caption = self._mention(changes[0], text, rng)
        for change in changes[1:]:
            caption += _drawn(_BETWEEN, text, rng) + self._mention(change, text, rng)
        if rng.random() < KEPT_ELSE:
            caption = _drawn(_SAME_BUT, text, rng) + caption
        return caption

    def _mention(self, change: Change, text: _Text, rng: random.Random) -> str:
        column = self._columns[change.column]
        kind = rng.random()
        if kind < COMPARED:
            compared = self._compared(column, change, text, rng)
            if compared:
                return compared
        owned = self._owned(change.column, change.after, text, rng)
        value, phrases = change.after, _statements(column, _folded(column, change.after), owned)
        admissible = frozenset({change.after})
        if COMPARED <= kind < COMPARED + DENIED:
            denied = self._owned(change.column, change.before, text, rng)
            denials = _negations(column, _folded(column, change.before), denied)
            if denials.all:
                value, phrases, owned = change.before, denials, denied
                admissible = frozenset(self._values[change.column]) - {change.before}
        _ask(text, change.column, admissible)
        return _filled(_drawn(phrases, text, rng), change.column, _value(column, value), value, rng, owned)

    def _compared(
        self, column: ColumnVocabulary, change: Change, text: _Text, rng: random.Random
    ) -> str | None:
        if not column.order:
            return None
        for upwards, phrases in ((True, column.order.up), (False, column.order.down)):
            beyond = column.order.beyond(_folded(column, change.before), upwards)
            owned = self._owned(change.column, None, text, rng)
            fitting = _fitting(phrases, None, owned)
            if fitting.all and _folded(column, change.after) in beyond:
                admissible = (v for v in self._values[change.column] if _folded(column, v) in beyond)
                _ask(text, change.column, frozenset(admissible))
                return _filled(_drawn(fitting, text, rng), change.column, Value(), change.after, rng, owned)
        return None

    def _owned(self, name: str, value: str | None, text: _Text, rng: random.Random) -> _Owned:
        """Return the object of the image that has ``value`` (None in a comparison) in the column ``name``."""
        owner = self._columns[name].owner
        if owner is None:
            return _Owned()
        number = value if name == owner.counted_by else text.known.get(owner.counted_by or "", "")
        several = owner.counted_by is not None and number != "1"
        known = text.known.get(owner.column, UNKNOWN)
        if not has_value(known) or owner.column not in self._columns:
            return _Owned(owner.unknown, several)
        kind = _value(self._columns[owner.column], known)
        nouns = (kind.plural or kind.nouns) if several else kind.nouns
        return _Owned(_ARTICLE.sub("", rng.choice(nouns)) if nouns else "", several)


def _spoken_by(vocabularies: Sequence[Vocabulary], name: str) -> ColumnVocabulary:
    known = [(vocabulary.name, column) for vocabulary in vocabularies if (column := vocabulary.column(name))]
    if len(known) > 1:
        names = " and ".join(vocabulary for vocabulary, _ in known)
        raise DataError(f"the vocabularies {names} both know the column {name!r}: use only one of them")
    return known[0][1] if known else _ANY_COLUMN


def _shared_out(changes: Sequence[Change], rng: random.Random) -> tuple[list[Change], list[Change]]:
    """Share the changes among the two captions; each is mentioned in one of them.

    Only a single change, or one that is drawn for repetition, is mentioned in both.
    """
    order = list(changes)
    rng.shuffle(order)
    if len(order) == 1:
        return order, order
    cut = rng.randrange(1, len(order))
    first, second = order[:cut], order[cut:]
    if rng.random() < REPEATED:
        second = [*second, rng.choice(first)]
    return first, second


def _ask(text: _Text, column: str, admissible: frozenset[str]) -> None:
    text.asked[column] = text.asked.get(column, admissible) & admissible


def _drawn(phrases: Phrases, text: _Text, rng: random.Random) -> str:
    wanted, other = (phrases.held_out, phrases.seen) if text.held_out else (phrases.seen, phrases.held_out)
    if text.held_out and not wanted:
        text.unseen = False
    return rng.choice(wanted or other)


def _folded(column: ColumnVocabulary, value: str) -> str:
    """Return the vocabulary's spelling of ``value``, which the catalogue may spell differently."""
    if value in column.values:
        return value
    return next((known for known in column.values if known.casefold() == value.casefold()), value)


def _value(column: ColumnVocabulary, value: str) -> Value:
    return column.values.get(_folded(column, value)) or Value()


def _statements(column: ColumnVocabulary, value: str, owned: _Owned) -> Phrases:
    own = column.values[value].statements if value in column.values else None
    fitting = _fitting(own or column.statements, column.values.get(value), owned)
    return fitting if fitting.all else _ANY_COLUMN.statements


def _negations(column: ColumnVocabulary, value: str, owned: _Owned) -> Phrases:
    own = column.values[value].negations if value in column.values else None
    return _fitting(own or column.negations, column.values.get(value), owned)


def _fitting(phrases: Phrases, value: Value | None, owned: _Owned) -> Phrases:
    """Return the phrases without those that need a noun of the value or of its owner, if there is none."""
    missing = [] if value and value.nouns else ["{noun}"]
    missing += [] if owned.noun else ["{owner}"]
    seen, held_out = (
        tuple(template for template in templates if not any(slot in template for slot in missing))
        for templates in (phrases.seen, phrases.held_out)
    )
    return Phrases.model_construct(seen=seen, held_out=held_out)


def _filled(template: str, column: str, value: Value, name: str, rng: random.Random, owned: _Owned) -> str:
    plain = name.replace("_", " ")
    word = rng.choice(value.words) if value.words else plain
    nouns = (owned.several and value.plural) or value.nouns
    noun = rng.choice(nouns) if nouns else plain
    text = template.format(column=column.replace("_", " "), value=word, noun=noun, owner=owned.noun)
    return _article_fitted(text)


def _article_fitted(text: str) -> str:
    return re.sub(r"\ba (?=[aeio])", "an ", text)
