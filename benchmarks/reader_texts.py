"""Generate texts that train the reader, each word with its label.

The phrases are those of ``language/vocabularies/spoken.yaml``. Every fourth text also names columns of
an invented shop, whose names are marked for the tagger. Hard negatives are colours of parts, contents of
prints, denied values, and values that are to be replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

from dqecir.language.spoken import phrases, spoken
from dqecir.language.tagging import OWN, Mark, Operation, words_of

_ARTICLE = re.compile(r"^(?:an?|the|my) ")
_NO_NOUN = frozenset(("more", "less", "not", "in", ",", "/", "and", "for", "made"))
"""Words of adjectives that do not stand before a noun."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LACKING: tuple[tuple[str, str, Operation, str], ...] = (
    ("sleeves", "sleeves", "is", "sleeveless"),
    ("pattern", "pattern", "is", "plain"),
    ("print", "print", "is", "no"),
    ("graphic", "print", "is", "no"),
    ("logo", "print", "is", "no"),
    ("collar", "neck", "is not", "collar"),
    ("hood", "neck", "is not", "hood"),
    ("stripes", "pattern", "is not", "striped"),
    ("flowers", "pattern", "is not", "floral"),
)
"""Things, and what their absence asks for."""
_BARE: tuple[tuple[str, str, Operation, str], ...] = (
    ("no collar", "neck", "is not", "collar"),
    ("no collars", "neck", "is not", "collar"),
    ("no hood", "neck", "is not", "hood"),
    ("sleeves", "sleeves", "is not", "sleeveless"),
    ("some sleeves", "sleeves", "is not", "sleeveless"),
    ("sleeved", "sleeves", "is not", "sleeveless"),
    ("a pattern", "pattern", "is", "other"),
    ("patterns", "pattern", "is", "other"),
)
"""Things, and what they or their absence ask for."""
Phrases = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Label:
    """The request that one word of a training text belongs to, as :class:`dqecir.language.tagging.Tag`."""

    word: str
    role: str | None = None
    operation: Operation = "is"
    value: str | None = None
    beyond: bool = False
    mark: Mark = Mark.NONE


@dataclass(frozen=True)
class Labelled:
    """A text, word by word, and the reference's garment (``""`` if it is unknown)."""

    labels: tuple[Label, ...]
    category: str = ""


Part = list[Label]


def bare(text: str) -> Part:
    """Return words without a request."""
    return [Label(word.text) for word in words_of(text)]


def asking(text: str, role: str, operation: Operation = "is", value: str | None = None) -> Part:
    """Return words that request a value; those in [brackets] request something that no column has, articles
    nothing.

    If there are such words, the other words request the same ("thin straps").
    """
    part: Part = []
    inside = False
    described = "[" in text and role in ("sleeves", "print")
    for word in words_of(text):
        if word.text in "[]":
            inside = word.text == "["
        elif inside or (word.text in ("a", "an", "the") and not part):
            part.append(Label(word.text, beyond=inside))
        else:
            part.append(Label(word.text, role, operation, value, beyond=described))
    return part


def beyond(text: str) -> Part:
    """Return words that request something that no column has."""
    small = ("a", "an", "the", "at", "of", "for", "and")
    return [Label(word.text, beyond=word.text not in small) for word in words_of(text)]


def marked(part: Part, mark: Mark) -> Part:
    """Return the same words, marked as names of a catalogue."""
    return [replace(label, mark=mark) for label in part]


def without_article(text: str) -> str:
    return _ARTICLE.sub("", text)


def without_brackets(text: str) -> str:
    return re.sub(r"[\[\]]", "", text)


