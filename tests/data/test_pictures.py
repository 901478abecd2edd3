"""Pictures as people see them: pixels against values computed here, and what is refused."""

from __future__ import annotations

import struct
import subprocess
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from statsmerging.data import pictures
from statsmerging.data.pictures import LARGEST_PICTURE, as_seen, decode, image_digest
from statsmerging.errors import UserError

#: Colour types of the PNG standard.
GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6


def png(
    rows: list[bytes],
    width: int,
    bits: int,
    kind: int,
    *chunks: tuple[bytes, bytes],
) -> bytes:
    """A PNG file by the standard's text, without Pillow."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts)


def tiff(
    pixels: bytes,
    width: int,
    bits: int,
    *,
    kind: int = 1,
    numbers: int = 1,
    samples: int = 1,
    tile: int | None = None,
) -> bytes:
    """A little-endian TIFF of one row by the standard's text.

    Args:
        kind: PhotometricInterpretation; 0 white is zero, 1 black is zero, 8 CIE L*a*b*.
        numbers: SampleFormat; 1 unsigned, 2 signed, 3 floating point.
        tile: side of the tile that holds the pixels, instead of a strip.
    """
    depths = struct.pack(f"<{samples}H", *[bits] * samples)
    tags = {256: width, 257: 1, 259: 1, 262: kind, 277: samples, 339: numbers}
    tags |= {278: 1} if tile is None else {322: tile, 323: tile}
    place, length = (273, 279) if tile is None else (324, 325)
    after = 8 + 2 + 12 * (len(tags) + 3) + 4
    tags |= {place: after + len(depths), length: len(pixels)}
    # 3 is a number of 16 bits, 4 one of 32; what fits into four bytes stands in their place.
    entries = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()}
    inline = depths.ljust(4, b"\0") if len(depths) <= 4 else struct.pack("<I", after)
    entries[258] = struct.pack("<HHI", 258, 3, samples) + inline
    directory = b"".join(entry for _, entry in sorted(entries.items()))
    start = b"II*\0" + struct.pack("<IH", 8, len(entries))
    return start + directory + bytes(4) + depths + pixels


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def seen(data: bytes) -> list[list[list[int]]]:
    """Rows of pixels of the decoded picture."""
    image = decode(data, "here")
    assert image.mode == "RGB"
    values: list[list[list[int]]] = np.asarray(image).tolist()
    return values


def refusal(data: bytes) -> str:
    """The message that refuses the picture; empty where it is decoded."""
    try:
        assert decode(data, "here").mode == "RGB"
    except UserError as error:
        return str(error)
    return ""


def greys(*values: int) -> list[list[int]]:
    return [[value] * 3 for value in values]


def over_white(colour: list[int], alpha: int) -> list[int]:
    return [round((value * alpha + 255 * (255 - alpha)) / 255) for value in colour]


SHADES = [0, 128, 129, 257, 4095, 32768, 65406, 65407, 65535]


def test_16_bit_shades_are_scaled_by_their_range() -> None:
    expected = [greys(*(round(255 * value / 65535) for value in SHADES))]
    assert expected[0][1:3] == greys(0, 1)
    big, little = (struct.pack(f"{order}9H", *SHADES) for order in "><")
    assert seen(png([big], 9, 16, GREY)) == expected
    assert seen(tiff(little, 9, 16)) == expected
    assert seen(b"P5 9 1 65535 " + big) == expected
    image = Image.fromarray(np.array([SHADES], dtype=np.uint16))
    assert np.asarray(as_seen(image)).tolist() == expected


def test_what_the_file_says_of_black_and_white_counts() -> None:
    little = struct.pack("<9H", *SHADES)
    expected = [greys(*(round(255 * (65535 - value) / 65535) for value in SHADES))]
    assert seen(tiff(little, 9, 16, kind=0)) == expected
    # 12 bits, two values in three bytes: 0xABC and 0xFFF.
    assert seen(tiff(b"\xab\xcf\xff", 2, 12)) == [greys(round(255 * 0xABC / 4095), 255)]
    # PGM names its own white.
    assert seen(b"P5 3 1 1000 " + struct.pack(">3H", 0, 500, 1000)) == [greys(0, 128, 255)]
    assert seen(b"P2 3 1 15\n0 8 15\n") == [greys(0, 136, 255)]


def test_16_bit_colours_keep_their_upper_half() -> None:
    row = struct.pack(">6H", 0, 255, 256, 65535, 0x80FF, 0x1234)
    assert seen(png([row], 2, 16, COLOUR)) == [[[0, 0, 1], [255, 0x80, 0x12]]]


def test_floating_point_shades_are_scaled_from_the_unit_interval() -> None:
    values = [0.0, 0.25, 0.5, 1.0]
    data = struct.pack("<4f", *values)
    assert seen(tiff(data, 4, 32, numbers=3)) == [greys(0, 64, 128, 255)]
    for wrong in (1.5, -0.1, float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"^here: the picture has floating-point values from"):
            decode(tiff(struct.pack("<2f", 0, wrong), 2, 32, numbers=3), "here")


@pytest.mark.parametrize(("bits", "numbers"), [(32, 1), (32, 2), (16, 2)])
def test_integers_of_unknown_white_are_refused(bits: int, numbers: int) -> None:
    with pytest.raises(UserError, match=r"^here: the picture has signed or 32-bit integers, .* 16"):
        decode(tiff(bytes(bits // 8), 1, bits, numbers=numbers), "here")


def test_alpha_lies_over_white() -> None:
    colours = [([200, 0, 0], 0), ([200, 0, 0], 255), ([10, 20, 30], 127), ([255, 1, 0], 1)]
    expected = [[over_white(colour, alpha) for colour, alpha in colours]]
    row = bytes(value for colour, alpha in colours for value in (*colour, alpha))
    assert seen(png([row], 4, 8, COLOUR_ALPHA)) == expected
    shades = [(0, 0), (0, 255), (90, 60)]
    expected = [[over_white([shade] * 3, alpha) for shade, alpha in shades]]
    assert seen(png([bytes(v for pair in shades for v in pair)], 3, 8, GREY_ALPHA)) == expected
    webp = saved(Image.new("RGBA", (2, 2), (200, 0, 0, 0)), "WEBP", lossless=True, exact=True)
    assert seen(webp) == [greys(255, 255)] * 2


def test_transparent_shades_and_colours_of_png_are_white() -> None:
    def clear(*values: int) -> tuple[bytes, bytes]:
        return b"tRNS", struct.pack(f">{len(values)}H", *values)

    colours = bytes([1, 2, 3, 3, 2, 1])
    assert seen(png([colours], 2, 8, COLOUR, clear(1, 2, 3))) == [[[255] * 3, [3, 2, 1]]]
    deep = struct.pack(">6H", 0x0102, 0x0203, 0x0304, 0x0201, 0x0302, 0x0403)
    transparent = clear(0x0102, 0x0203, 0x0304)
    assert seen(png([deep], 2, 16, COLOUR, transparent)) == [[[255] * 3, [2, 3, 4]]]
    assert seen(png([bytes([7, 8])], 2, 8, GREY, clear(7))) == [greys(255, 8)]
    # Four shades of 2 bits and two of 4 bits, in one byte.
    assert seen(png([b"\x1b"], 4, 2, GREY, clear(1))) == [greys(0, 255, 170, 255)]
    assert seen(png([b"\x2f"], 2, 4, GREY, clear(2))) == [greys(255, 255)]
    assert seen(png([b"\x40"], 2, 1, GREY, clear(0))) == [greys(255, 255)]
    shades = struct.pack(">3H", 500, 501, 65535)
    assert seen(png([shades], 3, 16, GREY, clear(500))) == [greys(255, 2, 255)]


def test_palettes_give_their_colours() -> None:
    palette = (b"PLTE", bytes([200, 0, 0, 0, 200, 0, 9, 8, 7]))
    assert seen(png([bytes([2, 0, 1])], 3, 8, PALETTE, palette)) == [
        [[9, 8, 7], [200, 0, 0], [0, 200, 0]]
    ]
    clear = (b"tRNS", bytes([0, 100]))
    assert seen(png([bytes([2, 0, 1])], 3, 8, PALETTE, palette, clear)) == [
        [[9, 8, 7], [255, 255, 255], over_white([0, 200, 0], 100)]
    ]


def test_one_bit_is_black_and_white() -> None:
    assert seen(png([b"\xa0"], 4, 1, GREY)) == [greys(255, 0, 255, 0)]
    assert seen(b"P4 4 1 \xa0") == [greys(0, 255, 0, 255)]  # PBM's 1 is black


def test_inks_and_other_colour_spaces() -> None:
    cyan, magenta, yellow, black = 20, 255, 250, 30
    red = [round((255 - ink) * (255 - black) / 255) for ink in (cyan, magenta, yellow)]
    inks = Image.new("CMYK", (16, 16), (cyan, magenta, yellow, black))
    assert seen(saved(inks, "TIFF"))[0][0] == red
    # Adobe's programs, and Pillow, store the complement of the inks in JPEG, and say so.
    jpeg = saved(inks, "JPEG", quality=100)
    assert b"Adobe" in jpeg
    assert np.abs(np.subtract(seen(jpeg)[3][3], red)).max() <= 2
    lightness, a, b = 60, 30, -20
    lab = struct.pack("<Bbb", lightness * 255 // 100, a, b)
    found = seen(tiff(lab, 1, 8, kind=8, samples=3))[0][0]
    assert np.abs(np.subtract(found, srgb_of_lab(lightness, a, b))).max() <= 1


def srgb_of_lab(lightness: float, a: float, b: float) -> np.ndarray:
    """CIE 15 and IEC 61966-2-1, with Bradford's adaptation from D50 to D65."""
    y = (lightness + 16) / 116
    steps = np.array([y + a / 500, y, y - b / 200])
    xyz = np.where(steps > 6 / 29, steps**3, (steps - 16 / 116) * 3 * (6 / 29) ** 2)
    linear = np.array(
        [
            [3.1338561, -1.6168667, -0.4906146],
            [-0.9787684, 1.9161415, 0.0334540],
            [0.0719453, -0.2289914, 1.4052427],
        ]
    ) @ (xyz * [0.9642, 1, 0.8249])
    curved = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    colour: np.ndarray = np.rint(255 * curved)
    return colour


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_the_orientation_of_the_camera_is_applied(
    kind: str, orientation: int, upright: Callable[[np.ndarray], np.ndarray]
) -> None:
    # Three by two fields of 16 pixels, each of its own shade.
    fields = np.kron(np.arange(0, 240, 40).reshape(2, 3), np.ones((16, 16))).astype(np.uint8)
    stored = np.repeat(fields[..., None], 3, axis=2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(saved(Image.fromarray(stored), kind, exif=exif), "here")
    found = np.asarray(decoded)
    expected = upright(stored)
    assert found.shape == expected.shape
    assert as_seen(decoded) is decoded
    assert np.abs(found.astype(int) - expected).max() <= 4


def test_16_bit_shades_are_turned_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.array([[0, 65535]], dtype=np.uint16))
    assert seen(saved(image, "PNG", exif=exif)) == [greys(0), greys(255)]


