"""Decide the role of each name in an English sentence: wanted, refused, replaced or only described."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from enum import Enum
from itertools import pairwise


class Role(Enum):
    """What a text says about a name."""

    WANTED = "wanted"
    REFUSED = "refused"
    """After "not", "without", "get rid of": not wanted, which is a request too."""
    LEFT = "left"
    """After "instead of", "rather than", "swap": what the wanted value replaces."""
    TOLD = "told"
    """Only described or kept, so that nothing is requested."""


HARD = frozenset(".;!?")
MARKS = frozenset(",;:.!?()\u2013\u2014")
CONNECTORS = frozenset(("and", "but", "plus", "also", "yet", "though", "although", "while", "then"))

_ASKING = r"want|need|prefer|fancy|like|love|wish|rather|take|choose|pick|go|wear|have|see|get|am after"
_TRIGGERS = re.compile(
    r"\b(?:"
    r"(?P<idle>not (?:quite|only|just|sure|necessarily|that)|no (?:problem|rush|worries|doubt|idea)|why not|"
    r"not mind|can not wait|if not|what not|without doubt|(?:and|but|or) no (?:more|less)(?= |$))|"
    r"(?P<wanted>nothing (?:but|except|other than)|none other than|"
    rf"(?:i|we) (?:(?:would|really|just|actually|much|still|do|am) )*(?:{_ASKING}|am|could|can|looking)|"
    r"(?:give|show|get|find|bring|send|hand|pick|let) (?:me|us|it)|let us|make (?:it|this|that|them|the)|"
    r"(?:should|ought to|must|needs to|need to|has to|have to|got to|could|can|might|may) (?:be|have|come)|"
    r"in favor of|how about|what about|looking for|go (?:for|with)|want|wants|needs?|mine|"
    r"add|put|please (?:make|give|put|show|add))|"
    r"(?P<refused>(?:any\w*|every\w*|all|whatever)(?: color)? (?:but|except|other than|apart from|besides)|"
    r"no longer|no more|not|no|never|nor|neither|without|none|nothing|nobody|other than|away from|"
    r"free (?:of|from)|remov(?:e|ing|ed)|deleted?|drop(?:ping)?|lose|losing|ditch(?:ing)?|forget(?: about)?|"
    r"skip(?:ping)?|omit(?:ting)?|minus|sans|(?:get|getting|be|got) rid of|rid|scrap|do away with|cut out|"
    r"(?:leave|take|strip|cut) (?:off|out|away)|hate|dislike|avoid|done with|"
    r"(?:tired|sick|bored|fed up)(?: (?:of|with))?|enough (?:of|with)|hold the|lacking|lacks?|less|"
    r"stop|quit|sick|can do without)|"
    r"(?P<left>instead of|in place of|rather than|as opposed to|in lieu of|replacing|unlike|over|from|than)|"
    r"(?P<swap>swap(?:ping)?|trad(?:e|ing)|exchang(?:e|ing)|replac(?:e|ed)|switch(?:ing)?|chang(?:e|ing)|"
    r"turn(?:ing)?|convert|transform|substitute|move|shift)(?: out)?|"
    r"(?P<kept>keep(?:ing)?|retain)"
    r")(?= |$)"
)
_CLOSERS = {
    "swap": {"for", "with", "to", "into", "by"},
    "trad": {"for", "with"},
    "exch": {"for", "with", "by"},
    "repl": {"with", "by", "for"},
    "subs": {"with", "by", "for"},
    "from": {"to", "into", "towards"},
    "swit": {"to", "into", "for", "with"},
}
_WITHOUT = {"without", "no", "minus", "sans", "lose", "remove", "drop"}
_INTO = {"to", "into", "for"}
_TAKEN = re.compile(
    r"\b(?:take|leave|strip|cut|get|pull|wipe|clear|peel|chop|scrub|keep|leaving|taking)\b"
    r"(?P<what>(?: [^\s,;:.!?]+){1,6}?) (?:off|out|away)(?= |$)"
)
_GONE = re.compile(
    r" (?:(?:should|must|can|could|(?:has|have|needs?|got) to) "
    r"(?:go|be gone|be removed|disappear|be left out)|"
    r"(?:is|are|s) out|not (?:for me|my \w+|what i|it$|needed|necessary|suit|work|do it|appeal|wanted)|"
    r"(?:do|does|did|would|will) not (?:suit|work|appeal|do|fit me)|"
    r"(?:is|are|looks?|seems?) (?:so |too |a bit |really |just )*"
    r"(?:boring|ugly|dull|awful|horrible|bad|wrong|terrible|unnecessary|gone))(?= |$)"
)
_SHOWN = re.compile(
    r"^(?:well |actually |since |as |because |so |the one )*(?:this|that|these|those)\b.* "
    r"(?:is|are|has|have|comes|looks|was|got)\b|"
    r"\b(?:is|are|has|have|comes|was)\b.*\b(?:here|currently|already|at the moment|right now|on this|"
    r"at present|as it is|in the (?:picture|photo|image))(?= |$)|^currently\b|"
    r"^i (?:can )?(?:count|see|own|have got|got)\b|"
    r"^i (?:really |quite |do )*(?:like|love) (?:the|this|its|how)\b"
)
_MISSING = re.compile(r"^(?:this|that|it)\b.* (?:missing|lacks|lacking)(?= |$)")
_BUT = {"but", "though", "although", "yet", "just", "only", "except"}
_PICTURE = re.compile(r"\blike (?:the|this|that|in the) (?:picture|photo|image|one|item)\b")
_MODAL = re.compile(r"\b(?:should|would|could|must|needs?|ought|can|may|might|want|please)\b")


def segments(
    words: Sequence[str], hints: Sequence[bool], whole: Collection[int] = ()
) -> list[tuple[int, int]]:
    """Return the parts [start, end) of a text, which punctuation and connecting words separate.

    ``hints`` marks words that hint at a column; a colon after such a word ("the hem: long") does not
    separate. ``whole`` are the places of words that do not separate.
    """
    parts, start = [], 0
    for place, word in enumerate(words):
        joins = word == "plus" and place + 1 < len(words) and words[place + 1] in ("sign", "symbol")
        excepts = word == "but" and place and re.match(r"any|every|all$|nothing", words[place - 1])
        heads = word == ":" and 0 < place - start < 6 and any(hints[start:place])
        separates = (word in MARKS or word in CONNECTORS) and place not in whole
        if separates and not joins and not excepts and not heads:
            parts.append((start, place))
            start = place + 1
    parts.append((start, len(words)))
    return [(start, end) for start, end in parts if end > start]


def roles(words: Sequence[str], parts: Sequence[tuple[int, int]], named: Sequence[bool]) -> list[Role]:
    """Return the role of every word; ``named`` marks the words of names, because only their roles matter.

    ``parts`` are those of :func:`segments`.
    """
    found = [Role.WANTED] * len(words)
    open_swap: set[str] = set()
    for start, end in parts:
        carried = bool(open_swap) and start > 0 and words[start - 1] == ","
        open_swap = _within(words, start, end, found, open_swap if carried else set(), named)
    _lists(words, parts, found, named)
    _told(words, parts, found, named)
    return found


def _within(
    words: Sequence[str], start: int, end: int, found: list[Role], swap: set[str], named: Sequence[bool]
) -> set[str]:
    """Fill in the roles of the part [start, end).

    ``swap``: words that would complete a swap ("swap the red for ...") that an earlier part has begun.
    Returns such words for a swap that is still open at the end.
    """
    text = " ".join(words[start:end])
    places = {}
    offset = 0
    for place in range(start, end):
        places[offset] = place
        offset += len(words[place]) + 1
    marks: dict[int, tuple[str, int, str]] = {}
    for match in _TRIGGERS.finditer(text):
        first = places.get(match.start())
        if first is not None and match.lastgroup and not named[first]:
            marks[first] = (match.lastgroup, first + match[0].count(" "), match[0])
    off = {}
    for match in _TAKEN.finditer(text):
        first = places[match.start()]
        off[first] = first + match[0].count(" ")
    role = Role.LEFT if swap else Role.WANTED
    place, last = start, ("", -2, "")
    told = False
    while place < end:
        if place in off and any(named[place : off[place]]):
            found[place : off[place] + 1] = [Role.REFUSED if role is not Role.REFUSED else Role.WANTED] * (
                off[place] + 1 - place
            )
            place = off[place] + 1
            role = Role.WANTED
            continue
        if swap and words[place] in swap and any(named[place:end]):
            role, swap = Role.WANTED, set()
        elif words[place] == "with" and role is Role.REFUSED and last[2] in _WITHOUT:
            role = Role.WANTED if any(named[last[1] : place]) else role
        elif words[place] == "to" and _preferred(words, start, place, end, named):
            role = Role.LEFT
        elif place in marks:
            kind, stop, said = marks[place]
            near = last[0] == "refused" and place - last[1] <= 2 and not any(named[last[1] : place])
            if kind == "wanted" and not (near and (last[2] != "no" or place - last[1] == 1)):
                if not (role is Role.TOLD and told):
                    role, swap = Role.WANTED, set()
            elif kind == "refused":
                # Two denials of one thing affirm it; "no sleeves no print" and "neither, nor" deny two.
                one = said != "nor" and not any(named[max(start, last[1] + 1) : place])
                role = Role.WANTED if role is Role.REFUSED and one else Role.REFUSED
            elif kind == "left":
                role, swap = _left(words, start, place, end, said, role, swap, named)
            elif kind == "swap":
                closers = _CLOSERS.get(said[:4], _INTO)
                ahead = _ahead(words, stop + 1, closers, named)
                if ahead is not None and role is Role.WANTED:
                    role, swap = Role.LEFT, closers
                elif said.startswith(("swap", "trad", "exch", "repl")) and role is Role.WANTED:
                    role = Role.REFUSED
            elif kind == "kept":
                role, told = Role.TOLD, True
            if kind in ("refused", "wanted"):
                last = (kind, stop, said)
            found[place : stop + 1] = [role] * (stop + 1 - place)
            place = stop + 1
            continue
        found[place] = role
        place += 1
    _correct(words, start, end, found, named)
    return swap


def _correct(words: Sequence[str], start: int, end: int, found: list[Role], named: Sequence[bool]) -> None:
    """Correct the roles of the part [start, end) by what is said after a name or right beside it."""
    text = " ".join(words[start:end])
    gone = _GONE.search(text)
    if gone and gone.start() > 0:
        until = start + text[: gone.start()].count(" ") + 1
        if any(named[start:until]) and not any(named[until:end]):
            found[start:until] = [Role.REFUSED] * (until - start)
    for place in range(start, end - 1):
        if named[place] and words[place + 1] == "free" and not named[place + 1]:
            found[place] = Role.REFUSED
        if named[place] and words[place + 1] == "enough" and found[place] is Role.REFUSED:
            found[place] = Role.WANTED  # "not red enough"
    for place in range(start + 1, end):
        if named[place] and words[place - 1] == "same":
            found[place] = Role.TOLD
        if named[place] and words[place - 1] == "too" and found[place] is Role.WANTED:
            found[place] = Role.LEFT
    if _MISSING.search(text):
        found[start:end] = [Role.WANTED] * (end - start)
    for match in _PICTURE.finditer(text):
        place = start + text[: match.start()].count(" ")
        found[place : place + 3] = [Role.TOLD] * 3


def _preferred(words: Sequence[str], start: int, place: int, end: int, named: Sequence[bool]) -> bool:
    """Return whether this "to" stands before what the text does not prefer: "I prefer white to purple"."""
    return (
        "prefer" in words[start:place]
        and any(named[start:place])
        and any(named[place + 1 : min(place + 4, end)])
    )


def _left(
    words: Sequence[str],
    start: int,
    place: int,
    end: int,
    said: str,
    role: Role,
    swap: set[str],
    named: Sequence[bool],
) -> tuple[Role, set[str]]:
    """Return the role after a word that may announce what is replaced, and words that complete the swap."""
    before = " ".join(words[start:place])
    if said == "over":
        chosen = any(named[start:place]) and any(named[place:end])
        asked = re.search(r"\b(?:go for|pick|choose|take|prefer|fancy|want|like|rather)\b", before)
        return (Role.LEFT, set()) if chosen and asked else (role, swap)
    if said == "from":
        closers = _CLOSERS["from"]
        ahead = _ahead(words[:end], place + 1, closers, named)
        if ahead is not None and any(named[place:ahead]):
            return Role.LEFT, closers
        return role, swap
    if said == "than":
        if re.search(r"\b(?:another|different|other)\b", before):
            return Role.REFUSED, set()
        return Role.LEFT, set()
    if role is Role.REFUSED and said != "unlike":
        return Role.WANTED, set()
    return Role.LEFT, set()


def _ahead(words: Sequence[str], place: int, closers: set[str], named: Sequence[bool]) -> int | None:
    """Return the place of the next word in ``closers`` that a name follows; None if there is none."""
    for ahead in range(place, len(words)):
        if words[ahead] in HARD or words[ahead] in ("plus", "also", "but"):
            return None
        if words[ahead] in closers and any(named[ahead:]):
            return ahead
    return None


def _asks(part: Sequence[str]) -> bool:
    text = " ".join(part)
    return any(match.lastgroup == "wanted" for match in _TRIGGERS.finditer(text)) or bool(_MODAL.search(text))


def _lists(
    words: Sequence[str], parts: Sequence[tuple[int, int]], found: list[Role], named: Sequence[bool]
) -> None:
    """Extend a refusal to the rest of a list: "not round, v or high", "drop the print and the collar"."""
    plain = {"or", "nor", "a", "an", "the", "any", ","}
    for (_, end), (start, last) in pairwise(parts):
        if found[end - 1] is not Role.REFUSED:
            continue
        if words[end] == "and" and words[end - 2] == words[start] == "the" and last - start == 2:
            found[start:last] = [Role.REFUSED] * 2
        if words[end] != ",":
            continue
        stop = end
        while stop < len(words) and (named[stop] or words[stop] in plain):
            stop += 1
        if {"or", "nor"} & set(words[end:stop]):
            found[end:stop] = [Role.REFUSED] * (stop - end)


def _told(
    words: Sequence[str], parts: Sequence[tuple[int, int]], found: list[Role], named: Sequence[bool]
) -> None:
    """Mark a part that only describes the reference, if a later part requests something."""
    for number, (start, end) in enumerate(parts[:-1]):
        text = " ".join(words[start:end])
        told = _SHOWN.search(text)
        if not told or _MODAL.search(text) or _MISSING.search(text) or not any(named[start:end]):
            continue
        following = parts[number + 1]
        liked = re.match(r"i (?:\w+ )*?(?:like|love) ", text)
        if liked and not _BUT & {words[following[0] - 1], words[following[0]]}:
            continue
        if any(named[following[0] : following[1]]) and _asks(words[following[0] : following[1]]):
            for place in range(start, end):
                if found[place] is Role.WANTED:
                    found[place] = Role.TOLD
