"""The table of known encoders, and the origin of an encoder's weights."""

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
"""``real weights``: the published weights were run. ``tiny random``: equal to the published classes on small
random configurations. ``golden``: equal to files that the published code wrote. ``shapes``: keys and shapes
of the published size."""

_FILE = "known_encoders.yaml"


class KnownKind(Strict):
    """A kind of encoders."""

    what: str
    provides: tuple[str, ...]


class KnownEncoder(Strict):
    """A supported encoder."""

    name: str
    """OWNER/NAME of the hub, the name of a package, or the name of the shipped model."""
    kind: str
    source: Literal["hub", "package", "dqecir"]
    licence: str
    parameters: int = Field(gt=0)
    checked: tuple[Check, ...] = Field(min_length=1)
    measured: bool = False
    """Whether retrieval with its real weights was measured."""

    @property
    def how_checked(self) -> str:
        """A description of how it was checked."""
        checks = ["shapes only"] if self.checked == ("shapes",) else list(self.checked)
        return ", ".join(checks if self.measured else [*checks, "real weights not measured"])

    @property
    def non_commercial(self) -> bool:
        """Whether the licence forbids commercial use."""
        return forbids_commercial_use(self.licence)


class KnownEncoders(Strict):
    """All kinds, and all encoders of them."""

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
        """Return an object for each encoder, with the capabilities of its kind."""
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
    """Return the package's table."""
    text = (resources.files("dqecir") / "assets" / _FILE).read_text(encoding="utf-8")
    return parse_settings(yaml.safe_load(text), KnownEncoders, _FILE)


def origin_of(name: str, place: Path) -> Origin:
    """Return the origin of weights; ``name`` identifies them, ``place`` is their folder.

    The licence is that of their README, else that of the table of known encoders.
    """
    licence = licence_in(place)
    if licence == UNKNOWN_LICENCE:
        bare = name.partition("@")[0].partition("==")[0]
        licence = next((e.licence for e in known_encoders().encoders if e.name == bare), licence)
    return Origin(source=name, licence=licence)
