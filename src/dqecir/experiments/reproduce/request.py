"""What the user asks for in a reproduction (data set, weights, folders), and the settings that are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from dqecir.data.annotations import read_json
from dqecir.errors import DataError
from dqecir.evaluation.missing_images import Missing
from dqecir.evaluation.protocols import Protocol, protocol_named
from dqecir.io.run_folder import claim
from dqecir.settings import Strict, nearest, parse_settings
from dqecir.training.processes import processes
from dqecir.training.recipe import Recipe, read_recipe

ASSETS = resources.files("dqecir") / "assets"
"""Folder of the package's files, such as recipes and published numbers."""
SETTINGS = "settings.json"
"""File with the settings of a reproduction; a reproduction with other settings cannot use its folder."""


@dataclass(frozen=True)
class DataSet:
    """A published data set, with its recipe and splits."""

    name: str
    recipe: str | None
    """Name of the package's training recipe; None if the data set has no training split."""
    test: str | None = None
    """Split without published answers, for which submissions are written; None if there is none."""
    without_training: str = ""
    """If it has no training split: the data set whose run is measured."""


DATA_SETS: Mapping[str, DataSet] = {
    one.name: one
    for one in (
        DataSet("fashioniq", "dqe-fashioniq.yaml"),
        DataSet("cirr", "dqe-cirr.yaml", "test1"),
        DataSet("circo", None, "test", "cirr"),
        DataSet("hp-fashioniq", None, None, "fashioniq"),
    )
}
"""Name on the command line -> data set."""


@dataclass(frozen=True)
class Request:
    """What the user asks for in a reproduction; its fields are the options of ``dqecir reproduce``.

    ``data`` is the name of the data set, such as ``fashioniq``, and ``weights`` names the untrained weights.
    ``missing``: refuse if images are missing, or skip the questions that need them. ``folder`` is the
    published data set, ``images`` the folder of its pictures (default: ``folder``), ``tokens`` the folder of
    image tokens (default: ``out/tokens``); the report is written to ``out``. If ``recipe`` or ``protocol`` is
    None, that of the data set is used. If ``run`` is given, that run of this or another data set is measured,
    and nothing is trained.
    """

    data: str
    folder: Path
    weights: str
    out: Path
    recipe: Path | None = None
    protocol: str | None = None
    run: Path | None = None
    missing: Missing = "refuse"
    images: Path | None = None
    tokens: Path | None = None

    @property
    def data_set(self) -> DataSet:
        """The data set with the name ``data``.

        Raises :class:`DataError` if there is none, if a run and a recipe are given, or if no run is given for
        a data set without a training split.
        """
        if self.data not in DATA_SETS:
            raise DataError(f"there is no data set {self.data!r}{nearest(self.data, DATA_SETS)}")
        found = DATA_SETS[self.data]
        if self.run is not None and self.recipe is not None:
            raise DataError("give --recipe or --run, not both: a run is already trained")
        if found.recipe is None and self.run is None:
            raise DataError(
                f"{found.name} has no training split: name a run with --run, such as the folder that "
                f"dqecir reproduce {found.without_training} wrote"
            )
        return found

    def chosen_protocol(self) -> Protocol:
        """Return the protocol. Default: the plain one of the data set.

        Raises :class:`DataError` if it is unknown, or for another data set.
        """
        protocol = protocol_named(self.protocol or self.data)
        if protocol.data != self.data:
            raise DataError(
                f"the protocol {protocol.name} measures {protocol.data}, not {self.data}: leave out "
                "--protocol, or name another one"
            )
        return protocol

    def chosen_recipe(self) -> Recipe:
        """Return the training recipe (default: that of the data set).

        Raises :class:`DataError` if it is wrong.
        """
        name = self.data_set.recipe
        assert name is not None
        if self.recipe is None:
            with resources.as_file(ASSETS / "recipes" / "reproduce" / name) as path:
                return read_recipe(path)
        if not self.recipe.is_file():
            raise DataError(
                f"there is no file {self.recipe}: name a recipe, such as recipes/reproduce/{name}"
            )
        return read_recipe(self.recipe)

    @property
    def trained_here(self) -> Path:
        """Folder of the run that this reproduction trains."""
        return self.out / "run"


class Settings(Strict):
    """The settings of a reproduction that decide its numbers; its folder stores them."""

    data: str
    protocol: str
    weights: str
    """Fingerprint of the untrained weights."""
    recipe: Recipe | None
    run: str | None
    measured: str
    """Checksum of the measured split."""
    training: str | None

    @property
    def in_short(self) -> str:
        """The recipe in a few words."""
        if self.recipe is None:
            return "none: a run was measured"
        training = self.recipe.training
        return (
            f"{self.recipe.method}, {training.epochs:g} epochs of batches of {training.batch_size} "
            f"at {training.learning_rate:g}, seed {training.seed} (all of it in {SETTINGS})"
        )

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Read settings that :meth:`keep` wrote; raises :class:`DataError` for any other file."""
        return parse_settings(read_json(path, "settings of a reproduction"), cls, str(path))

    def keep(self, out: Path) -> None:
        """Store the settings in the folder ``out``.

        Raises :class:`DataError` if the folder holds the settings of another reproduction.
        """
        claim(out, SETTINGS, self, "reproduction", writes=processes().is_main_process)

    @classmethod
    def beside(cls, run: Path) -> Settings | None:
        """Read the settings of the reproduction that ``run`` belongs to; None if it belongs to none."""
        for folder in (run, run.parent):
            if (folder / SETTINGS).is_file():
                return cls.read(folder / SETTINGS)
        return None


def models_of(run: Path) -> dict[str, Path]:
    """Return the model folders in a run's or a reproduction's folder: ``best`` and ``last`` -> path.

    Raises :class:`DataError` if there is neither.
    """
    for folder in (run, run / "run"):
        found = {
            name: folder / name for name in ("best", "last") if (folder / name / "config.json").is_file()
        }
        if found:
            return found
    raise DataError(
        f"{run} is not a run, because it has no model folder best or last: name the --out of dqecir train or "
        "of dqecir reproduce"
    )


def first_of(run: Path) -> Path:
    """Return the main model folder of a run: the best epoch if there is one, else the last."""
    return next(iter(models_of(run).values()))
