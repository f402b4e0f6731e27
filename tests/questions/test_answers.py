"""The packed rule of right answers, compared with the rule written plainly."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dqecir.data.cells import UNKNOWN
from dqecir.questions.answers import CodedAttributes, right_answers

COLUMNS = ("color", "neck", "sleeves")
ENTRY = st.sampled_from(["", UNKNOWN, "a", "b", "c"])
TABLE = st.integers(2, 20).flatmap(
    lambda size: st.fixed_dictionaries({c: st.lists(ENTRY, min_size=size, max_size=size) for c in COLUMNS})
)
ASKED = st.dictionaries(
    st.sampled_from(COLUMNS), st.frozensets(st.sampled_from("abc"), min_size=1), max_size=len(COLUMNS)
)


def verdict(table, asked, reference, candidate) -> str:
    """Return ``right``, ``wrong`` or ``undecided``, comparing one attribute after the other."""
    undecided = False
    for column, values in table.items():
        mine, theirs = values[reference], values[candidate]
        if column not in asked and mine in ("", UNKNOWN):
            continue
        admissible = asked.get(column, {"", mine})
        if theirs == UNKNOWN:
            undecided = True
        elif theirs not in admissible:
            return "wrong"
    return "undecided" if undecided else "right"


@given(TABLE, st.lists(ASKED, min_size=1, max_size=5), st.data())
@settings(max_examples=150)
def test_packed_answers_equal_the_plain_rule(table, asked, data):
    size = len(table["color"])
    gallery = sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1)))
    references = [data.draw(st.integers(0, size - 1)) for _ in asked]
    found = right_answers(CodedAttributes.of(table), np.array(gallery), np.array(references), asked)
    for (right, undecided), wanted, reference in zip(found, asked, references, strict=True):
        verdicts = {i: verdict(table, wanted, reference, i) for i in gallery if i != reference}
        assert right.tolist() == [i for i, said in verdicts.items() if said == "right"]
        assert undecided.tolist() == [i for i, said in verdicts.items() if said == "undecided"]
