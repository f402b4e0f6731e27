"""The table of known encoders, and where the weights of an encoder come from."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from dqecir.encoders.licences import UNKNOWN_LICENCE, Origin, forbids_commercial_use, licence_in
from dqecir.settings import Strict, parse_settings

Check = Literal["real weights", "tiny random", "golden", "shapes"]
"""How an encoder was checked. ``real weights``: the published weights were run. ``tiny random``: small random
models give the same results as the published classes. ``golden``: the results equal files that the published
code wrote. ``shapes``: keys and shapes are those of the published size."""

_FILE = "known_encoders.yaml"


class KnownKind(Strict):
    """A kind of encoders: what it is, and its capabilities."""

    what: str
    provides: tuple[str, ...]


class KnownEncoder(Strict):
    """An encoder in the table."""

    name: str
    """OWNER/NAME on the hub, the name of a package, or the name of the shipped model."""
    kind: str
    source: Literal["hub", "package", "dqecir"]
    licence: str
    parameters: int = Field(gt=0)
    checked: tuple[Check, ...] = Field(min_length=1)
    measured: bool = False
    """Whether the quality of retrieval with its real weights was measured."""

    @property
    def how_checked(self) -> str:
        """How it was checked, as a list in words: "golden, real weights not measured"."""
        checks = ["shapes only"] if self.checked == ("shapes",) else list(self.checked)
        return ", ".join(checks if self.measured else [*checks, "real weights not measured"])

    @property
    def non_commercial(self) -> bool:
        """Whether the licence forbids commercial use."""
        return forbids_commercial_use(self.licence)


class KnownEncoders(Strict):
    """The table: all kinds, and all encoders."""

    kinds: dict[str, KnownKind]
    encoders: tuple[KnownEncoder, ...]

    @model_validator(mode="after")
    def _kinds_are_there(self) -> KnownEncoders:
        for encoder in self.encoders:
            if encoder.kind not in self.kinds:
                raise ValueError(
                    f"the encoder {encoder.name} is of the kind {encoder.kind}, which the table does not have"
                )
        return self

    def as_json(self) -> list[dict[str, Any]]:
        """Return one object for each encoder, with the capabilities of its kind."""
        return [
            {
                **encoder.model_dump(mode="json"),
                "non_commercial": encoder.non_commercial,
                "provides": list(self.kinds[encoder.kind].provides),
            }
            for encoder in self.encoders
        ]


@cache
def known_encoders() -> KnownEncoders:
    """Return the table that is shipped with the package."""
    text = (resources.files("dqecir") / "assets" / _FILE).read_text(encoding="utf-8")
    return parse_settings(yaml.safe_load(text), KnownEncoders, _FILE)


def origin_of(name: str, place: Path) -> Origin:
    """Return source and licence of weights; ``name`` finds them again, ``place`` is their folder.

    The licence is that in their README, else that in the table of known encoders, else
    :data:`UNKNOWN_LICENCE`.
    """
    licence = licence_in(place)
    if licence == UNKNOWN_LICENCE:
        bare = name.partition("@")[0].partition("==")[0]
        licence = next((e.licence for e in known_encoders().encoders if e.name == bare), licence)
    return Origin(source=name, licence=licence)
