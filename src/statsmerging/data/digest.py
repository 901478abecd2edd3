"""The hash by which equal images are found."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

from statsmerging.data.pictures import as_seen

#: Bytes of the hash.
DIGEST_BYTES = 16


def image_digest(image: Image.Image) -> bytes:
    """Hash of an image's size and RGB pixels."""
    pixels = np.asarray(as_seen(image))
    digest = hashlib.blake2b(f"{pixels.shape}".encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()
