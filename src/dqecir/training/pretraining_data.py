"""Pictures of catalogues, and their attributes as codes, for pretraining."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dqecir.data.catalogue import Catalogue
from dqecir.data.cells import UNKNOWN
from dqecir.data.images import Preprocessing, load_image
from dqecir.errors import DataError
from dqecir.io.progress import track
from dqecir.training.data import attribute_codes
from dqecir.training.recipe import CatalogueSource, Implied, Sources

MAX_VALUES = 256
"""Columns with more different values than this hold names or numbers, which are not learned."""


@dataclass(frozen=True)
class LabelledImages:
    """The preprocessed pictures of one catalogue, and their attributes.

    ``pixels`` [N, 3, S, S] uint8; ``codes`` [N, C]: the place of the value in each column, or
    ``UNKNOWN_CODE`` if it is unknown or the catalogue does not have the column.
    """

    pixels: Tensor
    codes: Tensor


def shared_columns(catalogues: Sequence[Catalogue]) -> dict[str, tuple[str, ...]]:
    """Return column -> all its values in any catalogue, sorted, for columns that images can show.

    These have 2 to :data:`MAX_VALUES` different values, without ``""``, which is among the values if the
    attribute does not apply to some images. Raises :class:`DataError` if there is no such column.
    """
    columns: dict[str, set[str]] = {}
    for catalogue in catalogues:
        for column, values in catalogue.attributes.items():
            columns.setdefault(column, set()).update(set(values) - {UNKNOWN})
    kept = {
        column: tuple(sorted(values))
        for column, values in sorted(columns.items())
        if 2 <= len(values - {""}) <= MAX_VALUES
    }
    if not kept:
        raise DataError(
            f"no column of the catalogues has 2 to {MAX_VALUES} values: add a column such as color"
        )
    return kept


def as_source(catalogue: Catalogue, source: CatalogueSource) -> Catalogue:
    """Return the catalogue with the columns that ``source`` names or implies, under their names in the model.

    Raises :class:`DataError` for a column that the table does not have.
    """
    chosen = catalogue.with_columns(tuple(source.columns))
    attributes = {
        source.columns[column]: tuple(value or UNKNOWN for value in values)
        if column in source.unknown_if_empty
        else values
        for column, values in chosen.attributes.items()
    }
    for column, implied in source.implied.items():
        readings = [_implied(catalogue, each) for each in implied]
        attributes[column] = tuple(
            next((value for value in row if value != UNKNOWN), UNKNOWN) for row in zip(*readings, strict=True)
        )
    return replace(chosen, attributes=attributes)


def _implied(catalogue: Catalogue, implied: Implied) -> list[str]:
    """Return for each picture the value that the rule ``implied`` gives, or ``UNKNOWN`` if it gives none."""
    cells = catalogue.with_columns((implied.column,)).attributes[implied.column]
    if not implied.within:
        return [implied.values.get(cell, UNKNOWN) for cell in cells]
    words = {word.lower(): value for word, value in implied.values.items()}
    return [next((value for word, value in words.items() if word in cell.lower()), UNKNOWN) for cell in cells]


def titles_of(catalogue: Catalogue, source: CatalogueSource) -> tuple[str, ...]:
    """Return the title of each picture, empty if it has none; an empty tuple if the source has no titles."""
    if source.title is None:
        return ()
    return tuple(catalogue.with_columns((source.title,)).attributes[source.title])


HELD_OUT = "held out"
"""Name of the split whose pictures calibrate the heads."""


def hold_out(catalogue: Catalogue, split: str, share: float, seed: int) -> Catalogue:
    """Return the catalogue with a random part of ``split`` moved to the split :data:`HELD_OUT`.

    ``share`` is that part, from 0 to 1; ``seed`` draws the pictures.
    """
    images = catalogue.split(split)
    drawn = images[np.random.default_rng(seed).permutation(len(images))]
    count = int(share * len(images))
    parts = {HELD_OUT: np.sort(drawn[:count]), split: np.sort(drawn[count:])}
    return replace(catalogue, splits={**catalogue.splits, **parts})


def as_sources(
    catalogues: Sequence[Catalogue], sources: Sources | str | None, split: str, seed: int
) -> list[Catalogue]:
    """Return the catalogues as the recipe's sources describe them, with shares of ``split`` held out.

    ``sources`` None: return them unchanged. Raises :class:`DataError` if there are not as many sources as
    catalogues, or if ``sources`` is the name of a file that is not read yet.
    """
    if sources is None:
        return list(catalogues)
    if isinstance(sources, str):
        raise DataError(
            f"the sources are still in the file {sources}: read the recipe with read_recipe or "
            "read_pretraining_recipe"
        )
    if len(sources) != len(catalogues):
        raise DataError(
            f"the recipe has sources for {len(sources)} catalogues, but {len(catalogues)} are given: give "
            "one --data for each"
        )
    return [
        hold_out(as_source(catalogue, source), split, source.held_out, seed)
        for catalogue, source in zip(catalogues, sources, strict=True)
    ]


def codes_of(catalogue: Catalogue, images: np.ndarray, columns: Mapping[str, Sequence[str]]) -> Tensor:
    """Return codes [N, K]: the place of each image's value among those of each column, or ``UNKNOWN_CODE``.

    ``images`` [N] are positions in the catalogue; ``columns``: K columns -> their values.
    """
    given = {column: [values[i] for i in images] for column, values in catalogue.attributes.items()}
    return attribute_codes(given, len(images), columns)


def read_images(
    catalogue: Catalogue,
    split: str,
    columns: dict[str, tuple[str, ...]],
    preprocessing: Preprocessing,
    quiet: bool = False,
    kept: Path | None = None,
) -> LabelledImages:
    """Read the pictures of one split of a catalogue, and their codes in ``columns`` (column -> values).

    ``kept`` is a file that holds the pixels. If it exists, it is read without a check, so it must be of the
    same split and preprocessing; otherwise it is written. Default: the pixels are only in memory. Raises
    :class:`ImageError` if a picture cannot be used.
    """
    images = catalogue.split(split)
    shape = (len(images), 3, preprocessing.size, preprocessing.size)
    codes = codes_of(catalogue, images, columns)
    if kept is not None and kept.exists():
        pixels = torch.from_numpy(np.memmap(kept, np.uint8, "c", shape=shape))
        return LabelledImages(pixels, codes)
    draft = None if kept is None else kept.with_name(f"{kept.name}.draft")
    held = np.empty(shape, np.uint8) if draft is None else np.memmap(draft, np.uint8, "w+", shape=shape)
    pixels = torch.from_numpy(held)

    def read(position: int) -> np.ndarray:
        return np.array(preprocessing.picture(load_image(catalogue.image_paths[position])))

    with ThreadPoolExecutor(4) as pool:
        pictures = track(
            pool.map(read, images.tolist()), f"reading {catalogue.folder.name}", len(images), quiet
        )
        for row, picture in enumerate(pictures):
            pixels[row] = torch.from_numpy(picture).permute(2, 0, 1)
    if draft is not None and kept is not None:
        draft.rename(kept)
    return LabelledImages(pixels, codes)
