"""JPEG and PNG files: their colors, their size, and what they say about their orientation."""

import struct
import zlib

import imagecodecs
import numpy as np
import PIL.Image
import pytest

from stp.images.files.opening import open_file
from stp.images.pyramid import ImagePyramid

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
PINK = np.full((40, 60, 3), (200, 110, 170), np.uint8)


def whole(path):
    pyramid = ImagePyramid.from_path(path, um_per_px=1.0)
    height, width = pyramid.levels[0].shape
    return pyramid.levels[0].read(0, height, 0, width)


@pytest.mark.parametrize(
    ("mode", "ending"), [("RGB", "png"), ("RGBA", "png"), ("P", "png"), ("RGB", "jpg")]
)
def test_png_and_jpeg_in_color_become_rgb(mode, ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    PIL.Image.fromarray(RGB).convert(mode).save(path)
    assert open_file(path)[1] is None
    with PIL.Image.open(path) as picture:
        saved = np.asarray(picture.convert("RGB"), dtype=int)
    assert saved.std() > 10
    assert np.abs(whole(path) - saved).max() <= (0 if ending == "png" else 3)


@pytest.mark.parametrize("color", [(200, 110, 170), (255, 0, 0), (0, 0, 255)], ids=str)
@pytest.mark.parametrize("options", [{}, {"keep_rgb": True}], ids=["YCbCr", "RGB"])
def test_jpeg_has_the_right_color(options, color, tmp_path):
    pixels = np.full((40, 60, 3), color, np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95, **options)
    assert np.abs(whole(tmp_path / "a.jpg") - pixels.astype(int)).max() <= 3


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grayscale_is_refused(mode, ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    mode = "L" if ending == "jpg" else mode
    PIL.Image.fromarray(RGB).convert(mode).save(path)
    with pytest.raises(ValueError, match=rf"a\.{ending} is grayscale; pass the H&E image"):
        open_file(path)


def test_transparent_pixels_are_white(tmp_path):
    alpha = np.zeros((40, 60, 1), np.uint8)
    alpha[:, 20:40] = 51
    alpha[:, 40:] = 255
    PIL.Image.fromarray(np.dstack([PINK, alpha])).save(tmp_path / "a.png")
    pixels = whole(tmp_path / "a.png")
    assert (pixels[:, :20] == 255).all()
    assert (pixels[:, 20:40] == (244, 226, 238)).all()  # a fifth of the way from white
    assert (pixels[:, 40:] == PINK[:, 40:]).all()


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_a_transparent_color_is_white(mode, tmp_path):
    pixels = PINK.copy()
    pixels[:, :20] = (0, 0, 0)
    picture = PIL.Image.fromarray(pixels)
    transparency = (0, 0, 0)
    if mode == "P":
        picture = picture.quantize(2)
        transparency = picture.getpixel((0, 0))
    picture.save(tmp_path / "a.png", transparency=transparency)
    pixels = whole(tmp_path / "a.png")
    assert (pixels[:, :20] == 255).all()
    assert (pixels[:, 20:] == PINK[:, 20:]).all()


def test_cmyk_is_refused(tmp_path):
    PIL.Image.fromarray(PINK).convert("CMYK").save(tmp_path / "cmyk.jpg")
    four = np.dstack([PINK, PINK[..., 0]])
    ycck = imagecodecs.jpeg8_encode(four, colorspace="CMYK", outcolorspace="YCCK")
    (tmp_path / "ycck.jpg").write_bytes(ycck)
    for name in ("cmyk.jpg", "ycck.jpg"):
        with pytest.raises(ValueError, match=f"the colors of .*{name} are CMYK; convert the image"):
            open_file(tmp_path / name)


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_png_is_refused_by_name(channels, tmp_path):
    pixels = np.full((40, 60, channels), 30_000, np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    with pytest.raises(ValueError, match=r"a\.png has uint16 pixels; convert it to 8 bits"):
        open_file(tmp_path / "a.png")


def save_rotated(path, orientation):
    tags = PIL.Image.Exif()
    tags[274] = orientation
    PIL.Image.fromarray(PINK).save(path, exif=tags)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_a_rotated_picture_is_refused(ending, orientation, tmp_path):
    path = tmp_path / f"a.{ending}"
    save_rotated(path, orientation)
    with pytest.raises(ValueError, match=rf"by its EXIF orientation \({orientation}\).*upright"):
        open_file(path)


def test_exif_at_the_end_of_a_png_counts(tmp_path):
    path = tmp_path / "a.png"
    save_rotated(path, 6)
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + struct.unpack(">I", content[start : start + 4])[0]
    last = content.index(b"IEND") - 4
    path.write_bytes(content[:start] + content[end:last] + content[start:end] + content[last:])
    with pytest.raises(ValueError, match=r"by its EXIF orientation \(6\)"):
        open_file(path)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_an_upright_picture_with_exif_is_read(ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    save_rotated(path, 1)
    assert np.abs(whole(path) - PINK.astype(int)).max() <= 3


@pytest.mark.filterwarnings(
    "ignore::PIL.Image.DecompressionBombWarning"
)  # by PIL in this test, not by stp
def test_a_real_jpeg_is_not_decoded_before_it_is_read(real, monkeypatch):
    decoded = []
    decode = imagecodecs.imread
    monkeypatch.setattr(imagecodecs, "imread", lambda path: decoded.append(path) or decode(path))
    path = real("her2st", "C6.jpg")
    level = ImagePyramid.from_path(path, um_per_px=0.68).levels[0]
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


def chunk(name, content):
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png_of_size(path, height, width):
    """Write the header and the end of a PNG of any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def jpeg_of_size(path, height, width):
    """Write a JPEG whose header has another size."""
    PIL.Image.fromarray(PINK).save(path, format="JPEG")
    size = struct.pack(">HH", 40, 60)
    content = path.read_bytes()
    assert content.count(size) == 1
    path.write_bytes(content.replace(size, struct.pack(">HH", height, width)))
    return path


@pytest.mark.parametrize("make", [png_of_size, jpeg_of_size])
def test_a_large_picture_is_opened_with_a_warning(make, tmp_path):
    path = make(tmp_path / "a", 40_000, 50_000)
    with pytest.warns(UserWarning, match=r"2000 megapixels, .* 6\.0 GB of memory.* tiled TIFF"):
        ((array,), _) = open_file(path)
    assert array.shape == (40_000, 50_000, 3)


@pytest.mark.parametrize("make", [png_of_size, jpeg_of_size])
def test_a_picture_too_large_to_decode_whole_is_refused(make, tmp_path):
    path = make(tmp_path / "a", 40_001, 50_000)
    with pytest.raises(ValueError, match="too large for a JPEG or PNG.* make it a tiled TIFF"):
        open_file(path)


@pytest.mark.parametrize("make", [png_of_size, jpeg_of_size])
def test_a_usual_picture_gives_no_warning(make, tmp_path, recwarn):
    path = make(tmp_path / "a", 12_000, 14_000)
    open_file(path)
    assert not [warning for warning in recwarn if warning.category is UserWarning]
    assert not [warning for warning in recwarn if "decompression bomb" in str(warning.message)]


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
