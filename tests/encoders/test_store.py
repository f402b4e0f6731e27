"""Stored image tokens: computed once for each content, resumed after a kill, rejected for another tower."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from dqecir.data.images import Preprocessing
from dqecir.encoders.store import JoinedStore, ReadAhead, TokenStore, encoding, folder
from dqecir.errors import DataError, ImageError
from tests.conftest import PATIENCE

PREPARE = Preprocessing(size=8, pad_ratio=1.0)
EVERY = torch.arange(150)


class Tower:
    """A tower with four tokens of five numbers of the pixels, which counts the pictures it has seen."""

    def __init__(self, stop_after: int | None = None, wait_after: int | None = None) -> None:
        self.seen, self.stop_after, self.wait_after = 0, stop_after, wait_after

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.stop_after is not None and self.seen >= self.stop_after:
            raise KeyboardInterrupt
        if self.wait_after is not None and self.seen >= self.wait_after:
            signal.pause()
        self.seen += len(pixels)
        return pixels.flatten(1)[:, :160].reshape(-1, 4, 8, 5).mean(dim=2)


@pytest.fixture
def paths(tmp_path):
    return write_pictures(tmp_path)


def write_pictures(into: Path) -> list[Path]:
    paths = [into / f"{number}.png" for number in range(150)]
    for number, path in enumerate(paths):
        Image.radial_gradient("L").resize((9, 9)).convert("RGB").point(
            lambda value, number=number: (value + number) % 256
        ).save(path)
    return paths


def build(at, tower, paths, fingerprint="t1", views=1, prepare=PREPARE, precision="fp16"):
    return TokenStore.build(at, tower, fingerprint, prepare, paths, views, quiet=True, precision=precision)


def all_of(store, view=0):
    return store.gather(torch.arange(len(store)), torch.full((len(store),), view))


def test_gathers_by_id(tmp_path, paths):
    store = build(tmp_path / "s", Tower(), paths)
    assert len(store) == 150
    tokens = store.gather(torch.tensor([7, 3, 7]))
    assert tokens.shape == (3, 4, 5)
    assert tokens.dtype == torch.float32
    assert torch.equal(tokens[0], tokens[2])
    assert not torch.equal(tokens[0], tokens[1])


def test_a_tower_that_fails_leaves_what_it_did(tmp_path, paths):
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "s", Tower(stop_after=64), paths)
    tower = Tower()
    resumed = build(tmp_path / "s", tower, paths)
    assert tower.seen == 150 - 64
    assert torch.equal(all_of(resumed), all_of(build(tmp_path / "w", Tower(), paths)))


WAITING_BUILD = """
import sys
from pathlib import Path
import torch
from dqecir.encoders.store import encoding
from tests.encoders.test_store import Tower, build
encoding.BATCH = 8
torch.set_num_threads(1)
at = Path(sys.argv[1])
build(at / "s", Tower(wait_after=2 * 64), [at / f"{number}.png" for number in range(150)], views=2)
"""


def test_a_killed_build_goes_on(tmp_path, paths):
    """The build is killed at any moment after the first valid rows, and again after a few more."""
    journal, counted = tmp_path / "s" / "images.txt", 0
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", WAITING_BUILD, str(tmp_path)])
        until = time.monotonic() + PATIENCE
        while not journal.exists() or journal.stat().st_size < (counted + 8) * folder.LINE:
            assert child.poll() is None and time.monotonic() < until
            time.sleep(0.002)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        before, counted = counted, journal.stat().st_size // folder.LINE
        assert before < counted < 150
    tower = Tower()
    resumed = build(tmp_path / "s", tower, paths, views=2)
    assert tower.seen == 2 * (150 - counted)
    whole = build(tmp_path / "w", Tower(), paths, views=2)
    for view in range(2):
        assert torch.equal(all_of(resumed, view), all_of(whole, view))


def test_what_a_kill_left_half_written_does_not_count(tmp_path, paths):
    build(tmp_path / "s", Tower(), paths[:10])
    with (tmp_path / "s" / "images.txt").open("ab") as file:
        file.write(b"0123456789abcdef" * 4 + b" 1.2")
    with folder.shard_path(tmp_path / "s", 0).open("ab") as file:
        file.write(b"\xff" * 1001)
    tower = Tower()
    resumed = build(tmp_path / "s", tower, paths)
    assert tower.seen == 140
    assert torch.equal(all_of(resumed), all_of(build(tmp_path / "w", Tower(), paths)))


def test_a_finished_store_is_only_opened(tmp_path, paths):
    build(tmp_path / "s", Tower(), paths)
    tower = Tower()
    build(tmp_path / "s", tower, paths)
    assert tower.seen == 0


def test_only_what_is_new_is_computed(tmp_path, paths):
    """After replaced, added, removed and reordered images, all tokens equal those of a new store."""
    before = build(tmp_path / "s", Tower(), paths[:20], views=3)
    kept = all_of(before, 2)
    Image.new("RGB", (9, 9), "white").save(paths[5])
    now = [*reversed(paths[1:20]), paths[30]]
    tower = Tower()
    store = build(tmp_path / "s", tower, now, views=3)
    assert tower.seen == 2 * 3
    fresh = build(tmp_path / "w", Tower(), now, views=3)
    for view in range(3):
        assert torch.equal(all_of(store, view), all_of(fresh, view))
    assert torch.equal(all_of(before, 2), kept)


def test_equal_files_are_encoded_once(tmp_path, paths):
    paths[3].write_bytes(paths[4].read_bytes())
    tower = Tower()
    tokens = all_of(build(tmp_path / "s", tower, paths[:6], views=2), view=1)
    assert tower.seen == 5 * 2
    assert torch.equal(tokens[3], tokens[4])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fingerprint": "t2"}, r"tokens of other tower \(t1 where t2 is needed\)"),
        (
            {"prepare": PREPARE.model_copy(update={"pad_ratio": 1.5})},
            r"other preprocessing \({'pad_ratio': 1.0} where {'pad_ratio': 1.5} is",
        ),
        ({"views": 2}, "tokens of other views"),
        ({"precision": "int8"}, "tokens of other precision"),
    ],
)
def test_what_belongs_to_something_else_is_refused(tmp_path, paths, change, sentence):
    build(tmp_path / "s", Tower(), paths[:3])
    with pytest.raises(DataError, match=sentence):
        build(tmp_path / "s", Tower(), paths[:3], **change)


def test_what_cannot_be_read_is_refused(tmp_path, paths):
    build(tmp_path / "s", Tower(), paths[:9])
    with folder.shard_path(tmp_path / "s", 0).open("r+b") as file:
        file.truncate(100)
    with pytest.raises(DataError, match=r"tokens-00000\.bin is damaged: remove"):
        build(tmp_path / "s", Tower(), paths[:9])
    old = {"tower": "t1", "images": "0123", "views": 1, "done": 9}
    (tmp_path / "s" / "state.json").write_text(json.dumps(old))
    with pytest.raises(DataError, match="not supported: remove the folder"):
        build(tmp_path / "s", Tower(), paths[:9])


def test_views_differ_and_the_first_is_the_picture(tmp_path, paths):
    one = build(tmp_path / "one", Tower(), paths[:5])
    many = build(tmp_path / "many", Tower(), paths[:5], views=3)
    assert many.views == 3
    assert torch.equal(many.gather(torch.arange(5)), all_of(one))
    assert not torch.equal(all_of(many, 1), all_of(one))
    assert not torch.equal(all_of(many, 1), all_of(many, 2))


def test_a_bad_picture_is_named_and_costs_nothing_before_it(tmp_path, paths):
    good = paths[100].read_bytes()
    paths[100].write_text("broken")
    with pytest.raises(ImageError, match=r"100\.png"):
        build(tmp_path / "s", Tower(), paths)
    paths[100].write_bytes(good)
    tower = Tower()
    build(tmp_path / "s", tower, paths)
    assert tower.seen == 150 - 64
    with pytest.raises(ImageError, match=r"none\.png: there is no such file"):
        build(tmp_path / "s", Tower(), [*paths, tmp_path / "none.png"])


def test_bad_pictures_are_left_out_where_they_may_be(tmp_path, paths):
    paths[3].write_text("broken")
    paths[120].write_text("broken")  # of the same content
    paths[70].write_bytes(b"")
    asked = [*paths, tmp_path / "none.png"]
    for seen in (147, 0):
        tower, refusals = Tower(), []
        positions, store = TokenStore.build_usable(
            tmp_path / "s", tower, "t1", PREPARE, asked, refusals, quiet=True
        )
        assert tower.seen == seen
        assert positions == [place for place in range(150) if place not in (3, 70, 120)]
        assert [refusal.path for refusal in refusals] == [asked[place] for place in (3, 70, 120, 150)]
        assert refusals[1].reason == "the file is empty"
        assert refusals[3].reason == "there is no such file"
    good = [path for place, path in enumerate(paths) if place in positions]
    assert torch.equal(all_of(store), all_of(build(tmp_path / "t", Tower(), good)))
    with pytest.raises(DataError, match="none of 2 pictures could be used; the first: the file is empty"):
        TokenStore.build_usable(tmp_path / "s", Tower(), "t1", PREPARE, [paths[70], paths[3]], [], True)


def test_a_picture_changed_under_way_is_not_kept_under_its_old_name(tmp_path, paths, monkeypatch):
    monkeypatch.setattr(encoding, "BATCH", 8)

    class Meddling(Tower):
        def __call__(self, pixels):
            if self.seen == 0:
                Image.new("RGB", (9, 9), "white").save(paths[149])
            return super().__call__(pixels)

    with pytest.raises(ImageError, match=r"149\.png: the file was changed"):
        build(tmp_path / "s", Meddling(), paths)


def test_tokens_that_cannot_be_kept_are_refused(tmp_path, paths):
    def tower(pixels):
        return Tower()(pixels) + 1e6

    with pytest.raises(DataError, match=r"0\.png: its tokens are not numbers, or too large for fp16"):
        build(tmp_path / "s", tower, paths[:3])
    with pytest.raises(DataError, match="too large for int8"):
        build(tmp_path / "n", lambda pixels: Tower()(pixels) * float("nan"), paths[:3], precision="int8")
    assert torch.allclose(
        all_of(build(tmp_path / "i", tower, paths[:3], precision="int8")), torch.tensor(1e6)
    )


def test_a_full_disk_ends_in_a_sentence(tmp_path, paths, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    build(tmp_path / "s", Tower(), paths[:64])
    with monkeypatch.context() as patch:
        patch.setattr(folder, "to_disk", full)
        with pytest.raises(DataError, match=r"cannot be written \(No space left on device\)"):
            build(tmp_path / "s", Tower(), paths)
    tower = Tower()
    build(tmp_path / "s", tower, paths)
    assert tower.seen == 150 - 64


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_shards_are_one_store(tmp_path, paths, monkeypatch, precision):
    whole = build(tmp_path / "w", Tower(), paths, views=2, precision=precision)
    monkeypatch.setattr(folder, "SHARD_BYTES", 1000)
    store = build(tmp_path / "s", Tower(), paths, views=2, precision=precision)
    sizes = [path.stat().st_size for path in (tmp_path / "s").glob("tokens-*.bin")]
    assert len(sizes) > 5
    assert max(sizes) <= 1000
    ids = torch.randint(150, (400,), generator=torch.Generator().manual_seed(1))
    assert torch.equal(store.gather(ids, ids % 2), whole.gather(ids, ids % 2))


def test_int8_says_what_it_costs(tmp_path, paths):
    half = build(tmp_path / "h", Tower(), paths, views=2)
    store = build(tmp_path / "s", Tower(), paths, views=2, precision="int8")
    exact = torch.stack([all_of(half, view) for view in range(2)])
    error = (torch.stack([all_of(store, view) for view in range(2)]) - exact).norm(dim=-1)
    measured = (error / exact.norm(dim=-1)).mean().item()
    assert 0.0005 < store.relative_error < 0.01
    assert store.relative_error == pytest.approx(measured, rel=0.05)
    assert half.relative_error < 0.001
    assert store.bytes == 150 * 2 * 4 * (5 + 4)


def test_joined_stores_are_one(tmp_path, paths):
    first, second = build(tmp_path / "a", Tower(), paths[:5]), build(tmp_path / "b", Tower(), paths[5:9])
    joined = JoinedStore.of([first, second])
    whole = build(tmp_path / "w", Tower(), paths[:9])
    ids = torch.tensor([8, 0, 5, 4])
    assert len(joined) == 9
    assert torch.equal(joined.gather(ids), whole.gather(ids))
    assert torch.equal(joined.to("cpu", 10_000).gather(ids), whole.gather(ids))
    assert joined.to("cpu", first.bytes + second.bytes - 1) is joined
    assert JoinedStore.of([first]) is first
    assert torch.equal(joined.gather(torch.tensor([-1, -6])), whole.gather(torch.tensor([-1, -6])))
    for store in (joined, whole):
        for beyond in ([9], [0, 9], [-10]):
            with pytest.raises(IndexError):
                store.gather(torch.tensor(beyond))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_store_that_fits_is_held_and_another_is_read_ahead(tmp_path, paths, monkeypatch, precision):
    monkeypatch.setattr(folder, "SHARD_BYTES", 1000)
    monkeypatch.setattr("dqecir.encoders.store.rows.PIECE", 500)
    build(tmp_path / "s", Tower(), paths, views=2, precision=precision)
    # A part of the folder, in another order than it was written.
    store = build(tmp_path / "s", Tower(), paths[100:20:-1], views=2, precision=precision)
    held = store.to("cpu", store.bytes)
    assert held is not store
    assert held.bytes == store.bytes
    assert store.to("cpu", store.bytes - 1) is store
    generator = torch.Generator().manual_seed(2)
    asked = [(torch.randint(80, (9,), generator=generator), torch.arange(9) % 2) for _ in range(6)]
    expected = [store.gather(*one) for one in asked]
    for one, tokens in zip(asked, expected, strict=True):
        assert torch.equal(held.gather(*one), tokens)
    readers = []
    ahead = ReadAhead(store, torch.device("cpu"))
    gather = store.gather
    monkeypatch.setattr(
        store, "gather", lambda *one: readers.append(threading.current_thread()) or gather(*one)
    )
    for count, one in enumerate(asked):
        # The third time something else is announced than what is wanted then.
        ahead.announce(*asked[0 if count == 2 else count])
        assert torch.equal(ahead.gather(*one), expected[count])
    assert readers.count(threading.main_thread()) == 1
    assert len(readers) == 7


def test_decoding_runs_ahead_but_not_away(tmp_path, paths, monkeypatch):
    decoded, further = [], threading.Condition()
    load = encoding.load_image

    def noted(path):
        with further:
            decoded.append(path)
            further.notify()
        return load(path)

    monkeypatch.setattr(encoding, "BATCH", 8)
    monkeypatch.setattr(encoding, "load_image", noted)

    class Watching(Tower):
        def __call__(self, pixels):
            tokens = super().__call__(pixels)
            with further:  # the next batch is decoded beside the tower
                assert further.wait_for(lambda: len(decoded) >= min(150, self.seen + 8), PATIENCE)
            assert len(decoded) <= self.seen + 8 * encoding.AHEAD
            return tokens

    tower = Watching()
    build(tmp_path / "s", tower, paths)
    assert tower.seen == 150


def test_two_that_build_one_store_take_turns(tmp_path, paths, monkeypatch):
    waiting, lock = threading.Event(), folder.lock_descriptor

    def noted(descriptor, blocking=True):
        if blocking:
            waiting.set()
        return lock(descriptor, blocking=blocking)

    class Holding(Tower):
        def __call__(self, pixels):
            assert waiting.wait(PATIENCE)  # the other comes while this one works
            return super().__call__(pixels)

    monkeypatch.setattr(folder, "lock_descriptor", noted)
    towers, stores = [Holding(), Holding()], {}

    def run(number, some):
        stores[number] = build(tmp_path / "s", towers[number], some)

    threads = [
        threading.Thread(target=run, args=(0, paths)),
        threading.Thread(target=run, args=(1, paths[::-1])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert towers[0].seen + towers[1].seen == 150
    assert torch.equal(all_of(stores[0]), all_of(stores[1]).flip(0))
