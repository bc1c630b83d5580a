"""Colors of TIFF files and arrays: each kind becomes the RGB that was meant, or is refused."""

import dask.array
import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
import zarr

from stp.images.files.colors import on_white, ycbcr_to_rgb
from stp.images.files.opening import open_file
from stp.images.levels import open_array
from stp.images.pyramid import ImagePyramid

TILES = {"tile": (32, 32)}
RNG = np.random.default_rng(0)
# Smooth colors of H&E.
Y, X = np.mgrid[0:64, 0:96]
STAIN = np.stack([150 + X, 60 + Y, 120 + X // 2 + Y], axis=-1).astype(np.uint8)
OPACITY = np.where(X < 32, 0, np.where(X < 64, 128, 255)).astype(np.uint8)
STAIN_ON_WHITE = 255 - (255.0 - STAIN) * OPACITY[..., None] / 255


def whole(path, um_per_px=1.0):
    pyramid = ImagePyramid.from_path(path, um_per_px=um_per_px)
    height, width = pyramid.levels[0].shape
    return pyramid.levels[0].read(0, height, 0, width)


def to_ycbcr(rgb):
    """Return Y, Cb and Cr by the formulas of JFIF."""
    red, green, blue = np.moveaxis(rgb.astype(float), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = [luma, 128 + (blue - luma) / 1.772, 128 + (red - luma) / 1.402]
    return np.stack(planes, axis=-1).round().clip(0, 255).astype(np.uint8)


def write(path, pixels, **tags):
    tifffile.imwrite(path, pixels, metadata=None, **tags)
    return path


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "zstd", "jpeg2000", "jpeg"])
def test_ycbcr_becomes_rgb(compression, tmp_path):
    path = write(
        tmp_path / "a.tif",
        to_ycbcr(STAIN),
        photometric="ycbcr",
        subsampling=(1, 1),
        compression=compression,
        compressionargs={"level": 100} if compression == "jpeg" else None,
        **TILES,
    )
    assert np.abs(whole(path) - STAIN.astype(float)).max() <= (6 if compression == "jpeg" else 2)


def test_planes_of_ycbcr_become_rgb(tmp_path):
    planes = np.moveaxis(to_ycbcr(STAIN), -1, 0)
    path = write(tmp_path / "a.tif", planes, photometric="ycbcr", planarconfig="separate")
    assert np.abs(whole(path) - STAIN.astype(float)).max() <= 2


@pytest.mark.parametrize("rgb", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (90, 90, 90)])
def test_ycbcr_of_any_color(rgb):
    pixel = np.array([[rgb]], np.uint8)
    assert np.abs(ycbcr_to_rgb(to_ycbcr(pixel)).astype(int) - pixel).max() <= 2


def test_ycbcr_is_the_formula_of_jfif():
    planes = RNG.integers(0, 255, (200, 50, 3)).astype(np.uint8)
    luma, cb, cr = np.moveaxis(planes.astype(float), -1, 0)
    cb, cr = cb - 128, cr - 128
    green = luma - 0.344136 * cb - 0.714136 * cr
    expected = np.stack([luma + 1.402 * cr, green, luma + 1.772 * cb], axis=-1)
    assert np.abs(ycbcr_to_rgb(planes) - expected.clip(0, 255)).max() < 0.6


def test_a_tile_that_is_left_out_is_white_in_ycbcr(tmp_path):
    path = write(tmp_path / "a.tif", to_ycbcr(STAIN), photometric="ycbcr", **TILES)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for tag in ("TileByteCounts", "TileOffsets"):
            values = tiff.pages[0].tags[tag]
            values.overwrite([0, *values.value[1:]])
    pixels = whole(path)
    assert (pixels[:32, :32] == 255).all()
    assert np.abs(pixels[32:] - STAIN[32:].astype(float)).max() <= 2


def aperio(path, tiles, shape, compression):
    text = "Aperio Image Library v10.2.41\r\n96x64 (32x32) J2K/YUV16 Q=70|AppMag = 20|MPP = 0.5"
    tifffile.imwrite(
        path,
        tiles,
        shape=shape,
        dtype=np.uint8,
        photometric="rgb",
        compression=compression,
        description=text,
        metadata=None,
        **TILES,
    )
    return path


def tiles_of(pixels):
    for top in range(0, pixels.shape[0], 32):
        for left in range(0, pixels.shape[1], 32):
            tile = np.ascontiguousarray(pixels[top : top + 32, left : left + 32])
            yield imagecodecs.jpeg2k_encode(
                tile, codecformat="J2K", mct=False, reversible=True, level=0
            )


