"""Procedural scenes: a catalogue of drawn objects in sets of near-identical images, in the form of CIRR.

For trials, tests and first training on machines without data sets. ``families`` arranges the images
in sets of six that differ in one to three attributes (arXiv 2108.04024); ``independent`` spreads them
evenly over all attribute vectors, for the pre-training of encoders.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from dqecir.synthetic.drawn_catalogue import (
    ARRANGING,
    DRAWING,
    Arrangement,
    check_request,
    check_target,
    generator_of,
    split_in_turn,
    write_drawn,
)
from dqecir.synthetic.scene_drawing import render_scene
from dqecir.synthetic.scene_vectors import independent_scenes, scene_sets


def scene_rows(
    items: int, seed: int, arrangement: Arrangement = "families", split: str | None = None
) -> list[dict[str, str]]:
    """Split, set and attributes of every scene, in the order of their numbers; nothing is drawn.

    The scenes are shuffled. Without ``split``, whole themes (and so whole sets) go to train, val and
    test (80/10/10, and one at least where there are three); else all scenes get ``split``. There is
    no column ``set`` where the scenes are ``independent``. The same arguments give the same rows.
    Raises ``DataError`` for an argument that cannot be used.
    """
    check_request("scenes", items, arrangement, split)
    rng = generator_of(seed, ARRANGING)
    in_sets = arrangement == "families"
    found = scene_sets(items, rng) if in_sets else independent_scenes(items, rng)
    splits = split_in_turn(rng.permutation(found[-1].theme + 1).tolist())
    rows = [
        {"split": split or splits[item.theme]}
        | ({"set": f"{item.set:06d}"} if in_sets else {})
        | item.attributes
        for item in found
    ]
    return [rows[place] for place in rng.permutation(len(rows))]


def scene_image(attributes: Mapping[str, str], seed: int, number: int, size: int = 96) -> Image.Image:
    """Draw scene ``number`` of a seed: RGB, ``size`` x ``size`` pixels; no other scene has a say in it."""
    rng = generator_of(seed, DRAWING, number)
    return render_scene(attributes, rng, size)


def write_scenes(
    folder: Path,
    items: int,
    seed: int,
    size: int = 96,
    split: str | None = None,
    arrangement: Arrangement = "families",
    quiet: bool = False,
) -> Path:
    """Write a catalogue of ``items`` scenes: ``attributes.csv`` and ``images/000000.jpg`` onwards.

    ``size`` is the side of the images in pixels (64 to 512); the other arguments are those of
    ``scene_rows``, and item ``n`` is ``scene_image(attributes, seed, n, size)`` as JPEG. The same
    arguments give the same bytes. Returns ``folder``.
    Raises ``DataError`` for an argument that cannot be used and for a folder that holds anything.
    """
    folder = Path(folder)
    check_target(folder, "scenes", size)
    rows = scene_rows(items, seed, arrangement, split)
    return write_drawn(
        folder, "scenes", rows, lambda row, number: scene_image(row, seed, number, size), quiet
    )
