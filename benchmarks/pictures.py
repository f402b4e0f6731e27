"""Make pictures of the README and of docs/gallery.md: the demonstration's first sheet, and ten searches each
over real photos and over a shop's products.

    make demo
    python -m benchmarks.pictures --photos PHOTOS --products PRODUCTS --demo demo

The questions were chosen before their results were known. Photos are indexed without their table, products
with it. Writes docs/pictures.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

from PIL import Image

from dqecir import ComposedRetriever
from dqecir.data.catalogue import Catalogue, read_catalogue
from dqecir.data.images import load_image
from dqecir.io.contact_sheets import Candidate, SheetRow, contact_sheet

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
WIDTH = 1400
IN_README = 6

Question = tuple[dict[str, str], int, str]
"""The values of a reference, its place among the pictures with these values, and a text."""

OF_PHOTOS: list[Question] = [
    ({"garment": "t-shirt", "color": "white", "print": "yes"}, 3, "is red and has long sleeves"),
    ({"garment": "dress", "color": "black"}, 1, "is blue and shorter"),
    ({"garment": "shirt", "color": "blue"}, 2, "is white with short sleeves"),
    ({"garment": "pants", "color": "black"}, 4, "are lighter and shorter"),
    ({"garment": "shoes", "color": "black"}, 2, "in white"),
    ({"garment": "longsleeve", "color": "grey"}, 1, "the same but pink"),
    ({"garment": "hat", "color": "black"}, 0, "a red one"),
    ({"garment": "t-shirt", "color": "black"}, 5, "a dress with flowers"),
    ({"garment": "skirt"}, 1, "with stripes"),
    ({"garment": "outwear", "color": "black"}, 2, "a lighter colour and a hood"),
]
OF_PRODUCTS: list[Question] = [
    ({"article": "Tshirts", "color": "Blue"}, 3, "in red"),
    ({"article": "Shirts", "color": "White"}, 2, "with checks"),
    ({"article": "Casual Shoes", "color": "Black"}, 4, "sports shoes in white"),
    ({"article": "Handbags", "color": "Brown"}, 1, "the same in black, in leather"),
    ({"article": "Watches", "color": "Black"}, 2, "for women"),
    ({"article": "Kurtas"}, 5, "a saree in green"),
    ({"article": "Jeans", "color": "Blue"}, 3, "shorts"),
    ({"article": "Tops", "color": "Pink"}, 0, "in black with a print"),
    ({"article": "Sandals", "color": "Brown"}, 1, "flip flops, cheaper"),
    ({"article": "Tshirts", "color": "Grey"}, 2, "from Puma"),
]


def of_split(folder: Path, shop: Path, split: str = "val") -> Path:
    """Make a shop of the rows of a split, whose pictures stay where they are; return its folder."""
    shop.mkdir()
    (shop / "images").symlink_to((folder / "images").resolve())
    with (folder / "attributes.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.pop("split") == split]
    with (shop / "attributes.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return shop


def reference_of(catalogue: Catalogue, wanted: dict[str, str], place: int) -> Path:
    fitting = [
        image
        for image in catalogue.split("val")
        if all(catalogue.attributes[column][image] == value for column, value in wanted.items())
    ]
    return catalogue.image_paths[fitting[place]]


def answers(
    retriever: ComposedRetriever, folder: Path, catalogue: Catalogue, questions: list[Question]
) -> list[SheetRow]:
    """Return a row for each question about an index of pictures in a folder."""
    rows = []
    for wanted, place, text in questions:
        reference = reference_of(catalogue, wanted, place)
        result = retriever.search(reference, text, k=8)
        found = [Candidate(load_image(folder / hit.payload["path"]), hit.score) for hit in result.hits]
        rows.append(SheetRow(load_image(reference), text, found, result.attribute_weights))
    return rows


def small(source: Path, target: Path) -> None:
    """Write a sheet as wide as a page: a PNG of 256 colours, or a WebP."""
    picture = Image.open(source).convert("RGB")
    size = (WIDTH, round(picture.height * WIDTH / picture.width))
    resized = picture.resize(size, Image.Resampling.LANCZOS)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".webp":
        resized.save(target, quality=80, method=6)
    else:
        resized.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--products", type=Path, required=True)
    parser.add_argument("--demo", type=Path, required=True)
    options = parser.parse_args()
    photos, products = read_catalogue(options.photos), read_catalogue(options.products)
    retriever = ComposedRetriever.from_pretrained()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        retriever.build_index([photos.image_paths[image] for image in photos.split("val")], work / "photos")
        rows = answers(retriever, options.photos, photos, OF_PHOTOS)
        small(contact_sheet(rows[:IN_README], work / "sheet.png"), PICTURES / "photos.png")
        small(contact_sheet(rows, work / "sheet.png"), PICTURES / "photos.webp")
        shop = of_split(options.products, work / "shop")
        retriever.build_index(shop, work / "products")
        rows = answers(retriever, shop, products, OF_PRODUCTS)
        small(contact_sheet(rows, work / "sheet.png"), PICTURES / "products.webp")
    small(options.demo / "answers-1.png", PICTURES / "answers-1.png")


if __name__ == "__main__":
    main()
