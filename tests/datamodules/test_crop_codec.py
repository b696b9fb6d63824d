"""Crops decode to what OpenCV makes of the same file."""

import cv2
import numpy as np
import pytest

from datamodules.crop_codec import decode_crop, encode_crop

from .test_clip_store import photo

FLAGS = {256: cv2.IMREAD_COLOR, 128: cv2.IMREAD_REDUCED_COLOR_2, 64: cv2.IMREAD_REDUCED_COLOR_4}


@pytest.mark.parametrize("size", [256, 128, 64])
def test_pixels_are_those_of_opencv(size):
    jpeg = np.frombuffer(encode_crop(photo(3)), np.uint8)
    expected = cv2.cvtColor(cv2.imdecode(jpeg, FLAGS[size]), cv2.COLOR_BGR2RGB)
    assert np.abs(decode_crop(jpeg, size).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", [32, 96, 192, 300])
def test_other_sizes_are_resized_from_all_pixels(size):
    jpeg = np.frombuffer(encode_crop(photo(3)), np.uint8)
    how = cv2.INTER_AREA if size < 256 else cv2.INTER_CUBIC
    assert np.array_equal(decode_crop(jpeg, size), cv2.resize(decode_crop(jpeg), (size, size), interpolation=how))


def test_what_is_no_whole_jpeg_file_is_an_error():
    jpeg = encode_crop(photo(3))
    for content in (b"no picture at all", jpeg[: len(jpeg) // 2]):
        with pytest.raises(ValueError, match=r"JPEG|Premature|jpeg"):
            decode_crop(np.frombuffer(content, np.uint8))
