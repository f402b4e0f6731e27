"""Every kind of damaged or unusual picture: decoded, or rejected in one sentence."""

import contextlib
import io
import json
import os
import struct
import threading
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dqecir.data import images
from dqecir.data.images import Preprocessing, load_batches, load_image, target_pad
from dqecir.errors import DataError, ImageError
from tests.conftest import PATIENCE


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


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (np.array([[0, 255]], dtype=np.uint16), "PNG", [0, 1]),
        (np.array([[0, 65535]], dtype=np.uint16), "TIFF", [0, 255]),
        (np.array([[0, 255]], dtype=np.int32), "TIFF", [0, 255]),
        (np.array([[257, 65535]], dtype=np.int32), "TIFF", [1, 255]),
        (np.array([[-5, 1 << 20]], dtype=np.int32), "TIFF", [0, 255]),
        (np.array([[0.5, 1.0]], dtype=np.float32), "TIFF", [128, 255]),
        (np.array([[51.0, 255.0]], dtype=np.float32), "TIFF", [51, 255]),
        (np.array([[np.nan, np.inf, 1.0]], dtype=np.float32), "TIFF", [0, 0, 255]),
    ],
    ids=["dark", "bright", "bytes", "words", "wider", "unit", "bytes as floats", "not numbers"],
)
def test_deep_pictures_are_scaled_by_their_range_and_never_clipped(values, kind, expected):
    loaded = np.asarray(load_image(encoded(Image.fromarray(values), kind)))
    assert loaded[0, :, 0].tolist() == expected


def test_sixteen_bit_files_of_the_portable_kind_keep_their_darkness():
    assert load_image(b"P5 1 1 65535\n" + struct.pack(">H", 255)).getpixel((0, 0)) == (1, 1, 1)


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA", "YCbCr", "HSV", "LAB", "I;16B", "RGBX"])
def test_a_picture_already_opened_may_have_any_mode(mode):
    assert load_image(Image.new(mode, (3, 2))).mode == "RGB"


def test_a_picture_already_opened_is_treated_as_its_file_and_left_as_it_was():
    picture = Image.new("RGBA", (8, 6), (255, 0, 0, 0))
    picture.getexif()[0x0112] = 6
    loaded = load_image(picture)
    assert (loaded.size, loaded.getpixel((0, 0))) == ((6, 8), (255, 255, 255))
    assert (picture.mode, picture.size) == ("RGBA", (8, 6))
    with pytest.raises(ImageError, match="at most 10"):
        load_image(picture, max_pixels=10)


def test_transparency_of_a_palette_shows_white():
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putpixel((0, 0), 1)
    loaded = load_image(encoded(picture, "PNG", transparency=0))
    assert loaded.getpixel((1, 1)) == (255, 255, 255)
    assert loaded.getpixel((0, 0)) == (0, 255, 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(kind, orientation):
    upright = Image.new("RGB", (32, 16), (0, 0, 0))
    upright.paste((255, 255, 255), (0, 0, 16, 8))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = load_image(encoded(stored, kind, exif=exif))
    assert loaded.size == (32, 16)
    corners = [loaded.getpixel(place)[0] > 128 for place in ((3, 3), (28, 3), (3, 12), (28, 12))]
    assert corners == [True, False, False, False]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_metadata_do_not_make_the_pixels_useless():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert load_image(encoded(RED, "JPEG", exif=exif.tobytes()[:-8] + b"\xff" * 6)).size == (8, 6)


def test_the_first_frame_of_an_animation_is_taken():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert load_image(data).getpixel((1, 1)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.97])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_truncated_picture_is_refused(kind, kept):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    if kind not in images.supported_formats():
        pytest.skip(f"this Pillow was built without {kind}")
    data = encoded(noise, kind)
    assert load_image(data).size == (64, 64)
    with pytest.raises(ImageError, match=r"truncated or damaged|not a picture"):
        load_image(data[: int(len(data) * kept)])


def test_formats_beyond_the_list_are_refused():
    with pytest.raises(ImageError, match="not a picture in a supported format"):
        load_image(encoded(RED, "ICO"))


def test_an_enormous_picture_is_refused_before_it_is_decoded():
    header = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb = header + _chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + _chunk(b"IEND", b"")
    with pytest.raises(ImageError, match=r"60,000 x 60,000|too many pixels"):
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
    with pytest.raises(ImageError, match="a folder or a device"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="cannot be the name of a file"):
        load_image("a\0b.jpg")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    ended = []

    def read():
        with pytest.raises(ImageError, match="folder or a device"):
            load_image(tmp_path / "pipe.jpg")
        ended.append(True)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert ended == [True]