class TextGenerator:
    """Draw labelled texts; the same seed gives the same texts."""

    def __init__(self, seed: int, words: Sequence[str]) -> None:
        """Keep the English ``words``, some of which become names of an invented shop."""
        self._draw, self._words = Random(seed), tuple(words)
        self._spoken: Mapping[str, Any] = spoken()

    def texts(self, count: int, own_columns: int = 4) -> Iterator[Labelled]:
        """Yield ``count`` texts; every ``own_columns``-th also names columns of an invented shop."""
        while count:
            category = self._pick(("dress", "shirt", "toptee", ""))
            own = count % own_columns == 0
            labels = self._text(category, own)
            if labels:
                count -= 1
                yield Labelled(tuple(map(self._mistyped, labels)), category)

    def swapped(self, text: Labelled) -> Labelled:
        """Return the text with some phrases replaced by other phrases of the same columns."""
        labels: Part = []
        for run in _runs(text.labels):
            first = run[0]
            other = self._other_phrase(run)
            before = labels[-1].word if labels else ""
            if other is None or before in ("no", "not", "dark", "light") or self._draw.random() < 0.4:
                labels += run
            else:
                value, phrase = other
                labels += [replace(first, word=word.text, value=value) for word in words_of(phrase)]
        return replace(text, labels=tuple(labels))

    def _other_phrase(self, run: Sequence[Label]) -> tuple[str, str] | None:
        role, operation = run[0].role, run[0].operation
        if role in (None, "print") or operation in ("more", "less") or any(label.beyond for label in run):
            return None
        if role == "garment" and run[0].value == "dress" and self._draw.random() < 0.7:
            return None
        known = _phrase_table().get((role, " ".join(label.word for label in run).replace(" - ", "-")))
        if known is None:
            return None
        value = self._pick(list(known))
        return value, re.sub(r"\[.*?\] ?", "", without_article(self._pick(known[value])))

    def _text(self, category: str, own: bool) -> Part:
        chance = self._draw.random
        labels: Part = []
        if chance() < 0.3:
            return self._spoken_to_a_shop()
        clauses = self._pick((1, 1, 2, 2, 2, 3))
        if chance() < 0.01:
            return bare(self._pick(self._spoken["idle"]))
        start = chance()
        if start < 0.3:
            labels += bare(self._pick(self._spoken["subjects"][category or "shirt"]))
        elif start < 0.4:
            labels += self._chat(category)
            clauses -= 1
        for place in range(clauses):
            if place or start >= 0.3:
                labels += bare(
                    self._pick(("and", "and", "and", ",", "but", ".", "and it", "", "")) if labels else ""
                )
            labels += self._own_clause() if own and chance() < 0.5 else self._clause(place == 0)
        if chance() < 0.06:
            labels += bare(self._pick(self._spoken["fillers"]))
        if chance() < 0.03:
            labels += bare(self._pick(("thanks", "thank you", ".", "!!", "?")))
        return labels

    def _clause(self, first: bool) -> Part:
        choice = self._draw.random()
        if choice < 0.4:
            verb = self._pick(("is", "is", "", "should be", "looks")) if first or choice < 0.2 else "is"
            return bare(verb) + self._adjective()
        if choice < 0.75:
            verbs = ("has", "with", "has", "with", "", "it has", "have", "comes with", "features")
            return bare(self._pick(verbs)) + self._thing()
        if choice < 0.88:
            return bare(self._pick(("is", "", "it is", "is more like", "looks like"))) + self._noun("")
        if choice < 0.92:
            return self._instead()
        if choice < 0.95:
            return self._lacking()
        return bare("is") + self._adjective() + bare(self._pick(("with", "and"))) + self._adjective()

    def _adjective(self) -> Part:
        """Return what follows "is"."""
        choice, known = self._draw.random(), self._spoken["adjectives"]
        if choice < 0.42:
            return self._colours()
        if choice < 0.58:
            role = self._pick(("pattern", "sleeves", "neck", "length", "fit"))
            value, phrase = self._valued(known[role])
            more = self._draw.random() < 0.08
            if more and role == "fit" and value != "regular":
                return asking(f"more {phrase}", "fit", "less" if value == "tight" else "more")
            return bare("more" if more else "") + asking(phrase, role, "is", value)
        if choice < 0.72:
            return self._compared("is")
        if choice < 0.84:
            degree = self._pick(("more ", "less ", "not as ", "very ", "", ""))
            style = degree + self._pick(self._spoken["style"])
            return beyond(self._pick((style, style, self._pick(self._spoken["compared_style"]))))
        if choice < 0.9:
            role = self._pick(("color", "color", "pattern", "fit", "length", "sleeves", "neck"))
            value, phrase = self._valued(known[role])
            if self._draw.random() < 0.5:
                return asking(f"not {phrase}", role, "is not", value)
            return asking(self._pick(("less ", "not as ", "not so ")) + phrase, role, "less", value)
        if choice < 0.94:
            return beyond(self._pick(("made of ", "")) + self._pick(self._spoken["materials"]))
        if choice < 0.96:
            return beyond(self._pick(self._spoken["made"]))
        if choice < 0.98:
            return self._pick(
                (
                    asking("patterned", "pattern", "is", "other"),
                    asking("sleeved", "sleeves", "is not", "sleeveless"),
                )
            )
        return bare("for") + beyond(self._pick(self._spoken["occasions"]))

    def _colours(self) -> Part:
        known = self._spoken["adjectives"]["color"]
        part: Part = []
        for place in range(1 if self._draw.random() < 0.75 else 2):
            if place:
                part += bare(self._pick(("and", "and", "/", ",", "with", "&")))
            if self._draw.random() < 0.1:
                part += bare(self._pick(("more", "mostly", "all", "very", "completely")))
            value, phrase = self._valued(known)
            if self._draw.random() < 0.05 and value != "multicolor":
                operation, word = self._pick((("less", "darker"), ("more", "lighter"), ("more", "brighter")))
                part += asking(word, "color", operation)
                phrase = self._pick([short for short in known[value] if " " not in short])
            part += asking(phrase, "color", "is", value)
        if self._draw.random() < 0.12:
            part += bare(self._pick(("in color", "colored", "color")))
        return part

    def _compared(self, after: str) -> Part:
        role = self._pick(list(self._spoken["compared"]))
        operation: Operation = self._pick(("more", "less"))
        return asking(self._pick(self._spoken["compared"][role][operation][after]), role, operation)

    def _thing(self) -> Part:
        """Return what follows "has"."""
        choice, known = self._draw.random(), self._spoken["things"]
        if choice < 0.2:
            return self._pattern()
        if choice < 0.47:
            role = self._pick(("sleeves", "neck") if choice < 0.4 else ("length", "fit"))
            value, phrase = self._valued(known[role])
            if choice < 0.22:
                phrase = f"[{self._colour()}] {without_article(phrase)}"
            return asking(phrase, role, "is", value)
        if choice < 0.68:
            return self._print() if choice < 0.6 else self._content()
        if choice < 0.82:
            return self._compared("has")
        if choice < 0.9:
            return self._coloured_part()
        if choice < 0.93:
            return beyond(self._pick(("more ", "no ", "less ", "")) + self._pick(self._spoken["details"]))
        if choice < 0.95:
            value = self._pick(("striped", "dotted", "floral", "checked"))
            phrase = without_article(re.sub(r"\[.*?\] ", "", self._pick(known["pattern"][value])))
            return asking(self._pick(("no ", "without ")) + phrase, "pattern", "is not", value)
        return self._absent()

    def _pattern(self) -> Part:
        value, phrase = self._valued(self._spoken["things"]["pattern"])
        if value == "plain" or self._draw.random() < 0.55:
            return asking(phrase, "pattern", "is", value)
        own, colour = self._valued(self._spoken["adjectives"]["color"])
        part = asking(colour, "pattern_color", "is", own)
        if self._draw.random() < 0.25:
            own, colour = self._valued(self._spoken["adjectives"]["color"])
            part += bare("and") + asking(colour, "pattern_color", "is", own)
        return part + asking(without_article(phrase), "pattern", "is", value)

    def _lacking(self) -> Part:
        """Return what a verb denies: "does not have a collar"."""
        phrase, role, operation, value = self._pick(_LACKING)
        verb = self._pick(("does not have", "doesn't have", "doesnt have", "has not", "without"))
        return asking(f"{verb} {self._pick(('', 'any '))}{phrase}", role, operation, value)

    def _absent(self) -> Part:
        phrase, role, operation, value = self._pick(_BARE)
        return asking(phrase, role, operation, value)

    def _print(self) -> Part:
        known = self._spoken["things"]["print"]
        value = "yes" if self._draw.random() < 0.8 else "no"
        phrase = self._pick(known[value])
        choice = self._draw.random() if value == "yes" else 1.0
        if choice < 0.3:
            plain = re.sub(r"\[.*?\] ", "", without_article(phrase))
            return bare(self._pick(("", "a"))) + beyond(self._colour()) + asking(plain, "print", "is", "yes")
        shown = self._pick([*self._spoken["contents"], *self._spoken["names"]])
        if choice < 0.5:
            of = bare(self._pick(("of a", "of", "with a", "saying", "that says", "of the", "with")))
            return asking(re.sub(r" on .*", "", phrase), "print", "is", "yes") + of + beyond(shown)
        if choice < 0.6:
            noun = self._pick(("graphic", "logo", "print", "design", "picture", "image"))
            return bare("a") + beyond(shown) + asking(noun, "print", "is", "yes")
        return asking(phrase, "print", "is", value)

    def _content(self) -> Part:
        """Return what a print shows, without a word for the print."""
        one = self._pick(("a ", "")) + self._pick(self._spoken["contents"])
        shown = self._pick((one, self._pick(self._spoken["names"])))
        choice = self._draw.random()
        if choice < 0.3:
            written = ("written on it", "printed on it", "written on the front", "printed on front")
            return beyond(shown) + asking(self._pick(written), "print", "is", "yes")
        part = [replace(label, beyond=True) for label in asking(shown, "print", "is", "yes")]
        places = ("on it", "on the front", "on front", "on the chest", "printed on it")
        return part + bare(self._pick(places) if choice < 0.7 else "")

    def _coloured_part(self) -> Part:
        part, choice = self._pick(self._spoken["parts"]), self._draw.random()
        if part in self._spoken["printed_parts"]:
            printed = [replace(label, beyond=True) for label in asking(part, "print", "is", "yes")]
            return beyond(self._colour()) + printed
        if choice < 0.3:
            return beyond(f"{self._pick(self._spoken['part_styles'])} {part}")
        return beyond(f"{self._colour()} {part}")

    def _noun(self, category: str) -> Part:
        """Return a garment with adjectives: "a black v-neck tee"."""
        part = bare(self._pick(("a", "a", "", "")))
        used: set[str | None] = set()
        for _ in range(self._draw.randint(0, 2)):
            adjective = self._adjective()
            roles = {label.role for label in adjective} - {None}
            plain = not {label.word for label in adjective} & _NO_NOUN
            if len(adjective) <= 3 and plain and not roles & used:
                used |= roles
                part += adjective
        value, phrase = self._valued(self._spoken["garments"])
        if category and self._draw.random() < 0.35:
            value = {"dress": "dress", "shirt": "shirt"}.get(category) or self._pick(
                ("top", "t-shirt", "undershirt")
            )
            phrase = self._pick(self._spoken["garments"][value])
        return part + asking(phrase, "garment", "is", value)

    def _instead(self) -> Part:
        """Return a value that is requested instead of another one."""
        role = self._pick(("color", "color", "garment", "pattern", "sleeves"))
        known = self._spoken["garments"] if role == "garment" else self._spoken["adjectives"][role]
        new, old = self._draw.sample(list(known), 2)
        article = bare("a" if role == "garment" else "")
        wanted = article + asking(self._pick(known[new]), role, "is", new)
        left = self._pick(known[old])
        before = article + bare(without_brackets(left))
        return self._swap(wanted, before, asking(left, role, "is not", old))

    def _swap(self, wanted: Part, before: Part, refused: Part) -> Part:
        choice, say = self._draw.random(), self._spoken["swaps"]
        if choice < 0.3:
            return wanted + bare(self._pick(say["between"])) + before
        if choice < 0.45:
            return bare(self._pick(say["before"])) + before + bare(self._pick(say["then"])) + wanted
        if choice < 0.6:
            return bare(self._pick(say["from"])) + before + bare(self._pick(say["to"])) + wanted
        if choice < 0.75:
            return bare(self._pick(say["told"])) + before + bare(self._pick(say["but"])) + wanted
        if choice < 0.85:
            return bare(self._pick(say["refuse"])) + refused
        return wanted + bare(self._pick(say["no_more"])) + before

    def _spoken_to_a_shop(self) -> Part:
        """Return one to three requests for different columns: "hi, lose the sleeves, plus in red"."""
        part = bare(self._pick(self._spoken["asides"]) if self._draw.random() < 0.6 else "")
        columns = ("color", "garment", "pattern", "sleeves", "neck", "length", "fit", "print")
        for place, role in enumerate(self._draw.sample(columns, self._pick((1, 2, 2, 3)))):
            part += bare(self._pick(self._spoken["wish_joins"]) if place else "") + self._wish(role)
        return part + bare(self._pick(("", "", "", "please", "thanks", "if possible")))

    def _wish(self, role: str) -> Part:
        whole = self._spoken["whole"].get(role, {})
        if self._draw.random() < 0.15:
            return self._instead()
        if role == "print" or (whole and self._draw.random() < 0.5):
            value, phrase = self._valued(whole)
            return asking(phrase, role, "is", value)
        known = self._spoken["garments"] if role == "garment" else self._spoken["adjectives"][role]
        value, phrase = self._valued(known)
        before, after = self._pick(self._spoken["wishes"][role]).split("{}")
        return bare(before) + asking(without_brackets(phrase), role, "is", value) + bare(after)

    def _chat(self, category: str) -> Part:
        choice = self._draw.random()
        part = bare(self._pick(self._spoken["openings"]))
        if choice < 0.35:
            value, phrase = self._valued(self._spoken["adjectives"]["color"])
            closing = self._pick(("", "please", "one", ", please", "instead", "shade", "color"))
            return (
                part
                + bare(self._pick(("in", "", "in a")))
                + asking(phrase, "color", "is", value)
                + bare(closing)
            )
        if choice < 0.6:
            return part + self._noun(category) + bare(self._pick(("", "please", "instead", "this time")))
        if choice < 0.8:
            return part + bare(self._pick(("with", "that has"))) + self._thing()
        return part + bare(self._pick(("", "that is", "to be"))) + self._adjective()

    def _own_clause(self) -> Part:
        """Return a clause about a column of an invented shop."""
        choice, say = self._draw.random(), self._spoken["own"]
        name = self._own_value()
        wanted = marked(asking(name, OWN), Mark.VALUE)
        column = marked(bare(self._pick(say["columns"])), Mark.COLUMN)
        if choice < 0.25:
            return bare(self._pick(say["before"]) if choice < 0.18 else "") + wanted
        if choice < 0.4:
            return self._own_thing(wanted)
        if choice < 0.5:
            between = bare(self._pick(("", "is", ":", "should be", "of", "=")))
            return bare(self._pick(("the", "with the", "with", ""))) + column + between + wanted
        if choice < 0.58:
            return bare(self._pick(("a", "in a", "with a"))) + wanted + column
        if choice < 0.68:
            return bare(self._pick(say["refuse"])) + marked(asking(name, OWN, "is not"), Mark.VALUE)
        if choice < 0.82:
            before = marked(bare(self._own_value()), Mark.VALUE)
            if choice < 0.76:
                return wanted + bare(self._pick(self._spoken["swaps"]["between"])) + before
            return bare(self._pick(self._spoken["swaps"]["from"])) + before + bare("to") + wanted
        if choice < 0.9:
            return self._adjective() + wanted
        value, phrase = self._valued(self._spoken["adjectives"]["color"])
        return asking(phrase, "color", "is", value) + wanted

    def _own_thing(self, wanted: Part) -> Part:
        """Return a thing of an invented shop: "a Kestrel jacket", "a red bag by Kestrel", "a Kestrel bag"."""
        choice, say = self._draw.random(), self._spoken["own"]
        thing = marked(asking(self._own_value(), OWN), Mark.VALUE)
        if choice < 0.4:
            value, phrase = self._valued(self._spoken["garments"])
            thing = asking(phrase, "garment", "is", value)
        if self._draw.random() < 0.4:
            value, phrase = self._valued(self._spoken["adjectives"]["color"])
            thing = asking(phrase, "color", "is", value) + thing
        if self._draw.random() < 0.5:
            return bare(self._pick(("a", "", "the"))) + wanted + thing
        return bare(self._pick(("a", "", "the"))) + thing + bare(self._pick(say["before"])) + wanted

    def _own_value(self) -> str:
        choice = self._draw.random()
        made_up = "".join(self._pick(self._spoken["syllables"]) for _ in range(self._draw.randint(2, 4)))
        if choice < 0.25:
            name = made_up
        elif choice < 0.75:
            kinds = ("materials", "materials", "style", "occasions", "names", "details")
            name = without_article(self._pick(self._spoken[self._pick(kinds)]))
        else:
            name = self._pick(self._words)
        return (
            f"{name} {self._pick((made_up, self._pick(self._words)))}" if self._draw.random() < 0.2 else name
        )

    def _mistyped(self, label: Label) -> Label:
        word, chance = label.word, self._draw.random
        if label.mark or len(word) < 4 or not word.isalpha() or chance() >= 0.03:
            return label
        at, choice = self._draw.randrange(1, len(word) - 1), chance()
        if choice < 0.3:
            word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        elif choice < 0.6:
            word = word[:at] + word[at + 1 :]
        elif choice < 0.8:
            word = word[:at] + word[at] + word[at:]
        else:
            word = word[:at] + self._pick(_LETTERS) + word[at + 1 :]
        return replace(label, word=word)

    def _colour(self) -> str:
        return self._valued(self._spoken["adjectives"]["color"])[1]

    def _valued(self, known: Phrases) -> tuple[str, str]:
        value = self._pick(list(known))
        return value, self._pick(known[value])

    def _pick(self, choices: Sequence[Any]) -> Any:
        return self._draw.choice(choices)


def _runs(labels: Sequence[Label]) -> Iterator[list[Label]]:
    """Return lists of neighbouring words of one role, operation and value."""
    run: list[Label] = []
    for label in labels:
        if run and (label.role, label.operation, label.value) != (
            run[0].role,
            run[0].operation,
            run[0].value,
        ):
            yield run
            run = []
        run.append(label)
    if run:
        yield run


@cache
def _phrase_table() -> Mapping[tuple[str, str], Phrases]:
    """Return (role, phrase) -> the phrases of the same kind, by value."""
    table: dict[tuple[str, str], Phrases] = {}
    kinds = [spoken()["adjectives"], {"garment": spoken()["garments"]}, spoken()["things"]]
    for role, known in (pair for kind in kinds for pair in kind.items()):
        for phrase in phrases(known):
            for own in (role, "pattern_color") if role == "color" else (role,):
                table.setdefault((own, without_article(without_brackets(phrase))), known)
    return table
