"""Every kind of bad or odd picture: handled, or refused with one sentence."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dqecir.data.images import BLIP2_224, ImageError, Preprocessing, load_batches, load_image, target_pad


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


RED = Image.new("RGB", (8, 6), (255, 0, 0))


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (RED.convert("CMYK"), (254, 0, 0)),
        (Image.new("L", (8, 6), 100), (100, 100, 100)),
        (Image.new("1", (8, 6), 1), (255, 255, 255)),
        (Image.new("LA", (8, 6), (0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (8, 6), (255, 0, 0, 0)), (255, 255, 255)),
        (RED.convert("P"), (255, 0, 0)),
        (Image.fromarray(np.full((6, 8), 32768, dtype=np.uint16)), (128, 128, 128)),
    ],
    ids=["cmyk", "grey", "one bit", "grey with alpha", "transparent", "palette", "16 bit"],
)
def test_every_mode_becomes_rgb(picture, expected):
    kind = "TIFF" if picture.mode == "CMYK" else "PNG"
    loaded = load_image(encoded(picture, kind))
    assert loaded.mode == "RGB"
    assert loaded.size == (8, 6)
    assert np.abs(np.array(loaded.getpixel((3, 3))) - expected).max() <= 2


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert load_image(encoded(RED, "JPEG", exif=exif)).size == (6, 8)


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert load_image(data).getpixel((1, 1)) == (255, 0, 0)


def test_a_truncated_picture_is_refused():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    for kind in ("JPEG", "PNG", "WEBP"):
        data = encoded(noise, kind)
        with pytest.raises(ImageError, match=r"truncated or damaged|not a picture"):
            load_image(data[: len(data) // 2])


def test_an_enormous_picture_is_refused_before_it_is_decoded():
    header = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb = header + _chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + _chunk(b"IEND", b"")
    with pytest.raises(ImageError, match=r"60,000 x 60,000|enormous"):
        load_image(bomb)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_limits_can_be_set():
    with pytest.raises(ImageError, match="at most 10 are decoded"):
        load_image(encoded(RED), max_pixels=10)
    with pytest.raises(ImageError, match="at most 20 are read"):
        load_image(encoded(RED), max_bytes=20)


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_text("not a picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name, message in (("a.jpg", "not a picture"), ("empty.jpg", "empty"), ("none.jpg", "no such file")):
        with pytest.raises(ImageError, match=message):
            load_image(tmp_path / name)
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(tmp_path)


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=200), keep=st.integers(0, 60))
def test_no_bytes_end_in_anything_but_an_image_error(data, keep):
    with contextlib.suppress(ImageError):
        load_image(encoded(RED, "PNG")[:keep] + data)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300), ratio=st.sampled_from([1.0, 1.25]))
def test_every_shape_becomes_a_square(width, height, ratio):
    prepare = Preprocessing(size=24, pad_ratio=ratio)
    pixels = prepare(Image.new("RGB", (width, height), (10, 200, 30)))
    assert pixels.shape == (3, 24, 24)
    assert torch.isfinite(pixels).all()


def test_a_picture_within_the_ratio_is_not_padded():
    assert target_pad(Image.new("RGB", (100, 81)), 1.25).size == (100, 81)
    assert target_pad(Image.new("RGB", (300, 100)), 1.25).size == (300, 240)


def test_agrees_with_the_published_processor_on_squares():
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (301, 301, 3), dtype=np.uint8))
    theirs = BlipImageProcessorPil(size={"height": 224, "width": 224})(noise, return_tensors="pt")
    assert torch.allclose(BLIP2_224(noise), theirs["pixel_values"][0], atol=1e-5)


def test_normalising_has_an_inverse_and_settings_survive_json():
    pixels = torch.rand(2, 3, 4, 4)
    assert torch.allclose(BLIP2_224.denormalised(BLIP2_224.normalised(pixels)), pixels, atol=1e-6)
    small = Preprocessing(size=32, pad_ratio=1.0, pad_colour=(255, 255, 255))
    assert Preprocessing.from_dict(small.to_dict()) == small


def test_a_batch_leaves_out_what_cannot_be_used_and_says_why(tmp_path):
    for number in range(5):
        RED.save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_text("broken")
    refusals = []
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    batches = list(load_batches(paths, Preprocessing(size=16), refusals, batch_size=2, workers=2))
    assert [batch.positions for batch in batches] == [(0, 1), (3,), (4,)]
    assert [(refusal.path.name, "not a picture" in refusal.reason) for refusal in refusals] == [
        ("2.png", True)
    ]
