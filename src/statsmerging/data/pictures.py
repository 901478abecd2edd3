"""Pictures: decoded, and resized to the geometry of a backbone."""

from __future__ import annotations

import hashlib
import math
import warnings
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from statsmerging.choices import CropMode, Interpolation
from statsmerging.errors import UserError, first_line, printable
from statsmerging.store.hashing import json_sha256

#: Part of the fingerprint of every source that is decoded here. Change it when the decoded pixels
#: change: images, labels and experts of such sources are then computed anew.
DECODER = "as people see them, 1"

#: Pillow's names of the formats that are read. Formats that start a program (EPS), draw (WMF), or
#: contain no ordinary pictures (HDF5, GRIB) are excluded.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")

#: Pixels of the largest picture: 256 MiB in memory, at Pillow's four bytes per pixel.
LARGEST_PICTURE = 1 << 26

#: Value of white in pixels of 16 bits.
_WHITE_OF_16_BITS = 65535

#: EXIF's orientation → the operation that makes the picture upright. `ImageOps.exif_transpose`
#: also rewrites the other EXIF entries, and fails if one of them is damaged.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, where: str) -> Image.Image:
    """The picture in a file's bytes, 8-bit RGB, converted by ``as_seen``; the first of many frames.

    Args:
        data: the whole file.
        where: the file, or the data set and the row, for messages.

    Raises:
        UserError: no picture, a format that is not read, more than ``LARGEST_PICTURE`` pixels,
            a file that is cut short or damaged, or pixels that cannot be shown.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata, with text from the file
            image = Image.open(BytesIO(data), formats=FORMATS)
            # The decoder holds the picture, or one tile of a TIFF, which may be larger.
            width = _tiff_tag(image, ExifTags.Base.TileWidth) or 0
            height = _tiff_tag(image, ExifTags.Base.TileLength) or 0
            if max(image.width * image.height, width * height) > LARGEST_PICTURE:
                raise Image.DecompressionBombError
            if image.format == "PNG" and "transparency" in image.info:
                _match_depth(image, bits=data[24])
            return as_seen(image)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{where} is no picture: {_likely_content(data)}") from error
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{where}: the picture has more than {LARGEST_PICTURE:,} pixels, the most that are "
            "read: make it smaller"
        ) from error
    except Exception as error:
        # Pillow does not wrap the errors of its readers of damaged files.
        raise UserError(
            f"{where}: the picture cannot be decoded: {printable(first_line(error))}"
        ) from error


def as_seen(image: Image.Image) -> Image.Image:
    """The image in 8-bit RGB, as a viewer shows it on a white page.

    Values of 16 bits are scaled from their full range, 0 to 65535, whatever part of it is used
    (from 0 to 4095 if the file declares 12 bits); floating-point values are scaled from [0, 1].
    Transparent pixels show white, and the camera's orientation is applied. Colour profiles are
    ignored, as is usual in the field. An upright RGB image is returned unchanged.

    Raises:
        UserError: floating-point values beyond [0, 1], or signed or 32-bit integers, whose white
            is unknown.
    """
    image.load()
    limits = _black_and_white(image)  # before the turn, which drops the file's description
    image = _upright(image)
    if limits is not None:
        image = _eight_bits(image, *limits)
    if image.has_transparency_data:
        image = _converted(image, "RGBA")
        page = Image.new("RGB", image.size, "white")
        page.paste(image, mask=image.getchannel("A"))
        image = page
    return _converted(image, "RGB")


def _match_depth(image: Image.Image, bits: int) -> None:
    """Scale PNG's transparent grey level or colour to the depth that Pillow gives to the pixels."""
    clear = image.info["transparency"]
    if image.mode == "L":
        image.info["transparency"] = clear * 255 // (2**bits - 1)
    elif image.mode == "RGB" and bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _black_and_white(image: Image.Image) -> tuple[float, float] | None:
    """Values of black and of white; ``None`` if pixels are bytes."""
    if image.mode.startswith("I;16"):
        white = float(_WHITE_OF_16_BITS)
        if _tiff_tag(image, ExifTags.Base.BitsPerSample) == (12,):
            white = 4095.0
    elif image.mode == "I":
        if image.format != "PPM":  # Pillow scales PGM's values of more than 8 bits to 16
            raise UserError(
                "the picture has signed or 32-bit integers, whose value of white is unknown: "
                "store it with 8 or 16 bits"
            )
        white = float(_WHITE_OF_16_BITS)
    elif image.mode == "F":
        white = 1.0
    else:
        return None
    is_inverted = _tiff_tag(image, ExifTags.Base.PhotometricInterpretation) == 0
    return (white, 0.0) if is_inverted else (0.0, white)


