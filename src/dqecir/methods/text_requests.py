"""Turn what a parser reads in texts into the values that targets should have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from dqecir.language.parsing import Parser


def text_requests(
    parser: Parser, texts: Sequence[str], columns: Mapping[str, Sequence[str]], shown: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Return which columns B texts request, [B, C] of 0 and 1, and the wanted values [B, values] of each.

    ``columns`` are C columns with their values; ``shown`` has the probabilities of the reference's values
    [B, values] for each of them. Wanted are the requested values, equally probable; if a text does not
    request a column, the reference's values are wanted.
    """
    asked = shown[0].new_zeros(len(texts), len(columns))
    wanted = [values.clone() for values in shown]
    for row, words in enumerate(texts):
        seen = {
            column: dict(zip(values, own[row].tolist(), strict=True))
            for (column, values), own in zip(columns.items(), shown, strict=True)
        }
        found = parser.asked(words, seen)
        for place, (column, values) in enumerate(columns.items()):
            if column in found:
                fits = asked.new_tensor([float(value in found[column]) for value in values])
                asked[row, place] = 1.0
                wanted[place][row] = fits / fits.sum().clamp(min=1)
    return asked, wanted