def test_a_damaged_note_on_the_camera_leaves_the_picture_as_it_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.new("RGB", (16, 8), "red"), "JPEG", exif=exif)
    where = data.index(b"Exif\0\0") + 6
    decoded = decode(data[:where] + b"\xff" * 12 + data[where + 12 :], "here")
    assert decoded.size == (16, 8)


def test_another_damaged_note_does_not_hinder_the_orientation() -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker of cameras"
    exif[0x0112] = 6
    data = saved(Image.new("RGB", (16, 8), "red"), "JPEG", exif=exif)
    text, fractions = struct.pack(">HHI", 0x010F, 2, 17), struct.pack(">HHI", 0x010F, 5, 2)
    assert text in data  # the maker's name, said to be two fractions
    assert decode(data.replace(text, fractions), "here").size == (8, 16)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_shows_its_first_frame(kind: str) -> None:
    first, second = (Image.new("RGB", (4, 4), name) for name in ("red", "blue"))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(first, kind, save_all=True, append_images=[second], **options)
    assert seen(data) == [[[255, 0, 0]] * 4] * 4


def test_ordinary_rgb_stays_as_it_is() -> None:
    values = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    assert as_seen(image) is image
    assert seen(saved(image, "PNG")) == values.tolist()
    # Caches of earlier versions serve as long as this hash is the same.
    digest = image_digest(Image.new("RGB", (2, 1), (1, 2, 3))).hex()
    assert digest == "ed8ad95c7bba01483173ab3be778da80"
    opaque = image.copy()
    opaque.putalpha(255)
    assert image_digest(opaque) == image_digest(image)


