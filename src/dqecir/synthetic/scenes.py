"""Drawn scenes: a catalogue of objects in sets of nearly equal images, in the form of CIRR.

It is for experiments, tests and training on machines without data sets. With ``families`` the images are in
sets of six that differ in one to three attributes (arXiv 2108.04024), named by the column ``set``;
``independent`` spreads images evenly over all attribute vectors, for pretraining encoders.
"""

from __future__ import annotations

import numpy as np

from dqecir.synthetic.drawn_catalogue import Arrangement, DrawnCatalogue, Items
from dqecir.synthetic.scene_drawing import render_scene
from dqecir.synthetic.scene_vectors import independent_scenes, scene_sets


def _arranged(items: int, arrangement: Arrangement, rng: np.random.Generator) -> tuple[Items, list[int]]:
    """Return the scenes with their themes as families, so that all sets of a theme are in the same split."""
    found = (scene_sets if arrangement == "families" else independent_scenes)(items, rng)
    return found, rng.permutation(found[-1][1] + 1).tolist()


SCENES = DrawnCatalogue("scenes", 96, _arranged, render_scene)