@settings(max_examples=50)
@given(data=st.binary(max_size=200), keep=st.integers(0, 60))
def test_no_bytes_end_in_anything_but_an_image_error(data, keep):
    with contextlib.suppress(ImageError):
        load_image(encoded(RED, "PNG")[:keep] + data)


@settings(max_examples=60)
@given(width=st.integers(1, 300), height=st.integers(1, 300), ratio=st.sampled_from([1.0, 1.25]))
def test_every_shape_becomes_a_square(width, height, ratio):
    prepare = Preprocessing(size=24, pad_ratio=ratio)
    pixels = prepare(Image.new("RGB", (width, height), (10, 200, 30)))
    assert pixels.shape == (3, 24, 24)
    assert torch.isfinite(pixels).all()


def test_a_picture_within_the_ratio_is_not_padded():
    assert target_pad(Image.new("RGB", (100, 81)), 1.25).size == (100, 81)
    assert target_pad(Image.new("RGB", (300, 100)), 1.25).size == (300, 240)


def test_padding_agrees_with_the_published_code(shared):
    fixture = json.loads((shared / "golden" / "12_text_pad_schedule.json").read_text())
    for width, height, padding in fixture["target_pad_1.25"]["rows"]:
        left, top, right, bottom = padding or (0, 0, 0, 0)
        white = Image.new("RGB", (width, height), (255, 255, 255))
        padded = np.asarray(target_pad(white, 1.25))[:, :, 0]
        assert padded.shape == (height + top + bottom, width + left + right)
        inside = padded[top : top + height, left : left + width]
        assert inside.min() == 255
        assert padded.sum(dtype=np.int64) == 255 * width * height


@pytest.mark.parametrize("size", [(1, 65_500), (65_500, 1)])
def test_a_long_strip_is_not_padded_to_gigabytes(size):
    narrow = images.narrowed(Image.new("RGB", size), 1.25)
    assert max(narrow.size) ** 2 / 1.25 <= images.MAX_PIXELS
    assert min(narrow.size) == 1


def test_pictures_of_usual_shapes_are_not_shrunk_before_padding():
    picture = Image.new("RGB", (9000, 3000))
    assert images.narrowed(picture, 1.25) is picture


@pytest.mark.parametrize(
    ("width", "height"), [(300, 400), (400, 300), (225, 224), (224, 279), (101, 500), (7, 9)]
)
def test_resize_and_crop_by_hand(width, height):
    """The longer side is cut to whole pixels; the crop is rounded to even halves."""
    picture = Image.fromarray(
        np.random.default_rng(2).integers(0, 255, (height, width, 3), dtype=np.uint8), "RGB"
    )
    padded = target_pad(picture, 1.25)
    shorter = min(padded.size)
    size = tuple(224 if side == shorter else int(224 * side / shorter) for side in padded.size)
    left, top = (round((side - 224) / 2.0) for side in size)
    resized = padded.resize(size, Image.Resampling.BICUBIC)
    expected = np.asarray(resized)[top : top + 224, left : left + 224]
    assert np.array_equal(np.asarray(Preprocessing().picture(picture)), expected)


def test_agrees_with_the_published_processor_on_squares():
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (301, 301, 3), dtype=np.uint8))
    theirs = BlipImageProcessorPil(size={"height": 224, "width": 224})(noise, return_tensors="pt")
    assert torch.allclose(Preprocessing()(noise), theirs["pixel_values"][0], atol=1e-5)


def test_normalising_has_an_inverse_and_settings_survive_json():
    pixels = torch.rand(2, 3, 4, 4)
    assert torch.allclose(Preprocessing().denormalised(Preprocessing().normalised(pixels)), pixels, atol=1e-6)
    small = Preprocessing(size=32, pad_ratio=1.0, pad_colour=(255, 255, 255))
    assert Preprocessing.from_dict(json.loads(json.dumps(small.to_dict()))) == small
    with pytest.raises(DataError, match="not one that dqecir wrote"):
        Preprocessing.from_dict({"size": 224})
    with pytest.raises(ValueError, match="pad_ratio"):
        Preprocessing(pad_ratio=0.5)


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
    with pytest.raises(ImageError, match=r"2\.png: not a picture"):
        list(load_batches(paths, Preprocessing(size=16), batch_size=2, workers=2))


def test_batches_hold_few_pictures_however_many_there_are(tmp_path, monkeypatch):
    RED.save(tmp_path / "a.png")
    decoded = []
    monkeypatch.setattr(images, "load_image", lambda path: decoded.append(path) or RED)
    batches = load_batches([tmp_path / "a.png"] * 100, Preprocessing(size=16), batch_size=5, workers=2)
    next(batches)
    assert len(decoded) <= 10
    batches.close()
    assert len(decoded) <= 10