def test_a_large_picture_is_refused_before_it_is_decoded() -> None:
    side = 8193
    assert (side - 1) ** 2 == LARGEST_PICTURE
    for size in (side, 20_000, 100_000):
        header = struct.pack(">IIBBBBB", size, size, 8, COLOUR, 0, 0, 0)
        start = png([b"\0\0\0"], 1, 8, COLOUR)
        data = start[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + start[33:]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(
                UserError, match=r"^here: the picture has more than 67,108,864 pixe"
            ):
                decode(data, "here")


def test_a_tile_larger_than_its_picture_counts() -> None:
    assert seen(tiff(bytes(256), 1, 8, tile=16)) == [greys(0)]
    with pytest.raises(UserError, match="more than 67,108,864 pixels"):
        decode(tiff(bytes(256), 1, 8, tile=45_008), "here")


def test_no_format_that_starts_a_program_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    postscript = saved(Image.new("RGB", (4, 4)), "EPS")
    with pytest.raises(UserError, match=r"^here is no picture: it is damaged, or in none of the"):
        decode(postscript, "here")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of git-lfs"),
        (b"\n<!DOCTYPE html><html>", "an HTML page"),
        (b"no picture at all", "in none of the formats PNG, JPEG"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=f"^here is no picture: .*{message}"):
        decode(data, "here")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF"])
def test_a_file_that_is_cut_short_is_refused_in_one_line(kind: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    data = saved(Image.fromarray(values), kind)
    for length in (len(data) // 2, len(data) // 8, 20):
        message = refusal(data[:length])
        assert message.startswith("here")
        assert message.isprintable()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF"])
def test_a_damaged_file_gives_a_picture_or_one_line(kind: str) -> None:
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    values = random.integers(0, 256, (20, 24, 3), dtype=np.uint8)
    options = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF") else {}
    data = saved(Image.fromarray(values), kind, **options)
    for reach in [48] * 60 + [len(data)] * 60:
        damaged = bytearray(data)
        for place in random.integers(0, min(reach, len(data)), 2):
            damaged[place] = random.integers(0, 256)
        assert refusal(bytes(damaged)).isprintable()


def test_megabytes_of_text_are_refused_in_one_line() -> None:
    text = (b"zTXt", b"key\0\0" + zlib.compress(bytes(5_000_000)))
    with pytest.raises(UserError, match=r"^here: the picture cannot be decoded: Decompressed data"):
        decode(png([b"\0\0\0"], 1, 8, COLOUR, text), "here")


def test_every_format_is_one_that_pillow_knows() -> None:
    Image.init()
    assert set(pictures.FORMATS) <= set(Image.OPEN)