@pytest.mark.parametrize(
    ("compression", "encode"), [(33003, to_ycbcr), (33005, np.asarray)], ids=["YCbCr", "RGB"]
)
def test_jpeg_2000_of_aperio(compression, encode, tmp_path):
    tiles = tiles_of(encode(STAIN))
    path = aperio(tmp_path / "a.svs", tiles, STAIN.shape, compression)
    pixels = whole(path, um_per_px=0.5).astype(float)
    assert np.abs(pixels - STAIN).max() <= (0 if compression == 33005 else 2)


def test_a_real_slide_of_aperio_has_the_colors_that_openslide_shows(real):
    # Compression 33003, with chroma planes of half the width.
    path = real("wsi", "glass-1065626.svs")
    level = open_array(open_file(path)[0][0])
    with openslide.OpenSlide(path) as slide:
        expected = np.asarray(slide.read_region((6000, 5000), 0, (256, 256)))[..., :3]
    pixels = level.read(5000, 5256, 6000, 6256)
    assert np.abs(pixels - expected.astype(float)).max() <= 1


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("separate", [False, True], ids=["pixels", "planes"])
def test_transparent_pixels_of_a_tiff_are_white(kind, separate, tmp_path):
    colors = STAIN
    if kind == "assocalpha":
        colors = (STAIN * (OPACITY[..., None] / 255)).round().astype(np.uint8)
    pixels = np.dstack([colors, OPACITY])
    if separate:
        pixels = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    path = write(
        tmp_path / "a.tif",
        pixels,
        photometric="rgb",
        extrasamples=[kind],
        planarconfig="separate" if separate else "contig",
        **TILES,
    )
    assert np.abs(whole(path) - STAIN_ON_WHITE).max() <= 1
    assert (whole(path)[:, :32] == 255).all()


