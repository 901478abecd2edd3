"""Pictures: decoded, and resized to the geometry of a backbone."""

from __future__ import annotations

import hashlib
import math
import warnings
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, resize

from statsmerging.errors import UserError, first_line, printable
from statsmerging.store.hashing import json_sha256

#: Bytes of the hash.
DIGEST_BYTES = 16


def image_digest(image: Image.Image) -> bytes:
    """Hash of an image's size and RGB pixels."""
    pixels = np.asarray(as_seen(image))
    digest = hashlib.blake2b(f"{pixels.shape}".encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


#: What pictures are read as, in the fingerprint of every source that is decoded here: another value
#: makes images, labels and experts of such sources anew.
DECODER = "as people see them, 1"


#: Pillow's names of the formats that are read. Those that start a program (EPS), draw (WMF), or
#: hold no picture for people (HDF5, GRIB) are not among them.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")


#: Pixels of the largest picture: 256 MiB in memory, at Pillow's four bytes for one.
LARGEST_PICTURE = 1 << 26


#: Value of white in pixels of 16 bits.
_WHITE_OF_16_BITS = 65535


#: EXIF's orientation → what makes the picture upright (`ImageOps.exif_transpose` writes the other
#: notes anew, and fails where one of them is damaged).
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
    """The picture in a file's bytes: 8-bit RGB, as ``as_seen`` says; the first frame of several.

    Args:
        data: the whole file.
        where: what the message of an error names: the file, or the data set and the row.

    Raises:
        UserError: no picture, a format that is not read, more than ``LARGEST_PICTURE`` pixels,
            a file that is cut short or damaged, or pixels that cannot be shown.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, with text of the file's
            image = Image.open(BytesIO(data), formats=FORMATS)
            if _pixels(image) > LARGEST_PICTURE:
                raise Image.DecompressionBombError
            if image.format == "PNG" and "transparency" in image.info:
                _match_depth(image, bits=data[24])
            return as_seen(image)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{where} is no picture: {_what_it_is(data)}") from error
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{where}: the picture has more than {LARGEST_PICTURE:,} pixels, the most that are "
            "read: make it smaller"
        ) from error
    except Exception as error:
        # Pillow lets through whatever its readers of a damaged file meet.
        raise UserError(
            f"{where}: the picture cannot be decoded: {printable(first_line(error))}"
        ) from error


def as_seen(image: Image.Image) -> Image.Image:
    """The image in 8-bit RGB, as a viewer on a white page shows it.

    Shades of 16 bits are scaled by their range, 0 to 65535, whatever part of it they use (12 bits
    by 4095 where the file says so); floating-point ones from [0, 1]. What is transparent lets white
    through, and the camera's orientation is applied. Colour profiles are not, as nowhere in the
    field. An upright RGB image stays as it is.

    Raises:
        UserError: floating-point values beyond [0, 1], signed or 32-bit integers: what is white?
    """
    image.load()
    shades = _black_and_white(image)  # before the turn, which forgets what the file says of them
    image = _upright(image)
    if shades is not None:
        image = _eight_bits(image, *shades)
    if image.has_transparency_data:
        image = _over_white(image)
    return _converted(image, "RGB")


def _pixels(image: Image.Image) -> int:
    """Pixels that a decoder holds: those of the picture, or of a TIFF's tile that exceeds it."""
    width, height = (
        _tiff_tag(image, tag) or 0 for tag in (ExifTags.Base.TileWidth, ExifTags.Base.TileLength)
    )
    return max(image.width * image.height, width * height)


def _match_depth(image: Image.Image, bits: int) -> None:
    """Give PNG's transparent shade or colour the depth that Pillow gives to the pixels."""
    clear = image.info["transparency"]
    if image.mode == "L":
        image.info["transparency"] = clear * 255 // (2**bits - 1)
    elif image.mode == "RGB" and bits == 16:
        image.info["transparency"] = tuple(value >> 8 for value in clear)


def _black_and_white(image: Image.Image) -> tuple[float, float] | None:
    """Values of black and of white where pixels are no bytes."""
    if image.mode.startswith("I;16"):
        white = float(_WHITE_OF_16_BITS)
        if _tiff_tag(image, ExifTags.Base.BitsPerSample) == (12,):
            white = 4095.0
    elif image.mode == "I":
        if image.format != "PPM":  # Pillow scales PGM's shades of more than 8 bits to 16
            raise UserError(
                "the picture has signed or 32-bit integers, of which nobody knows what white is: "
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
    return image.tag_v2.get(tag) if isinstance(image, TiffImageFile) else None


def _eight_bits(image: Image.Image, black: float, white: float) -> Image.Image:
    values = np.array(image, dtype=np.float32)
    low, high = min(black, white), max(black, white)
    if not (low <= values.min() and values.max() <= high):  # NaN is not within either
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


def _over_white(image: Image.Image) -> Image.Image:
    image = _converted(image, "RGBA")
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=image.getchannel("A"))
    return page


def _converted(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # which copies in any case


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        # Many photographs have damaged notes on the camera, and viewers show them all the same.
        turn = None
    if turn is None:
        return image
    turned = image.transpose(turn)
    # Without the notes, so that it is not turned again.
    turned.info = {name: turned.info[name] for name in ("transparency",) if name in turned.info}
    return turned


def _what_it_is(data: bytes) -> str:
    start = data[:256].lstrip().lower()
    if not data:
        return "the file is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of git-lfs; `git lfs pull` fetches the file itself"
    if start.startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page, so the download went wrong"
    return f"it is damaged, or in none of the formats {', '.join(FORMATS)}"


Interpolation = Literal["bilinear", "bicubic", "lanczos"]


CropMode = Literal["center", "squash"]


#: The whole shorter side: what keys of caches mean that say nothing of a crop.
_WHOLE = {"crop_ratio": 1.0, "crop_mode": "center"}


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing a checkpoint was trained with, as timm and open_clip do it.

    Attributes:
        image_size: side of the square input, in pixels.
        mean: per channel, for images scaled to [0, 1].
        std: per channel, for images scaled to [0, 1].
        interpolation: filter of the resize.
        crop_ratio: side of the input as a share of the resized image's shorter side.
        crop_mode: ``center`` keeps the proportions of the image, ``squash`` makes it a square.
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bicubic"
    crop_ratio: float = 1.0
    crop_mode: CropMode = "center"

    def resize(self, image: Image.Image) -> np.ndarray:
        """Resize, then cut the square out of the middle: 3 × S × S, uint8, RGB.

        Raises:
            UserError: an image so narrow that, resized, it would be larger than any that is read.
        """
        image = as_seen(image)
        side = math.floor(self.image_size / self.crop_ratio)
        keeps = self.crop_mode == "center"
        if side**2 * (max(image.size) / min(image.size) if keeps else 1) > LARGEST_PICTURE:
            raise UserError(
                f"the picture of {image.width} × {image.height} pixels is too large when it is "
                f"{side} pixels across"
            )
        size = [side] if keeps else [side, side]
        scaled = resize(image, size, InterpolationMode(self.interpolation))
        square = center_crop(scaled, [self.image_size])
        return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 N × 3 × S × S → float32, zero mean and unit deviation in the checkpoint's terms."""
        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1)
        return (images.float() / 255 - mean) / std

    @property
    def geometry_key(self) -> str:
        """Hash of what determines the resized pixels (normalisation does not)."""
        return json_sha256([self.image_size, self.interpolation, *self._crop.values()])

    @property
    def key(self) -> str:
        """Hash of the whole preprocessing."""
        values = {name: value for name, value in asdict(self).items() if name not in _WHOLE}
        return json_sha256({**values, **self._crop})

    @property
    def _crop(self) -> dict[str, Any]:
        crop = {name: getattr(self, name) for name in _WHOLE}
        return {} if crop == _WHOLE else crop
