from multiprocessing.reduction import ForkingPickler

import numpy as np
import PIL.Image
import pytest
import tifffile

from stp.images.files.opening import open_file as open_arrays
from stp.images.levels import open_array

RGB = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)


def open_file(path):
    arrays, um_per_px = open_arrays(path)
    return [open_array(array) for array in arrays], um_per_px


def whole(level):
    return level.read(0, level.shape[0], 0, level.shape[1])


@pytest.mark.parametrize(
    ("name", "um_per_px", "shapes"),
    [
        ("CMU-1-Small-Region.svs", 0.499, [(2967, 2220)]),
        ("TCGA-CR-7395-01A-01-TS1.svs", None, [(3567, 4443), (1783, 2221)]),
        ("kidney-48-5.tif", None, [(901, 1493)]),
    ],
    ids=["jpeg", "jpeg 2000", "plain"],
)
def test_real_slides(name, um_per_px, shapes, real):
    path = real("wsi", name)
    levels, stated = open_file(path)
    assert stated == um_per_px
    assert [level.shape for level in levels] == shapes
    for index, level in enumerate(levels):
        expected = tifffile.imread(path, series=0, level=index)[500:700, 300:611]
        np.testing.assert_array_equal(level.read(500, 700, 300, 611), expected)
        assert expected.std() > 0


@pytest.mark.parametrize(
    ("tags", "um_per_px"),
    [
        ({"description": "Aperio|AppMag = 40|MPP = 0.2520|Left = 1"}, 0.252),
        ({"description": "Aperio|AppMag = 40"}, 0.25),
        ({"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}, 0.5),
        ({"resolution": (50_800, 50_800), "resolutionunit": "INCH"}, 0.5),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (20_000, 20_000), "resolutionunit": "NONE"}, None),
        ({}, None),
    ],
    ids=["mpp", "magnification", "per cm", "per inch", "of a screen", "no unit", "nothing"],
)
def test_um_per_pixel_of_tags(tags, um_per_px, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", metadata=None, **tags)
    assert open_file(tmp_path / "a.tif")[1] == (
        None if um_per_px is None else pytest.approx(um_per_px)
    )


@pytest.mark.parametrize(("unit", "factor"), [("µm", 1), ("nm", 1e-3), ("mm", 1e3)])
def test_um_per_pixel_and_levels_of_ome(unit, factor, tmp_path):
    metadata = {"axes": "YXS", "PhysicalSizeX": 0.26 / factor, "PhysicalSizeXUnit": unit}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(RGB, photometric="rgb", tile=(16, 16), subifds=1, metadata=metadata)
        file.write(RGB[::2, ::2], photometric="rgb", tile=(16, 16), subfiletype=1)
    levels, um_per_px = open_file(tmp_path / "a.ome.tif")
    assert um_per_px == pytest.approx(0.26)
    np.testing.assert_array_equal(whole(levels[0]), RGB)
    np.testing.assert_array_equal(whole(levels[1]), RGB[::2, ::2])


def test_planar_tiff_and_capital_ending(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.TIFF", np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate"
    )
    ((level,), _) = open_file(str(tmp_path / "a.TIFF"))
    assert level.channels_first
    np.testing.assert_array_equal(whole(level), RGB)


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
@pytest.mark.parametrize("name", ["tiled.tif", "strip.tif", "deflated.tif", "a.jpg", "a.png"])
def test_a_truncated_file_is_refused_when_it_is_opened(name, share, tmp_path):
    path = tmp_path / name
    large = np.tile(RGB, (8, 8, 1))
    tiff = {
        "tiled.tif": {"tile": (64, 64)},
        "strip.tif": {},
        "deflated.tif": {"compression": "deflate"},
    }
    if name in tiff:
        tifffile.imwrite(path, large, photometric="rgb", **tiff[name])
    else:
        PIL.Image.fromarray(large).save(path)
    open_file(path)
    cut(path, share)
    with pytest.raises(ValueError, match="is the file complete|no image that can be read") as error:
        open_file(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6])
def test_a_truncated_slide_is_refused_when_it_is_opened(share, real, tmp_path):
    path = tmp_path / "slide.svs"
    path.write_bytes(real("wsi", "CMU-1-Small-Region.svs").read_bytes())
    cut(path, share)
    with pytest.raises(
        ValueError, match=r"slide\.svs cannot be read as a TIFF .*is the file complete"
    ):
        open_file(path)


@pytest.mark.parametrize("content", [b"", b"spot,x,y\n1,2,3\n"], ids=["empty", "text"])
@pytest.mark.parametrize("ending", ["tif", "svs", "jpg", "png", "csv"])
def test_a_file_that_is_no_image_is_refused_by_name(ending, content, tmp_path):
    path = tmp_path / f"slide.{ending}"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match="cannot be read as a TIFF|is no image that can be read"
    ) as error:
        open_file(path)
    assert str(path) in str(error.value)


def test_no_file(tmp_path):
    for path in (tmp_path / "slide.tif", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no image at {path}"):
            open_file(path)


def test_a_url_is_refused_with_the_remedy():
    with pytest.raises(
        ValueError, match=r"https://example\.org/slide\.svs is a URL; download the image"
    ):
        open_file("https://example.org/slide.svs")


def empty_tiles(path, numbers):
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for tag in ("TileByteCounts", "TileOffsets"):
            values = tiff.pages[0].tags[tag]
            values.overwrite([0 if i in numbers else value for i, value in enumerate(values.value)])


@pytest.mark.parametrize("compression", ["jpeg", None])
def test_a_tile_without_bytes_is_blank(compression, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, tile=(16, 16), photometric="rgb", compression=compression)
    expected = tifffile.imread(path)
    empty_tiles(path, {0})
    expected[:16, :16] = 255
    ((level,), _) = open_file(path)
    np.testing.assert_array_equal(whole(level), expected)


def test_a_tiff_whose_tiles_are_all_missing_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, tile=(16, 16), photometric="rgb")
    empty_tiles(path, set(range(1000)))
    with pytest.raises(
        ValueError, match=r"a\.tif cannot be read as a TIFF \(all tiles of a level are empty\)"
    ):
        open_file(path)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "deflate", "lzw", "zstd", None])
def test_tiffs_of_any_compression(compression, tmp_path):
    large = np.kron(RGB, np.ones((4, 4, 1), np.uint8))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, large, photometric="rgb", tile=(64, 64), compression=compression)
    ((level,), _) = open_file(path)
    np.testing.assert_array_equal(level.read(5, 150, 17, 200), tifffile.imread(path)[5:150, 17:200])


def test_a_file_array_pickles_without_its_handle(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", tile=(16, 16))
    ((array,), _) = open_arrays(tmp_path / "a.tif")
    np.testing.assert_array_equal(array[3:9, 5:60], RGB[3:9, 5:60])
    again = ForkingPickler.loads(ForkingPickler.dumps(array))
    assert (again.opened, again.shape, again.chunks, again.ndim) == (
        None,
        (40, 60, 3),
        (16, 16, 3),
        3,
    )
    np.testing.assert_array_equal(again[3:9, 5:60], RGB[3:9, 5:60])


def test_16_bit_tiff_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RGB.astype(np.uint16), photometric="rgb")
    with pytest.raises(
        ValueError, match="8 bits per channel, got uint16; convert the image to uint8 first"
    ):
        open_file(tmp_path / "a.tif")