def _tiff_tag(image: Image.Image, tag: int) -> Any:
    """The value of a tag, of whatever type the file gives it; ``None`` if there is none."""
    return image.tag_v2.get(tag) if isinstance(image, TiffImageFile) else None


def _eight_bits(image: Image.Image, black: float, white: float) -> Image.Image:
    """The greyscale image with these limits scaled to 0 and 255."""
    values = np.array(image, dtype=np.float32)
    low, high = min(black, white), max(black, white)
    if not (low <= values.min() and values.max() <= high):  # NaN fails both comparisons
        raise UserError(
            f"the picture has floating-point values from {values.min():g} to {values.max():g}; "
            "expected are those from 0 (black) to 1 (white)"
        )
    clear = image.info.get("transparency")
    opaque = None if clear is None else Image.fromarray((values != clear) * np.uint8(255))
    values -= black
    values *= 255 / (white - black)
    grey = Image.fromarray(np.rint(values, out=values).astype(np.uint8))
    if opaque is not None:
        grey.putalpha(opaque)
    return grey


def _converted(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # ``convert`` always copies


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation demands."""
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        # Many photographs have damaged EXIF data, and viewers show them all the same.
        turn = None
    if turn is None:
        return image
    turned = image.transpose(turn)
    # The EXIF data is dropped, so that the image is not turned again.
    turned.info = {name: turned.info[name] for name in ("transparency",) if name in turned.info}
    return turned


def _likely_content(data: bytes) -> str:
    """What a file that is no picture seems to be, for the message."""
    start = data[:256].lstrip().lower()
    if not data:
        return "the file is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of git-lfs; `git lfs pull` fetches the file itself"
    if start.startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page, so the download went wrong"
    return f"it is damaged, or in none of the formats {', '.join(FORMATS)}"


#: Bytes of an image's digest.
DIGEST_BYTES = 16


def image_digest(image: Image.Image) -> bytes:
    """Hash of an image's size and RGB pixels."""
    pixels = np.asarray(as_seen(image))
    digest = hashlib.blake2b(f"{pixels.shape}".encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


#: The default crop, of the whole shorter side. It is left out of cache keys, so that keys made
#: before there was a choice stay valid.
_DEFAULT_CROP: dict[str, float | str] = {"crop_ratio": 1.0, "crop_mode": "center"}


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing a checkpoint was trained with, as timm and open_clip do it.

    Attributes:
        image_size: side of the square input, in pixels.
        mean: per channel, for images scaled to [0, 1].
        std: per channel, for images scaled to [0, 1].
        interpolation: filter of the resize.
        crop_ratio: side of the input, relative to the shorter side of the resized image.
        crop_mode: ``center`` keeps the image's proportions, ``squash`` makes it a square.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bicubic"
    crop_ratio: float = 1.0
    crop_mode: CropMode = "center"

    def resize(self, image: Image.Image) -> np.ndarray:
        """Resize, then crop the central square: 3 × S × S, uint8, RGB.

        Raises:
            UserError: a narrow image that would exceed ``LARGEST_PICTURE`` pixels when resized.
        """
        image = as_seen(image)
        side = math.floor(self.image_size / self.crop_ratio)
        keeps_proportions = self.crop_mode == "center"
        elongation = max(image.size) / min(image.size) if keeps_proportions else 1
        if side**2 * elongation > LARGEST_PICTURE:
            raise UserError(
                f"the picture of {image.width} × {image.height} pixels is too large when it is "
                f"{side} pixels across"
            )
        size = [side] if keeps_proportions else [side, side]
        scaled = resize(image, size, InterpolationMode(self.interpolation))
        square = center_crop(scaled, [self.image_size])
        return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))

    def normalise(self, images: Tensor) -> Tensor:
        """uint8, N × 3 × S × S → float32: scaled to [0, 1], minus ``mean``, divided by ``std``."""
        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1)
        return (images.float() / 255 - mean) / std

    @property
    def geometry_key(self) -> str:
        """Hash of all that determines the resized pixels; normalisation does not."""
        return json_sha256([self.image_size, self.interpolation, *self._crop.values()])

    @property
    def key(self) -> str:
        """Hash of the whole preprocessing."""
        values = {name: value for name, value in asdict(self).items() if name not in _DEFAULT_CROP}
        return json_sha256({**values, **self._crop})

    @property
    def _crop(self) -> dict[str, float | str]:
        crop = {name: getattr(self, name) for name in _DEFAULT_CROP}
        return {} if crop == _DEFAULT_CROP else crop
