"""What a reproduction was made of, kept beside it: another one is refused its folder."""

from __future__ import annotations

from pathlib import Path

from dqecir.data.annotations import read_json
from dqecir.io.run_folder import claim
from dqecir.settings import Strict, parse_settings
from dqecir.training.processes import processes
from dqecir.training.recipe import Recipe

FILE = "settings.json"


class Settings(Strict):
    """Everything that decides the numbers, but the number of processes."""

    data: str
    protocol: str
    weights: str
    """Fingerprint of the untrained weights."""
    recipe: Recipe | None
    run: str | None
    measured: str
    """Checksum of the split that is measured."""
    training: str | None

    @property
    def in_short(self) -> str:
        """The recipe in a few words; all of it stands in the file."""
        if self.recipe is None:
            return "none: a run was measured"
        training = self.recipe.training
        return (
            f"{self.recipe.method}, {training.epochs:g} epochs of batches of {training.batch_size} "
            f"at {training.learning_rate:g}, seed {training.seed} (all of it in {FILE})"
        )

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Read what :meth:`keep` wrote; raises :class:`DataError` for another file."""
        return parse_settings(read_json(path, "what a reproduction was made of"), cls, str(path))

    def keep(self, out: Path) -> None:
        """Write the settings into ``out``; raises :class:`DataError` where it holds others."""
        main = processes().is_main_process
        claim(out, FILE, self, "reproduction", writes=main)

    @classmethod
    def beside(cls, run: Path) -> Settings | None:
        """The settings of the reproduction that ``run`` belongs to; None for a run of another kind."""
        for folder in (run, run.parent):
            if (folder / FILE).is_file():
                return cls.read(folder / FILE)
        return None
