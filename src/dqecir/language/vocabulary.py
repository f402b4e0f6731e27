"""Vocabularies: the words for an attribute, one YAML file for each attribute.

A vocabulary names the catalogue columns of the attribute, the words for their values, and the phrases that
state, deny or compare values. A new attribute needs a new file, but no code.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator, model_validator

from dqecir.errors import DataError
from dqecir.settings import Strict, nearest, parse_settings

SHIPPED = (
    "colour",
    "shape",
    "pattern",
    "wearer",
    "occasion",
    "object_colour",
    "quantity",
    "appearance",
    "form",
)
"""Names of the shipped vocabularies: five for what shops sell, four for drawn scenes."""

_SLOTS = frozenset({"value", "noun", "column", "owner"})
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_IDLE = frozenset(
    re.findall(
        r"\w+",
        """a an and are as at but by colored coloured down for has have in is it its less like made make
        makes more much no not of off on one other out over pair rather than that the to up way with
        without""",
    )
)
"""Words that signal no attribute by themselves."""


class Phrases(Strict):
    """Phrases of one kind: those for training (``seen``), and those held out of training.

    A phrase may have the slots ``{value}`` (a word for the value), ``{noun}`` (a noun for it), ``{column}``
    (the name of the column) and, if the column has an owner, ``{owner}`` (a noun for the owner). A plain list
    in YAML means ``seen``.
    """

    seen: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _accept_list(cls, data: Any) -> Any:
        return {"seen": data} if isinstance(data, list | tuple) else data

    @field_validator("seen", "held_out")
    @classmethod
    def _check_slots(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            for slot in re.findall(r"\{([^{}]*)\}", template):
                if slot not in _SLOTS:
                    raise ValueError(f"the phrase {template!r} has an unknown slot{nearest(slot, _SLOTS)}")
            if re.search(r"[{}]", _without_slots(template)):
                raise ValueError(f"the phrase {template!r} has a brace outside of a slot: remove it")
        return templates

    @property
    def all(self) -> tuple[str, ...]:
        return self.seen + self.held_out


class Value(Strict):
    """A value of a column: its words, its nouns (``plural``: for several objects), and phrases of its own.

    Default of ``words``: the name of the value. Own phrases replace those of the column. A plain list in YAML
    means ``words``.
    """

    words: tuple[str, ...] = ()
    nouns: tuple[str, ...] = ()
    plural: tuple[str, ...] = ()
    statements: Phrases | None = None
    negations: Phrases | None = None

    @model_validator(mode="before")
    @classmethod
    def _accept_list(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {"words": [data] if data else []}
        return {"words": data} if isinstance(data, list | tuple) else data


class Order(Strict):
    """Values from least to most, for comparisons; values in the same step are equal in this order."""

    values: tuple[tuple[str, ...], ...]
    up: Phrases = Phrases()
    down: Phrases = Phrases()

    @field_validator("values", mode="before")
    @classmethod
    def _accept_single(cls, steps: Any) -> Any:
        return [[step] if isinstance(step, str) else step for step in steps]

    def beyond(self, value: str, upwards: bool) -> frozenset[str]:
        """Return all values that are more (``upwards``) or less than ``value``.

        Empty if it is not in the order.
        """
        place = next((i for i, step in enumerate(self.values) if value in step), None)
        if place is None:
            return frozenset()
        steps = self.values[place + 1 :] if upwards else self.values[:place]
        return frozenset(value for step in steps for value in step)


class Owner(Strict):
    """The object that has the attribute, if images show several objects: "make the stars red"."""

    column: str
    """Column whose value names the object, by one of the value's nouns."""
    unknown: str
    """Name of the object if that value is unknown."""
    counted_by: str | None = None
    """Column with the number of these objects: if it is 1, ``nouns`` are used, otherwise ``plural``."""


