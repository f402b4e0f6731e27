"""How alike the tokens of an image are, and what recall is left with fewer of them.

    python -m benchmarks.index.tokens --pictures PHOTOS GARMENTS --work WORK --out WORK/tokens.json

The base tokens of every image that the shipped model encoded are put together to 4, 2 and 1 (k-means with
cosines within the image, eight rounds), and recall@10 is measured against searching with all of them; the
distributions stay as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from benchmarks.index.material import distributions, encode, encoded_tokens
from benchmarks.index.material import queries as made_queries
from benchmarks.speed.timing import machine
from torch import Tensor
from torch.nn.functional import normalize

from dqecir.index.exact import ExactIndex
from dqecir.io.files import write_json
from dqecir.methods.scoring import score
from dqecir.search.audit import likeness

BEST = 10


def fewer(tokens: Tensor, count: int) -> Tensor:
    """Unit centres [N, count, D] of each item's tokens [N, t, D]; farthest first, then eight rounds."""
    rows = torch.arange(len(tokens))
    centres = normalize(tokens.mean(dim=1, keepdim=True), dim=2)
    while centres.shape[1] < count:
        nearest = torch.einsum("nkd,ncd->nkc", tokens, centres).amax(dim=2)
        centres = torch.cat([centres, tokens[rows, nearest.argmin(dim=1)][:, None]], dim=1)
    for _ in range(8):
        nearest = torch.einsum("nkd,ncd->nkc", tokens, centres).argmax(dim=2)
        own = torch.nn.functional.one_hot(nearest, count).to(tokens.dtype)
        sums = torch.einsum("nkc,nkd->ncd", own, tokens)
        centres = torch.where(own.sum(dim=1)[..., None] > 0, normalize(sums, dim=2), centres)
    return centres


def measured(tokens: Tensor, queries: Tensor) -> dict[str, Any]:
    """Alikeness and recalls of one set of images [N, n_t, D]."""
    columns = distributions(tokens)
    base, shown = tokens[:, :-columns].float(), tokens[:, -columns:].float()
    right = score(queries, tokens, "likelihood").topk(BEST, dim=1).indices
    recalls = {}
    for count in (4, 2, 1):
        small = torch.cat([torch.cat([fewer(part, count) for part in base.split(8192)]), shown], dim=1)
        found = score(queries, small, "likelihood").topk(BEST, dim=1).indices
        recalls[str(count)] = float((right[:, :, None] == found[:, None]).any(dim=2).float().mean())
    return {
        "images": len(tokens),
        "base_tokens": base.shape[1],
        "distributions": columns,
        "mean_cosine_of_base_tokens": likeness(base),
        "mean_cosine_of_distributions": likeness(shown.sqrt()),
        "dimensions_with_99_percent": dimensions(base.flatten(0, 1)),
        "recall_with_fewer_base_tokens": recalls,
    }


def dimensions(vectors: Tensor) -> int:
    """How many directions hold 99 % of the variance of vectors [N, D]."""
    spectrum = torch.linalg.eigvalsh(torch.cov(vectors[:200_000].T)).flip(0)
    return int((spectrum.cumsum(0) / spectrum.sum() < 0.99).sum()) + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, nargs="*", default=[])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    source = given.work / "encoded"
    encode(given.pictures, source)
    tokens, queries = encoded_tokens(source), made_queries("shipped", given.queries, source)
    index = ExactIndex.open(source)
    paths = [index.picture_path(payload) for _, payload in index.entries()]
    sets = ["" if path is None else path.parent.parent.name for path in paths]
    found = {"all": measured(tokens, queries)}
    for name in sorted(set(sets)):
        rows = torch.tensor([row for row, own in enumerate(sets) if own == name])
        found[name] = measured(tokens[rows], queries)
    write_json(given.out, {"machine": machine(), "queries": len(queries), "sets": found})


if __name__ == "__main__":
    main()
