"""Files that decoders read differently, or only in part, without a word."""

import io

import numpy as np
import pytest
from PIL import Image
from small_files import image, refused, write, write_small_gray

from uda_jax.data.images import read_image, read_raw_label


def jpeg(height, width, **options):
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


THUMBNAIL = jpeg(8, 8)
BEHIND = {
    "nothing": b"",
    "zeros": bytes(9000),
    "an image": THUMBNAIL,
    "start of a scan": b"\xff\xda" + THUMBNAIL * 20,
}


@pytest.fixture(params=[False, True], ids=["baseline", "progressive"])
def photo(request):
    """With a thumbnail in front, as cameras write it."""
    exif = b"Exif\0\0" + THUMBNAIL
    return jpeg(40, 60, progressive=request.param, exif=exif)


@pytest.mark.parametrize("behind", BEHIND)
def test_jpegs_with_data_behind_their_end(tmp_path, photo, behind):
    path = tmp_path / "a.jpg"
    path.write_bytes(photo + BEHIND[behind])
    expected = np.array(Image.open(io.BytesIO(photo)))
    assert np.abs(read_image(path).astype(int) - expected).max() <= 2  # decoders


def test_jpegs_cut_off_behind_their_thumbnail(tmp_path, photo):
    path = tmp_path / "a.jpg"
    start = photo.index(THUMBNAIL)
    end = start + len(THUMBNAIL)
    assert photo[:end].endswith(b"\xff\xd9")
    for length in (2, start + 9, end - 1, end, end + 30, end + 999, len(photo) - 1):
        # Zeros, as an interrupted copy leaves them, satisfy OpenCV's decoder.
        for behind in (b"", bytes(9000)):
            path.write_bytes(photo[:length] + behind)
            refused(lambda: read_image(path), str(path), "cut off")


def test_pngs_with_data_behind_their_end(tmp_path):
    path = write(tmp_path / "a.png", image())
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(9000))
    assert read_image(path).shape == (4, 6, 3)
    for cut in (whole[:-12] + bytes(9000), whole[:-1], whole[:20], whole[:8]):
        path.write_bytes(cut)
        refused(lambda: read_image(path), str(path), "cut off")


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_labels_with_fewer_than_8_bits(tmp_path, depth):
    label = (np.arange(60, dtype=np.uint8) % 2**depth).reshape(4, 15)
    path = write_small_gray(tmp_path / "a.png", label, depth, palette=True)
    np.testing.assert_array_equal(read_raw_label(path), label)
    write_small_gray(path, label, depth)
    stretched = np.array(Image.open(path).convert("L"))
    assert stretched.max() == 255  # what would have been the ids
    refused(lambda: read_raw_label(path), str(path), f"{depth}-bit", "8-bit PNG")