def test_squashing_keeps_the_whole_picture_and_survives_saving():
    preprocessing = Preprocessing(size=32, squash=True)
    wide = Image.new("RGB", (200, 50), (255, 0, 0))
    wide.paste((0, 0, 255), (180, 0, 200, 50))
    picture = preprocessing.picture(wide)
    assert picture.size == (32, 32)
    assert picture.getpixel((31, 16))[2] > 200 and picture.getpixel((0, 0))[0] > 200
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(bits: int, kind: int, row: bytes, *chunks: bytes, behind: bytes = b"") -> bytes:
    """Return a PNG with two pixels in one row, and with chunks before and after the pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, bits, kind, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + pixels + behind + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("bits", "kind", "row", "key", "second"),
    [
        (16, 0, b"\1\2\xff\xff", b"\1\2", 255),
        (16, 0, b"\0\0\0\xff", b"\0\0", 1),
        (16, 2, b"\1\2" * 3 + b"\x80\0" * 3, b"\1\2" * 3, 128),
        (8, 0, b"\3\x80", b"\0\3", 128),
        (8, 2, b"\3" * 3 + b"\x80" * 3, b"\0\3" * 3, 128),
        (4, 0, b"\x3a", b"\0\3", 170),
        (2, 0, b"\x60", b"\0\1", 170),
        (1, 0, b"\x40", b"\0\0", 255),
        (1, 0, b"\x80", b"\0\1", 0),
    ],
)
def test_a_transparent_colour_lies_on_white_at_any_depth(bits, kind, row, key, second):
    loaded = load_image(png(bits, kind, row, chunk(b"tRNS", key)))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(255,) * 3, (second,) * 3]


LONG = b"a" * 2_000_000
PROFILE = b"Raw profile type exif"
BULK = {
    "zTXt": chunk(b"zTXt", PROFILE + b"\0\0" + zlib.compress(LONG)),
    "iTXt, packed": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG)),
    "iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + LONG),
    "tEXt": chunk(b"tEXt", PROFILE + b"\0" + LONG),
    "iCCP": chunk(b"iCCP", b"p\0\0" + zlib.compress(LONG)),
    "many": chunk(b"zTXt", PROFILE + b"\0\0" + zlib.compress(LONG[:1_000_000])) * 80,
    "damaged": chunk(b"tEXt", PROFILE + b"\0text")[:-1] + b"?",
    "cut": chunk(b"zTXt", PROFILE + b"\0\0" + zlib.compress(LONG)[:20]),
    "iTXt, flag 2": chunk(b"iTXt", b"XML:com.adobe.xmp\0\2\0\0\0" + zlib.compress(LONG)),
    "zTXt, method 1": chunk(b"zTXt", PROFILE + b"\0\1" + zlib.compress(b"a")),
    "zTXt, no method": chunk(b"zTXt", PROFILE),
    "iCCP, method 1": chunk(b"iCCP", b"p\0\1" + zlib.compress(b"a")),
    "iCCP, no method": chunk(b"iCCP", b"p\0"),
    "iCCP, empty": chunk(b"iCCP", b""),
    "named like a setting": b"".join(
        chunk(b"tEXt", name + b"\0text") for name in (b"transparency", b"interlace", b"bbox")
    ),
    **{
        f"damaged {kind}": chunk(kind.encode(), bytes(40))[:-1] + b"?"
        for kind in ("pHYs", "tIME", "eXIf", "acTL")
    },
    **{f"short {kind}": chunk(kind.encode(), b"\0") for kind in ("pHYs", "gAMA", "cHRM", "acTL", "fcTL")},
}


@pytest.mark.parametrize("where", ["before", "behind"])
@pytest.mark.parametrize("kind", BULK)
def test_metadata_of_any_size_do_not_hide_the_pixels(kind, where):
    bulk = BULK[kind]
    data = png(8, 0, b"\0\x80", bulk) if where == "before" else png(8, 0, b"\0\x80", behind=bulk)
    assert load_image(data).getpixel((1, 0)) == (128,) * 3
    assert images.format_of(data) == "PNG"


def test_a_large_text_takes_no_orientation_along():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(RED, exif=exif)
    place = data.index(b"IDAT") - 4
    for bulk in (BULK["zTXt"], BULK["damaged pHYs"] * 20, chunk(b"tEXt", b"Title\0text") * 20):
        assert load_image(data[:place] + bulk + data[place:]).size == (6, 8)


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt"])
def test_a_text_may_hold_the_orientation(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    text = b"\nexif\n      34\n" + exif.tobytes().hex().encode()
    body = text if kind == b"tEXt" else b"\0" + zlib.compress(text)
    data = encoded(RED)
    place = data.index(b"IDAT") - 4
    assert load_image(data[:place] + chunk(kind, PROFILE + b"\0" + body) + data[place:]).size == (6, 8)


def test_wrong_transparency_is_not_left_out():
    data = png(8, 0, b"\0\x80", chunk(b"tRNS", b"\0\0")[:-1] + b"?")
    with pytest.raises(ImageError):
        load_image(data)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u2", "f4"])
def test_a_deep_picture_whose_zero_is_white_is_not_its_negative(order, kind):
    values = np.array([[0, 65535]] if kind == "u2" else [[0.0, 1.0]], dtype=order + kind)
    bits, sample = (16, 1) if kind == "u2" else (32, 3)
    tags = [(256, 2), (257, 1), (258, bits), (259, 1), (262, 0), (273, 8), (277, 1), (278, 1)]
    tags += [(279, values.nbytes), (339, sample)]
    data = (
        (b"II*\0" if order == "<" else b"MM\0*")
        + struct.pack(f"{order}I", 8 + values.nbytes)
        + values.tobytes()
    )
    data += struct.pack(f"{order}H", len(tags))
    data += b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags) + b"\0" * 4
    loaded = load_image(data)
    assert [loaded.getpixel((x, 0))[0] for x in (0, 1)] == [255, 0]


def test_a_picture_of_12_bits_is_as_bright_as_others():
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 3)]
    data = b"II*\0" + struct.pack("<I", 12) + b"\xff\xf8\x00\0" + struct.pack("<H", len(tags))
    data += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags) + b"\0" * 4
    loaded = load_image(data)
    assert [loaded.getpixel((x, 0))[0] for x in (0, 1)] == [255, 128]


def wide_profile() -> bytes:
    """Return a profile like Display P3's: the curve of sRGB, and primaries of purer colours."""

    def fixed(*numbers: float) -> bytes:
        return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)

    def xyz(*numbers: float) -> bytes:
        return b"XYZ \0\0\0\0" + fixed(*numbers)

    curve = b"para\0\0\0\0\0\3\0\0" + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    name = b"desc\0\0\0\0" + struct.pack(">I", 8) + b"Wide P3\0" + b"\0" * 78
    tags = {b"desc": name, b"wtpt": xyz(0.9642, 1, 0.8249)}
    tags |= {b"rXYZ": xyz(0.51512, 0.2412, -0.00105), b"gXYZ": xyz(0.29198, 0.69225, 0.04189)}
    tags |= {b"bXYZ": xyz(0.1571, 0.06657, 0.78407)} | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    start, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for tag, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content
    head = struct.pack(">I", start + len(body)) + b"\0" * 4 + b"\2\x40\0\0mntrRGB XYZ " + b"\0" * 12 + b"acsp"
    head += b"\0" * 28 + fixed(0.9642, 1, 0.8249)
    return head + b"\0" * (128 - len(head)) + struct.pack(">I", len(tags)) + table + body


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 100, "subsampling": 0}), ("PNG", {}), ("TIFF", {})]
)
def test_colours_of_a_wide_profile_come_into_srgb(kind, options):
    green = Image.new("RGB", (8, 8), (120, 180, 120))
    red, middle, blue = load_image(encoded(green, kind, icc_profile=wide_profile(), **options)).getpixel(
        (4, 4)
    )
    assert middle == pytest.approx(181, abs=4)
    assert red < 110 and blue < 120
    damaged = load_image(encoded(green, kind, icc_profile=wide_profile()[:90], **options)).getpixel((4, 4))
    assert np.abs(np.array(damaged) - (120, 180, 120)).max() <= 2


def test_transparency_is_kept_beside_a_profile():
    clear = Image.new("RGBA", (4, 4), (120, 180, 120, 0))
    assert load_image(encoded(clear, icc_profile=wide_profile())).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["JPEG2000", "AVIF", "DIB", "GIF", "WEBP", "TIFF", "PPM", "BMP"])
def test_a_picture_is_read_whatever_its_name_ends_in(tmp_path, kind):
    (tmp_path / "a.jpg").write_bytes(encoded(RED, kind))
    assert load_image(tmp_path / "a.jpg").getpixel((4, 3))[0] > 240


def test_heic_is_read_with_its_extra_and_named_without(tmp_path, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    data = encoded(Image.new("RGB", (64, 64), (255, 0, 0)), "HEIF")
    assert load_image(data).getpixel((30, 30))[0] > 240
    monkeypatch.setattr(images, "reads_heif", lambda: False)
    with pytest.raises(ImageError, match=r"a\.heic: HEIC needs an extra: pip install 'dqecir\[heic\]'"):
        (tmp_path / "a.heic").write_bytes(data)
        load_image(tmp_path / "a.heic")
