"""How crops are kept: JPEG, quality 95, chroma at full resolution."""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8

from datamodules.batch import CROP_UNITS

JPEG_QUALITY = 95

# libjpeg scales in the frequency domain while decoding: pixel centres stay as in x' = (x + 1/2) k - 1/2
_REDUCED = (128, 64)

Image = UInt8[np.ndarray, "H W 3"]


def encode_crop(crop: Image, quality: int = JPEG_QUALITY) -> bytes:
    """JPEG file of an RGB crop; 4:4:4, for lips and skin differ more in colour than in light."""
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling]
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), options)
    assert done
    return encoded.tobytes()


def decode_crop(jpeg: UInt8[np.ndarray, "J"], size: int = CROP_UNITS) -> Image:
    """RGB crop of a JPEG file, `size` px a side; halved and quartered sizes are decoded directly.

    By libjpeg-turbo itself: OpenCV's pixels, in four fifths of its time.

    Raises:
        ValueError: it is no JPEG file, or a damaged one.
    """
    decoded = size if size in _REDUCED else CROP_UNITS
    image = simplejpeg.decode_jpeg(jpeg, min_height=decoded, min_width=decoded, min_factor=2)
    if image.shape[0] != size:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if size < CROP_UNITS else cv2.INTER_CUBIC)
    return image