class ColumnVocabulary(Strict):
    """The words for one catalogue column."""

    aliases: tuple[str, ...] = ()
    values: dict[str, Value] = Field(default_factory=dict)
    statements: Phrases = Phrases()
    negations: Phrases = Phrases()
    order: Order | None = None
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Groups of values that may change into one another; a value in no group never changes. Without any
    groups, every value may change into every other."""
    owner: Owner | None = None
    words: tuple[str, ...] = ()
    """Further words that signal the attribute."""

    @field_validator("values", mode="before")
    @classmethod
    def _accept_list(cls, data: Any) -> Any:
        return dict.fromkeys(data, "") if isinstance(data, list | tuple) else data

    @model_validator(mode="after")
    def _check_names(self) -> ColumnVocabulary:
        for template in self.statements.all + self.negations.all:
            if "{value}" not in template and "{noun}" not in template:
                raise ValueError(f"the phrase {template!r} names no value: it needs {{value}} or {{noun}}")
        if self.owner is None:
            for template in self._templates():
                if "{owner}" in template:
                    raise ValueError(
                        f"the phrase {template!r} has the slot {{owner}}, and the column no owner: add one"
                    )
        ordered = [value for step in self.order.values for value in step] if self.order else []
        grouped = [value for values in self.groups.values() for value in values]
        for what, names in (("order", ordered), ("groups", grouped)):
            for name in names:
                if name not in self.values:
                    raise ValueError(f"{what} names the value {name!r}{nearest(name, self.values)}")
                if names.count(name) > 1:
                    raise ValueError(f"{what} names the value {name!r} twice: remove one")
        return self

    def group(self, value: str) -> str:
        """Return the name of a value's group; the value itself if it is in no group."""
        return next((name for name, values in self.groups.items() if value in values), value)

    def _templates(self) -> Iterable[str]:
        yield from self.statements.all + self.negations.all
        if self.order:
            yield from self.order.up.all + self.order.down.all
        for value in self.values.values():
            for phrases in (value.statements, value.negations):
                yield from phrases.all if phrases else ()

    def spoken(self) -> Iterable[str]:
        """Yield texts whose words signal the attribute: words for values, and comparisons."""
        yield from self.words
        for name, value in self.values.items():
            yield from value.words or (name.replace("_", " "),)
            yield from value.nouns + value.plural
        if self.order:
            yield from self.order.up.all + self.order.down.all


class Vocabulary(Strict):
    """One attribute: its name, and the vocabularies of its catalogue columns."""

    name: str
    columns: dict[str, ColumnVocabulary]
    words: tuple[str, ...] = ()
    """Further words that signal the attribute."""

    @cached_property
    def lexicon(self) -> frozenset[str]:
        """All words, in lower case, that signal the attribute; for ``t-shirt`` also its parts."""
        texts = [*self.words, *(text for column in self.columns.values() for text in column.spoken())]
        words = {word for text in texts for word in _WORD.findall(_without_slots(text).lower())}
        parts = {part for word in words for part in word.split("-") if len(part) > 1}
        return frozenset((words | parts) - _IDLE)

    def column(self, name: str) -> ColumnVocabulary | None:
        """Return the vocabulary of a column, by its name or an alias; None if it has none."""
        wanted = name.casefold()
        for known, column in self.columns.items():
            if wanted in {known.casefold(), *(alias.casefold() for alias in column.aliases)}:
                return column
        return None


def load_vocabulary(name_or_path: str | Path) -> Vocabulary:
    """Read a vocabulary: one of ``SHIPPED`` by its name, or a YAML file by its path.

    Raises ``DataError`` that says where the mistake is.
    """
    name = str(name_or_path)
    if name in SHIPPED:
        return _shipped(name)
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        hint = nearest(name, SHIPPED)
        raise DataError(f"there is no vocabulary {name!r}{hint}; or give a .yaml file")
    try:
        return _parse(path.read_text(encoding="utf-8-sig"), str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: save it as UTF-8") from error


@cache
def _shipped(name: str) -> Vocabulary:
    folder = resources.files("dqecir.language") / "vocabularies"
    return _parse((folder / f"{name}.yaml").read_text(encoding="utf-8"), f"vocabulary {name!r}")


def shipped_vocabularies(columns: Iterable[str] | None = None) -> tuple[Vocabulary, ...]:
    """Return the shipped vocabularies: all, or those that know at least one of ``columns``."""
    shipped = tuple(load_vocabulary(name) for name in SHIPPED)
    if columns is None:
        return shipped
    wanted = set(columns)
    return tuple(known for known in shipped if any(known.column(name) for name in wanted))


class _Loader(yaml.BaseLoader):
    """Loads YAML in which every scalar is text (``yes`` and ``no`` are words), and no key is repeated."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                problem = f"the key {key!r} comes twice"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _parse(text: str, source: str) -> Vocabulary:
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise DataError(f"{source} is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise DataError(f"{source} is not a vocabulary: write a map with the keys name and columns")
    return parse_settings(data, Vocabulary, source)


def _without_slots(text: str) -> str:
    return re.sub(r"\{[^{}]*\}", " ", text)
