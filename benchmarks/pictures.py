"""Make the pictures of the README: the demonstration's first sheet, and results on real photos.

    make demo
    python benchmarks/pictures.py --photos PHOTOS --demo demo

The questions about the photos were chosen before the results were known. Writes docs/pictures.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from dqecir import ComposedRetriever
from dqecir.data.catalogue import Catalogue, read_catalogue
from dqecir.data.images import load_image
from dqecir.io.contact_sheets import Candidate, SheetRow, contact_sheet

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
WIDTH = 1400
QUESTIONS = [
    ({"garment": "t-shirt", "color": "white", "print": "yes"}, 3, "is red and has long sleeves"),
    ({"garment": "dress", "color": "black"}, 1, "is blue and shorter"),
    ({"garment": "shirt", "color": "blue"}, 2, "is white with short sleeves"),
    ({"garment": "pants", "color": "black"}, 4, "are lighter and shorter"),
    ({"garment": "shoes", "color": "black"}, 2, "in white"),
    ({"garment": "longsleeve", "color": "grey"}, 1, "the same but pink"),
]


def reference_of(catalogue: Catalogue, wanted: dict[str, str], place: int) -> Path:
    fitting = [
        image
        for image in catalogue.split("val")
        if all(catalogue.attributes[column][image] == value for column, value in wanted.items())
    ]
    return catalogue.image_paths[fitting[place]]


def small(source: Path, target: Path) -> None:
    picture = Image.open(source).convert("RGB")
    size = (WIDTH, round(picture.height * WIDTH / picture.width))
    resized = picture.resize(size, Image.Resampling.LANCZOS)
    target.parent.mkdir(parents=True, exist_ok=True)
    resized.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--demo", type=Path, required=True)
    options = parser.parse_args()
    catalogue = read_catalogue(options.photos)
    retriever = ComposedRetriever.from_pretrained()
    with tempfile.TemporaryDirectory() as work:
        gallery = [catalogue.image_paths[image] for image in catalogue.split("val")]
        retriever.build_index(gallery, Path(work) / "index")
        answers = []
        for wanted, place, text in QUESTIONS:
            reference = reference_of(catalogue, wanted, place)
            result = retriever.search(reference, text, k=8)
            found = [Candidate(load_image(Path(hit.payload["path"])), hit.score) for hit in result.hits]
            answers.append(SheetRow(load_image(reference), text, found, result.attribute_weights))
        sheet = contact_sheet(answers, Path(work) / "photos.png")
        small(sheet, PICTURES / "photos.png")
    small(options.demo / "answers-1.png", PICTURES / "answers-1.png")


if __name__ == "__main__":
    main()
