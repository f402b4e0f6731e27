"""The request for a reproduction (data set, weights, folders), and the record of its inputs."""

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
"""Files of the package: recipes, published numbers."""
SETTINGS = "settings.json"
"""The file of a reproduction's settings; a reproduction with other settings cannot use its folder."""


@dataclass(frozen=True)
class DataSet:
    """A published data set with its recipe and splits."""

    name: str
    recipe: str | None
    """The package's recipe for training on it; None if there is no training split."""
    test: str | None = None
    """The split without published answers, for which submissions are written."""
    without_training: str = ""
    """The data set whose run it uses, if it has no training split."""


DATA_SETS: Mapping[str, DataSet] = {
    one.name: one
    for one in (
        DataSet("fashioniq", "dqe-fashioniq.yaml"),
        DataSet("cirr", "dqe-cirr.yaml", "test1"),
        DataSet("circo", None, "test", "cirr"),
        DataSet("hp-fashioniq", None, None, "fashioniq"),
    )
}
"""All data sets, by their names on the command line."""


@dataclass(frozen=True)
class Request:
    """The request for a reproduction.

    ``folder`` is the published data set, ``images`` the folder of its pictures (default: ``folder``),
    ``tokens`` the folder of image tokens (default: ``out/tokens``). With ``run``, a run of this or another
    data set is measured and nothing is trained.
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
        """The data set; raises :class:`DataError` that names the nearest one, or what the request lacks."""
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
        """Return the protocol. Default: the data set's plain one.

        Raises :class:`DataError` for an unknown protocol, and for one of another data set.
        """
        protocol = protocol_named(self.protocol or self.data)
        if protocol.data != self.data:
            raise DataError(
                f"the protocol {protocol.name} measures {protocol.data}, not {self.data}: leave out "
                "--protocol, or name another one"
            )
        return protocol

    def chosen_recipe(self) -> Recipe:
        """Return the recipe for training (default: the data set's own); raises :class:`DataError`."""
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
        """The run folder of a training of this reproduction."""
        return self.out / "run"


class Settings(Strict):
    """Everything but the number of processes that decides the numbers."""

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
        """A short description of the recipe."""
        if self.recipe is None:
            return "none: a run was measured"
        training = self.recipe.training
        return (
            f"{self.recipe.method}, {training.epochs:g} epochs of batches of {training.batch_size} "
            f"at {training.learning_rate:g}, seed {training.seed} (all of it in {SETTINGS})"
        )

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Read what :meth:`keep` wrote; raises :class:`DataError` for another file."""
        return parse_settings(read_json(path, "settings of a reproduction"), cls, str(path))

    def keep(self, out: Path) -> None:
        """Write the settings into ``out``; raises :class:`DataError` where it holds others."""
        claim(out, SETTINGS, self, "reproduction", writes=processes().is_main_process)

    @classmethod
    def beside(cls, run: Path) -> Settings | None:
        """Read the settings of the reproduction that ``run`` belongs to; None for another kind of run."""
        for folder in (run, run.parent):
            if (folder / SETTINGS).is_file():
                return cls.read(folder / SETTINGS)
        return None


def models_of(run: Path) -> dict[str, Path]:
    """Return the model folders ``best`` and ``last`` of a run folder, or of a reproduction's folder.

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
    """Return the main model folder of a run: the best epoch, if there is one, else the last."""
    return next(iter(models_of(run).values()))
