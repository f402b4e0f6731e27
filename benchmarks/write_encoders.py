"""Write the tables of docs/encoders.md: ``python -m benchmarks.write_encoders``.

Encoders come from src/dqecir/assets/known_encoders.yaml; the fitting methods from their requirements.
"""

from pathlib import Path

from benchmarks.pages import with_part

from dqecir.encoders.known_encoders import KnownEncoder, KnownEncoders, known_encoders
from dqecir.io.markdown import table
from dqecir.methods.method import all_methods
from dqecir.search.opening import UNTRAINED

PAGE = Path(__file__).parent.parent / "docs" / "encoders.md"
HEADS = "predicted_attributes", "dqe_heads", "dqe_values"
"""Methods over attribute heads, which a table of attributes trains first."""


def written(page: str, known: KnownEncoders) -> str:
    """Return ``page`` with its part "encoders" replaced by the tables."""
    kinds = table(
        ["kind", "encoders", "provides", "without training", "with training", "with attribute heads"],
        [
            [
                f"`{kind}`",
                said.what,
                ", ".join(said.provides).replace("_", " "),
                *map(_listed, _fitting(said.provides)),
            ]
            for kind, said in known.kinds.items()
        ],
    )
    encoders = table(
        ["encoder", "kind", "licence", "million parameters", "how it was checked"], map(_row, known.encoders)
    )
    return with_part(page, "encoders", [*kinds, "", *encoders])


def _fitting(provides: tuple[str, ...]) -> tuple[list[str], list[str], list[str]]:
    """Return the methods for an encoder: without training, with training, and with attribute heads."""
    fitting = [name for name, method in sorted(all_methods().items()) if method.requires <= set(provides)]
    return (
        [name for name in fitting if name in UNTRAINED],
        [name for name in fitting if name not in (*UNTRAINED, *HEADS)],
        [name for name in fitting if name in HEADS],
    )


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _row(encoder: KnownEncoder) -> list[str]:
    forbids = " (non-commercial use only)" if encoder.non_commercial else ""
    millions = f"{encoder.parameters / 1e6:,.1f}"
    return [
        f"`{encoder.name}`",
        f"`{encoder.kind}`",
        encoder.licence + forbids,
        millions,
        encoder.how_checked,
    ]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), known_encoders()), encoding="utf-8")
