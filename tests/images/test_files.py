import imagecodecs
import numpy as np
import PIL.Image
import pytest

from stp.images.files.opening import open_file as open_arrays
from stp.images.levels import open_array

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)


def open_file(path):
    arrays, um_per_px = open_arrays(path)
    return [open_array(array) for array in arrays], um_per_px


def whole(level):
    return level.read(0, level.shape[0], 0, level.shape[1])


@pytest.mark.parametrize(
    ("mode", "ending"),
    [
        ("RGB", "png"),
        ("RGBA", "png"),
        ("P", "png"),
        ("L", "png"),
        ("LA", "png"),
        ("RGB", "jpg"),
        ("L", "jpg"),
    ],
)
def test_png_and_jpeg_of_any_8_bit_mode_become_rgb(mode, ending, tmp_path):
    image = PIL.Image.fromarray(RGB).convert(mode)
    image.save(tmp_path / f"a.{ending}")
    ((level,), um_per_px) = open_file(tmp_path / f"a.{ending}")
    assert um_per_px is None
    saved = np.asarray(PIL.Image.open(tmp_path / f"a.{ending}").convert("RGB"), dtype=int)
    assert saved.std() > 10
    assert np.abs(whole(level) - saved).max() <= (0 if ending == "png" else 3)


def test_16_bit_png_is_refused_by_name(tmp_path):
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(RGB.astype(np.uint16) * 256))
    ((level,), _) = open_file(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png has uint16 pixels; convert it to 8 bits"):
        whole(level)


@pytest.mark.filterwarnings(
    "ignore::PIL.Image.DecompressionBombWarning"
)  # by PIL in this test, not by stp
def test_a_real_jpeg_is_not_decoded_before_it_is_read(real, monkeypatch):
    decoded = []
    decode = imagecodecs.imread
    monkeypatch.setattr(imagecodecs, "imread", lambda path: decoded.append(path) or decode(path))
    path = real("her2st", "C6.jpg")
    ((level,), _) = open_file(path)
    with PIL.Image.open(path) as small:
        assert level.shape == small.size[::-1]
        small.draft("RGB", (small.width // 8, small.height // 8))
        expected = np.asarray(small)[625:700, 500:625].mean(axis=(0, 1))
    assert decoded == []
    window = level.read(5000, 5600, 4000, 5000)
    assert decoded == [str(path)]
    assert window.shape == (600, 1000, 3)
    np.testing.assert_allclose(window.mean(axis=(0, 1)), expected, atol=0.5)
    assert expected[[0, 2]].min() > expected[1] + 5  # the order of the channels shows


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_truncated_file_is_refused_when_it_is_opened(name, share, tmp_path):
    path = tmp_path / name
    large = np.tile(RGB, (8, 8, 1))
    PIL.Image.fromarray(large).save(path)
    open_file(path)
    cut(path, share)
    with pytest.raises(ValueError, match="is the file complete|no image that can be read") as error:
        open_file(path)
    assert str(path) in str(error.value)


def test_a_picture_too_large_to_decode_whole(tmp_path, monkeypatch):
    PIL.Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="too large for a JPEG or PNG.* make it a tiled TIFF"):
        open_file(tmp_path / "a.png")
    monkeypatch.setattr(
        PIL.Image, "MAX_IMAGE_PIXELS", 2000
    )  # PIL's own warning, below its error: not passed on
    assert open_file(tmp_path / "a.png")[0][0].shape == (40, 60)
