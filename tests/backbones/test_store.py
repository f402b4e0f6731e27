"""Image tokens: computed once, resumed after a kill, refused where they belong to something else."""

import pytest
import torch
from PIL import Image

from dqecir.backbones.store import JoinedStore, TokenStore
from dqecir.data.images import ImageError, Preprocessing
from dqecir.data.triplets import DataError

PREPARE = Preprocessing(size=8, pad_ratio=1.0)


class Tower:
    """Four tokens of three channel means, and a count of the images it has seen."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen, self.stop_after = 0, stop_after

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.stop_after is not None and self.seen >= self.stop_after:
            raise KeyboardInterrupt
        self.seen += len(pixels)
        return pixels.mean(dim=(2, 3))[:, None].expand(-1, 4, -1)


@pytest.fixture
def paths(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(150)]
    for number, path in enumerate(paths):
        Image.new("RGB", (9, 9), (number, 0, 255 - number)).save(path)
    return paths


def build(folder, tower, paths, fingerprint="t1", views=1):
    return TokenStore.build(folder, tower, fingerprint, PREPARE, paths, views, quiet=True)


def test_gathers_by_id(tmp_path, paths):
    store = build(tmp_path / "s", Tower(), paths)
    assert len(store) == 150
    tokens = store.gather(torch.tensor([7, 3, 7]))
    assert tokens.shape == (3, 4, 3)
    assert torch.equal(tokens[0], tokens[2])
    assert tokens[0, 0, 0] > tokens[1, 0, 0]


def test_a_killed_build_goes_on(tmp_path, paths):
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "s", Tower(stop_after=64), paths)
    tower = Tower()
    resumed = build(tmp_path / "s", tower, paths)
    assert tower.seen == 150 - 64
    whole = build(tmp_path / "w", Tower(), paths)
    every = torch.arange(150)
    assert torch.equal(resumed.gather(every), whole.gather(every))


def test_a_finished_store_is_only_opened(tmp_path, paths):
    build(tmp_path / "s", Tower(), paths)
    tower = Tower()
    build(tmp_path / "s", tower, paths)
    assert tower.seen == 0


def test_what_belongs_to_something_else_is_refused(tmp_path, paths):
    build(tmp_path / "s", Tower(), paths)
    with pytest.raises(DataError, match="tokens of other tower"):
        build(tmp_path / "s", Tower(), paths, fingerprint="t2")
    Image.new("RGB", (9, 9), "white").save(paths[5])
    with pytest.raises(DataError, match="tokens of other images"):
        build(tmp_path / "s", Tower(), paths)


def test_views_differ_and_the_first_is_the_picture(tmp_path, paths):
    one = build(tmp_path / "one", Tower(), paths[:5])
    many = build(tmp_path / "many", Tower(), paths[:5], views=3)
    ids = torch.arange(5)
    assert many.views == 3
    assert torch.equal(many.gather(ids), one.gather(ids))
    assert not torch.equal(many.gather(ids, torch.full((5,), 2)), one.gather(ids))


def test_a_bad_picture_is_named(tmp_path, paths):
    paths[2].write_text("broken")
    with pytest.raises(ImageError, match=r"2\.png"):
        build(tmp_path / "s", Tower(), paths)


def test_joined_stores_are_one(tmp_path, paths):
    first, second = build(tmp_path / "a", Tower(), paths[:5]), build(tmp_path / "b", Tower(), paths[5:9])
    joined = JoinedStore.of([first, second])
    whole = build(tmp_path / "w", Tower(), paths[:9])
    ids = torch.tensor([8, 0, 5, 4])
    assert len(joined) == 9
    assert torch.equal(joined.gather(ids), whole.gather(ids))
    assert JoinedStore.of([first]) is first
