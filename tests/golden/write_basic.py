"""Write 19_basic.safetensors: how the published code of BASIC ranks synthetic features.

    git clone https://github.com/billpsomas/icir
    python tests/golden/write_basic.py icir

Query expansion is off, because it needs the gallery at every query. The pictures and texts that scale the
similarities are the gallery and the corpus of subjects.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

HERE = Path(__file__).parent
WIDTH, COMPONENTS = 24, 9


def features() -> dict[str, Tensor]:
    """Return unit features: queries' images and texts, a gallery, and corpora of subjects and styles."""
    draw = torch.Generator().manual_seed(0)
    spread = torch.linspace(2.0, 0.2, WIDTH)

    def some(count: int, shift: float, turn: int) -> Tensor:
        return F.normalize(torch.randn(count, WIDTH, generator=draw) * spread.roll(turn) + shift, dim=1)

    return {
        "images": some(7, 0.5, 0),
        "texts": some(7, -0.3, 3),
        "gallery": some(60, 0.5, 0),
        "subjects": some(40, -0.3, 0),
        "styles": some(30, -0.2, 12),
    }


def main() -> None:
    checkout = sys.argv[1]
    sys.path.insert(0, str(Path(checkout).resolve()))
    sys.modules["open_clip"] = ModuleType("open_clip")  # the public code imports it, and ranking needs it not
    import utils_retrieval

    found = features()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        folder = Path("features/clip_features/corpus")
        folder.mkdir(parents=True)
        for name in ("subjects", "styles"):
            with (folder / f"{name}.pkl").open("wb") as file:
                pickle.dump({"feats": found[name].numpy(), "prompts": [""] * len(found[name])}, file)
        utils_retrieval.read_corpus = lambda path, device, norm: (found[Path(path).stem].clone(), None)
        generated = {"image_features": found["gallery"].numpy(), "text_features": found["subjects"].numpy()}
        np.save("dataset_1_sd_clip.pkl.npy", generated)  # type: ignore[arg-type]
        settings = Namespace(
            method="basic",
            backbone="clip",
            norm=True,
            specified_corpus="subjects",
            specified_ncorpus="styles",
            standardize_features=True,
            use_laion_mean=False,
            project_features=True,
            aa=0.2,
            num_principal_components_for_projection=COMPONENTS,
            do_query_expansion=False,
            normalize_similarities=True,
            path_to_synthetic_data=".",
            harris_lambda=0.1,
        )
        ranks = utils_retrieval.calculate_rankings(
            settings, found["images"], found["texts"], found["gallery"]
        )
    save_file({**found, "ranks": ranks}, HERE / "19_basic.safetensors")


if __name__ == "__main__":
    main()