def test_a_channel_that_is_not_alpha_changes_no_color(tmp_path):
    pixels = np.dstack([STAIN, np.zeros_like(OPACITY)])
    path = write(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unspecified"])
    np.testing.assert_array_equal(whole(path), STAIN)


@pytest.mark.parametrize("channels_first", [False, True], ids=["yxc", "cyx"])
@pytest.mark.parametrize(
    "backing",
    [
        np.asarray,
        lambda x: dask.array.from_array(x, chunks=13),
        lambda x: zarr.create_array({}, data=x, chunks=(16, 16, 16)),
    ],
    ids=["numpy", "dask", "zarr"],
)
def test_transparent_pixels_of_an_array_are_white(backing, channels_first):
    pixels = np.dstack([STAIN, OPACITY])
    if channels_first:
        pixels = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    pyramid = ImagePyramid.from_array(backing(pixels), um_per_px=1.0)
    centers = np.array([[16, 16], [48, 40], [80, 16], [32, 32]])
    patches = pyramid.read(centers, size=16, um_per_px=1.0)
    for patch, (x, y) in zip(patches, centers, strict=True):
        expected = STAIN_ON_WHITE[y - 8 : y + 8, x - 8 : x + 8]
        assert np.abs(patch - expected).max() <= 0.5


def test_opaque_pixels_are_not_changed():
    opaque = np.dstack([STAIN, np.full_like(OPACITY, 255)])
    level = open_array(opaque)
    np.testing.assert_array_equal(level.read(3, 50, 10, 90), STAIN[3:50, 10:90])


def test_a_plain_array_is_read_as_it_is():
    assert open_array(STAIN).array is STAIN


@pytest.mark.parametrize("is_premultiplied", [False, True])
def test_each_opacity_of_each_color(is_premultiplied):
    color, alpha = np.mgrid[0:256, 0:256].astype(np.uint8)
    colors = np.repeat(color[..., None], 3, axis=-1)
    if is_premultiplied:
        expected = np.minimum(color + 255.0 - alpha, 255)
    else:
        expected = np.round(color * (alpha / 255) + 255 * (1 - alpha / 255))
    result = on_white(colors, alpha, is_premultiplied)
    np.testing.assert_array_equal(result, np.repeat(expected[..., None], 3, axis=-1))


def test_a_chunk_that_is_missing_in_a_transparent_array_is_named():
    pixels = np.dstack([STAIN, OPACITY])
    store = {}
    array = zarr.create_array(store, data=pixels, chunks=(32, 32, 4))
    pyramid = ImagePyramid.from_array(array, um_per_px=1.0)
    pyramid.read([[80, 16]], size=16, um_per_px=1.0)
    (key,) = [key for key in store if key.endswith("0/2/0")]
    del store[key]
    with pytest.raises(ValueError, match=r"its chunk at x = 64, y = 0 is missing"):
        pyramid.read([[80, 16]], size=16, um_per_px=1.0)


CMYK = np.full((32, 32, 4), 40, np.uint8)
LAB = np.full((32, 32, 3), 40, np.uint8)
COLOR_MAP = np.zeros((3, 256), np.uint16)


@pytest.mark.parametrize(
    ("pixels", "tags", "message"),
    [
        (CMYK, {"photometric": "separated"}, "the colors of .*a.tif are CMYK; write the image as"),
        (LAB, {"photometric": "cielab"}, "the colors of .*a.tif are CIELAB; write the image"),
        (LAB, {"photometric": "icclab"}, "the colors of .*a.tif are ICCLAB"),
        (LAB, {"photometric": "miniswhite", "planarconfig": "contig"}, "a.tif is a negative"),
        (LAB[..., 0], {"photometric": "miniswhite"}, "a.tif is grayscale; pass the H&E image"),
        (LAB[..., 0], {"photometric": "minisblack"}, "a.tif is grayscale; pass the H&E image"),
        (
            LAB[..., :1],
            {"photometric": "minisblack"},
            "several images of one channel; pass the H&E image",
        ),
        (
            LAB[..., 0].astype(np.uint16),
            {"photometric": "minisblack"},
            "a.tif is grayscale; pass the H&E image",
        ),
        (LAB[..., 0], {"photometric": "palette", "colormap": COLOR_MAP}, "colors of a palette"),
        (
            LAB,
            {"photometric": "ycbcr", "compression": "webp"},
            "YCbCr with the compression WEBP, which is ambiguous",
        ),
        (
            LAB,
            {"photometric": "ycbcr", "extratags": [(529, 5, 3, (2, 10, 7, 10, 1, 10), True)]},
            "the YCbCr colors of .*a.tif are subsampled or scaled in a way that is not read",
        ),
        (LAB.astype(np.uint16), {"photometric": "rgb"}, "8 bits per channel, got uint16"),
    ],
    ids=[
        "CMYK",
        "CIELAB",
        "ICCLAB",
        "negative RGB",
        "negative gray",
        "gray",
        "one channel",
        "gray with 16 bits",
        "palette",
        "YCbCr as WebP",
        "YCbCr of another kind",
        "16 bits",
    ],
)
def test_other_colors_are_refused(pixels, tags, message, tmp_path):
    path = write(tmp_path / "a.tif", pixels, **tags)
    with pytest.raises(ValueError, match=message):
        whole(path)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_rotated_tiff_is_refused(orientation, tmp_path):
    tags = [(274, 3, 1, orientation, True)]
    path = write(tmp_path / "a.tif", STAIN, photometric="rgb", extratags=tags)
    with pytest.raises(ValueError, match=rf"by its tag Orientation \({orientation}\).*upright"):
        whole(path)


def test_an_upright_tiff_is_read(tmp_path):
    tags = [(274, 3, 1, 1, True)]
    path = write(tmp_path / "a.tif", STAIN, photometric="rgb", extratags=tags)
    np.testing.assert_array_equal(whole(path), STAIN)


def with_names(path, names, planes, **how):
    metadata = {"axes": "CYX"}
    if "imagej" in how:
        metadata["Labels"] = names
    else:
        metadata["Channel"] = {"Name": names}
    tifffile.imwrite(path, planes, photometric="minisblack", metadata=metadata, **how)
    return path


FORMATS = pytest.mark.parametrize(
    ("ending", "how"),
    [(".ome.tif", {}), (".tif", {"imagej": True}), (".tif", {})],
    ids=["OME", "ImageJ", "tifffile"],
)


@FORMATS
def test_channels_of_fluorescence_are_refused(ending, how, tmp_path):
    planes = np.ascontiguousarray(np.moveaxis(STAIN, -1, 0))
    path = with_names(tmp_path / f"a{ending}", ["DAPI", "CD3", "CD8"], planes, **how)
    with pytest.raises(ValueError, match="DAPI, CD3, CD8"):
        whole(path)


@FORMATS
def test_channels_are_read_by_name(ending, how, tmp_path):
    planes = np.ascontiguousarray(np.moveaxis(STAIN[..., ::-1], -1, 0))
    path = with_names(tmp_path / f"a{ending}", ["Blue", "Green", "Red"], planes, **how)
    np.testing.assert_array_equal(whole(path), STAIN)


def test_three_channels_without_names_are_red_green_and_blue(tmp_path):
    planes = np.ascontiguousarray(np.moveaxis(STAIN, -1, 0))
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, planes, photometric="minisblack", metadata={"axes": "CYX"})
    np.testing.assert_array_equal(whole(path), STAIN)


def test_a_stack_of_gray_images_is_refused(tmp_path):
    planes = np.ascontiguousarray(np.moveaxis(STAIN, -1, 0))
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, planes, photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.raises(ValueError, match="images"):
        whole(path)
