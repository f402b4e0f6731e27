"""Check whether this machine can search with a model and an index, and advise what to do if not."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from dqecir.errors import DataError
from dqecir.index.contract import Index
from dqecir.index.engines import engine_of, open_index
from dqecir.index.exact import ExactIndex
from dqecir.io.device import chosen_device, usable_devices
from dqecir.model.composed_model import ComposedModel
from dqecir.model.maker import read_maker
from dqecir.search.opening import model_of_index

LOOKED_AT = 200
"""Number of items whose picture files are looked for."""

_PACKAGES = ("torch", "numpy", "pillow", "fastapi", "uvicorn", "transformers", "psycopg", "qdrant-client")
_GIB = 2**30
_ROOM = 1.5
"""Free memory that a search needs, as a multiple of the size of the model and of the index's vectors."""


@dataclass(frozen=True)
class Finding:
    """One checked fact about the installation, such as a version: its name, its value and what to do."""

    name: str
    value: str
    advice: str = ""
    """What to do; empty if nothing is wrong."""
    is_fatal: bool = False
    """Whether searches are impossible until the advice is followed."""


def examine(index: Path | None = None, model: Path | None = None) -> Iterator[Finding]:
    """Yield findings about versions, threads, device and memory, and about a model and an index if given.

    ``model`` is a model folder. Default: the encoder that ``index`` stores, else the shipped model.
    """
    yield Finding("dqecir", f"{version('dqecir')}, Python {platform.python_version()}, {platform.platform()}")
    yield Finding("packages", ", ".join(f"{name} {_version(name)}" for name in _PACKAGES))
    yield _threads()
    yield _device()
    yield _memory()
    try:
        found = ComposedModel.from_pretrained(model) if index is None else model_of_index(index, model)
    except DataError as error:
        yield Finding("model", f"cannot be read: {error}", "name another folder with --model", is_fatal=True)
        return
    weights = sum(one.numel() * one.element_size() for one in found.backbone.parameters())
    weights += sum(one.numel() * one.element_size() for one in found.method.parameters())
    yield Finding(
        "model", f"{found.method.name}, fingerprint {found.fingerprint}, {weights / _GIB:.2f} GiB of weights"
    )
    if index is not None:
        yield from _index(index, found, weights)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _threads() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    used = torch.get_num_threads()
    told = os.environ.get("OMP_NUM_THREADS")
    value = f"{used} of {cores} cores" + (f" (OMP_NUM_THREADS={told})" if told else "")
    advice = f"set OMP_NUM_THREADS={cores}: more threads than cores are slower" if used > cores else ""
    return Finding("threads", value, advice)


def _device() -> Finding:
    try:
        chosen = chosen_device()
    except DataError as error:
        return Finding(
            "device", str(error), "unset DQECIR_DEVICE, or name a device of this machine", is_fatal=True
        )
    return Finding("device", f"{chosen}; this machine has {' and '.join(usable_devices())}")


def _memory() -> Finding:
    free, total = memory_bytes()
    if total is None:
        return Finding("memory", "unknown on this system")
    return Finding("memory", f"{(free or 0) / _GIB:.1f} of {total / _GIB:.1f} GiB free")


def memory_bytes() -> tuple[float | None, float | None]:
    """Return free and total memory in bytes; None for each that the system does not report."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None, None
    kilobytes = {name: float(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return kilobytes["MemAvailable"] * 1024, kilobytes["MemTotal"] * 1024


def _index(folder: Path, model: ComposedModel, weights: int) -> Iterator[Finding]:
    try:
        opened = open_index(folder)
        opened.check_model(model)
        if is_read := isinstance(opened, ExactIndex):
            ExactIndex.verify(folder)
    except DataError as error:
        yield Finding("index", str(error), "name its model with --model, or build it again", is_fatal=True)
        return
    maker = read_maker(folder)
    checked = ["every vector is unchanged since it was written"] if is_read else []
    made = [] if maker is None else [f"encoder {maker.encoder}"]
    facts = [f"{len(opened):,} items", f"engine {engine_of(folder)}", *checked, *made]
    yield Finding("index", ", ".join(facts))
    yield _pictures(opened)
    size = len(opened) * opened.header.tokens * opened.header.size * 2
    free, _ = memory_bytes()
    needed = _ROOM * (size + weights)
    is_tight = free is not None and needed > free
    advice = "free memory, or use a larger machine: searches will be slow" if is_tight else ""
    yield Finding("room", f"about {needed / _GIB:.1f} GiB for the model and the vectors", advice)


def _pictures(opened: Index) -> Finding:
    items = opened.payloads(opened.sample(LOOKED_AT, seed=0))
    # Pictures at an address are the service's.
    paths = [path for one in items.values() if (path := opened.picture_path(one)) is not None]
    missing = sum(not path.is_file() for path in paths)
    advice = "say where they are: dqecir index reroot --index INDEX --images FOLDER" if missing else ""
    found = len(paths) - missing
    return Finding("pictures", f"{found} of {len(paths)} checked pictures exist", advice)
