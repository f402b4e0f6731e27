"""Procedural scenes: a catalogue of drawn objects in sets of near-identical images, in the form of CIRR.

For experiments, tests and training on machines without data sets. ``families`` arranges the images
in sets of six that differ in one to three attributes (arXiv 2108.04024), which a column ``set`` names;
``independent`` spreads them evenly over all attribute vectors, for the pre-training of encoders.
"""

from __future__ import annotations

import numpy as np

from dqecir.synthetic.drawn_catalogue import Arrangement, DrawnCatalogue, Items
from dqecir.synthetic.scene_drawing import render_scene
from dqecir.synthetic.scene_vectors import independent_scenes, scene_sets


def _arranged(items: int, arrangement: Arrangement, rng: np.random.Generator) -> tuple[Items, list[int]]:
    """Arrange the scenes of a theme, and so its sets, as one family."""
    found = (scene_sets if arrangement == "families" else independent_scenes)(items, rng)
    return found, rng.permutation(found[-1][1] + 1).tolist()


SCENES = DrawnCatalogue("scenes", 96, _arranged, render_scene)
