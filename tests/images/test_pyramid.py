import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.reduction import ForkingPickler

import anndata
import dask.array
import imagecodecs
import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr

from stp.images.coordinates import linear_scale
from stp.images.levels import open_array
from stp.images.pyramid import ImagePyramid, PatchWindow

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (301, 403, 3)).astype(np.uint8)
# Smooth, so that a shift of a pixel shows and a change of the filter does not.
SMOOTH = np.asarray(
    PIL.Image.fromarray(RNG.integers(0, 256, (12, 16, 3)).astype(np.uint8)).resize((403, 301), 3)
)
CENTERS = RNG.uniform([40, 40], [360, 260], (25, 2))


class Counted:
    """An array that notes the windows read from it."""

    def __init__(self, array):
        self.array = array
        self.shape = array.shape
        self.ndim = array.ndim
        self.dtype = array.dtype
        self.windows = []

    def __getitem__(self, key):
        window = self.array[key]
        self.windows.append(window.shape)
        return window


def pyramid_of(*arrays, um_per_px=0.5):
    return ImagePyramid(tuple(map(open_array, arrays)), um_per_px)


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize("offset", [0.0, 0.5, 0.25, 0.75])
def test_at_native_scale_a_patch_is_the_slice(size, offset):
    # Pixel i covers [i, i + 1): the nearest corner, and the right one of two that are equally near.
    centers = np.array([[100, 60], [250, 200]]) + offset
    corners = np.floor(centers - size / 2 + 0.5).astype(int)
    patches = pyramid_of(IMAGE).read(centers, size=size, um_per_px=0.5)
    assert patches.dtype == np.uint8
    for patch, (x, y) in zip(patches, corners, strict=True):
        np.testing.assert_array_equal(patch, IMAGE[y : y + size, x : x + size])


def test_the_convention_of_pixels_by_hand():
    patches = pyramid_of(IMAGE).read(np.array([[10, 20], [10.5, 20.5]]), size=4, um_per_px=0.5)
    np.testing.assert_array_equal(patches[0], IMAGE[18:22, 8:12])
    np.testing.assert_array_equal(patches[1], IMAGE[19:23, 9:13])
    pixel = pyramid_of(IMAGE).read(np.array([[10.5, 20.5]]), size=1, um_per_px=0.5)
    np.testing.assert_array_equal(pixel[0, 0, 0], IMAGE[20, 10])


def test_a_level_that_is_almost_at_scale_is_not_resampled():
    # 0.499 µm per pixel, as Aperio writes it: 224 px at 0.5 are 224.4 of its pixels.
    patch = pyramid_of(IMAGE, um_per_px=0.499).read(
        np.array([[150, 150]]), size=224, um_per_px=0.5
    )[0]
    np.testing.assert_array_equal(patch, IMAGE[38:262, 38:262])


@pytest.mark.parametrize("factor", [1.5, 2, 3, 4])
def test_at_another_scale_a_patch_is_the_antialiased_resize_of_the_exact_window(factor):
    side = 32 * factor
    centers = np.array([[200, 150], [140, 160]]) + side / 2 % 1  # corners on whole pixels
    patches = pyramid_of(IMAGE).read(centers, size=32, um_per_px=0.5 * factor)
    for patch, (x, y) in zip(patches, (centers - side / 2).astype(int), strict=True):
        window = PIL.Image.fromarray(IMAGE).crop((x, y, x + int(side), y + int(side)))
        expected = window.resize((32, 32), PIL.Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(patch, np.asarray(expected))


def test_whole_factors_keep_the_mean():
    # Nearest-neighbor or plain bilinear sampling of noise would not.
    patch = pyramid_of(IMAGE).read(np.array([[160, 160]]), size=32, um_per_px=3.0)[0]
    assert patch.std() < IMAGE.std() / 4
    np.testing.assert_allclose(
        patch.mean(axis=(0, 1)), IMAGE[64:256, 64:256].mean(axis=(0, 1)), atol=0.7
    )


@pytest.mark.parametrize("um_per_px", [0.77, 1.31])
def test_windows_between_pixels_move_with_their_centers(um_per_px):
    patches = pyramid_of(SMOOTH).read(CENTERS, size=24, um_per_px=um_per_px)
    side = 24 * um_per_px / 0.5
    for patch, (x, y) in zip(patches, CENTERS, strict=True):
        box = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
        expected = PIL.Image.fromarray(SMOOTH).resize(
            (24, 24), PIL.Image.Resampling.BILINEAR, box=box
        )
        difference = np.abs(patch.astype(int) - np.asarray(expected))
        assert difference[1:-1, 1:-1].max() <= 1
        assert difference.max() <= 6  # a resize sees nothing beyond its window


def test_a_small_picture_may_be_enlarged_on_request():
    patch = pyramid_of(SMOOTH).read(
        np.array([[200, 150]]), size=64, um_per_px=0.25, allow_upsampling=True
    )[0]
    expected = PIL.Image.fromarray(SMOOTH[134:166, 184:216]).resize(
        (64, 64), PIL.Image.Resampling.BILINEAR
    )
    np.testing.assert_array_equal(patch, np.asarray(expected))


@pytest.mark.parametrize("um_per_px", [0.5, 1.3])
@pytest.mark.parametrize("backing", ["dask", "zarr", "cyx", "tiff"])
def test_patches_are_the_same_from_any_backing(backing, um_per_px, tmp_path):
    def tiff(array):
        tifffile.imwrite(
            tmp_path / "a.tif", array, tile=(64, 64), photometric="rgb", compression="deflate"
        )
        return zarr.open(tifffile.TiffFile(tmp_path / "a.tif").aszarr(), mode="r")

    make = {
        "dask": lambda x: dask.array.from_array(x, chunks=(64, 50, 2)),
        "zarr": lambda x: zarr.create_array({}, data=x, chunks=(50, 64, 3)),
        "cyx": lambda x: np.ascontiguousarray(np.moveaxis(x, -1, 0)),
        "tiff": tiff,
    }
    pyramid = pyramid_of(make[backing](IMAGE))
    centers = np.concatenate([CENTERS, [[5, 5], [402, 300]]])
    expected = pyramid_of(IMAGE).read(centers, size=32, um_per_px=um_per_px)
    np.testing.assert_array_equal(pyramid.read(centers, size=32, um_per_px=um_per_px), expected)


@pytest.mark.parametrize("um_per_px", [0.5, 1.3])
@pytest.mark.parametrize("rows", [1, 100, 150])
def test_patches_are_the_same_whatever_memory_they_take(rows, um_per_px):
    expected = pyramid_of(IMAGE).read(CENTERS, size=32, um_per_px=um_per_px)
    counted = Counted(IMAGE)
    counted.chunks = (20, 25, 3)
    least = 3 * (1400 + rows) * 130
    read = pyramid_of(counted).read(CENTERS, size=32, um_per_px=um_per_px, max_bytes=least)
    np.testing.assert_array_equal(read, expected)
    assert len(counted.windows) > 1


def test_a_stream_is_the_read_by_rows_of_chunks():
    expected = pyramid_of(IMAGE).read(CENTERS, size=32, um_per_px=0.5)
    tiled = pyramid_of(zarr.create_array({}, data=IMAGE, chunks=(50, 64, 3)))
    batches = list(tiled.stream(CENTERS, PatchWindow(32, 0.5), batch_size=7))
    assert [len(rows) for rows, _ in batches] == [7, 7, 7, 4]
    rows = np.concatenate([rows for rows, _ in batches])
    assert sorted(rows) == list(range(25))
    corners = np.floor(CENTERS[rows] - 15.5)
    chunk_rows = corners[:, 1] // 50
    assert (np.diff(chunk_rows) >= 0).all()
    assert (np.diff(corners[:, 0])[np.diff(chunk_rows) == 0] >= 0).all()
    np.testing.assert_array_equal(
        np.concatenate([patches for _, patches in batches]), expected[rows]
    )


def test_order_is_that_of_the_centers():
    order = RNG.permutation(len(CENTERS))
    tiled = pyramid_of(zarr.create_array({}, data=IMAGE, chunks=(50, 64, 3)))
    patches = pyramid_of(IMAGE).read(CENTERS, size=32, um_per_px=0.5)
    shuffled = tiled.read(CENTERS[order], size=32, um_per_px=0.5)
    np.testing.assert_array_equal(shuffled, patches[order])
    assert len(np.unique(patches.reshape(len(patches), -1), axis=0)) == len(CENTERS)


def test_no_centers():
    pyramid = pyramid_of(IMAGE)
    assert pyramid.read(np.empty((0, 2)), size=8, um_per_px=0.5).shape == (0, 8, 8, 3)
    assert pyramid.inside(np.empty((0, 2)), size=8, um_per_px=0.5).shape == (0,)


@pytest.mark.parametrize("um_per_px", [0.5, 1.0])
@pytest.mark.parametrize(
    "center",
    [(0, 0), (403, 0), (0, 301), (403, 301), (200, -5), (-100, 150), (5000, 5000)],
    ids=str,
)
def test_what_lies_outside_is_white(center, um_per_px):
    dark = SMOOTH // 2
    padded = np.pad(dark, ((6000, 6000), (6000, 6000), (0, 0)), constant_values=255)
    side = int(64 * um_per_px)
    x, y = np.array(center) + 6000 - side // 2
    window = PIL.Image.fromarray(padded[y : y + side, x : x + side])
    expected = np.asarray(window.resize((32, 32), PIL.Image.Resampling.BILINEAR))
    patch = pyramid_of(dark).read(np.array([center]), size=32, um_per_px=um_per_px)[0]
    np.testing.assert_array_equal(patch, expected)
    assert (patch == 255).any()


@pytest.mark.parametrize("um_per_px", [0.5, 1.0])
def test_inside_tells_where_nothing_was_padded(um_per_px):
    half = 16 * um_per_px / 0.5
    edges = {"x": (half, 403 - half), "y": (half, 301 - half)}
    inside = [[x, y] for x in edges["x"] for y in edges["y"]]
    outside = [
        [half - 1, 150],
        [404 - half, 150],
        [200, half - 1],
        [200, 302 - half],
        [-500, 150],
        [200, 5000],
    ]
    flags = pyramid_of(IMAGE).inside(np.array(inside + outside), size=32, um_per_px=um_per_px)
    assert flags.tolist() == [True] * 4 + [False] * 6
    padded = pyramid_of(np.zeros_like(IMAGE)).read(
        np.array(inside + outside), size=32, um_per_px=um_per_px
    )
    assert (padded.any(axis=(1, 2, 3)) == ~flags).all()


@pytest.mark.parametrize("um_per_px", [0.41, 0.5, 3.0])
def test_a_picture_that_is_fine_enough_is_accepted(um_per_px):
    assert pyramid_of(IMAGE).read(CENTERS[:1], size=8, um_per_px=um_per_px).shape == (1, 8, 8, 3)


def test_a_coarse_picture_is_refused():
    pyramid = pyramid_of(IMAGE, um_per_px=2.0)
    with pytest.raises(
        ValueError,
        match=r"has 2 µm per pixel, patches of 0\.5 are wanted.*at least 1\.6 µm per pixel",
    ):
        pyramid.read(CENTERS, size=32, um_per_px=0.5)
    assert pyramid.read(CENTERS, size=32, um_per_px=0.5, allow_upsampling=True).shape == (
        25,
        32,
        32,
        3,
    )


@pytest.mark.parametrize(
    ("um_per_px", "level"), [(0.45, 0), (0.5, 0), (0.9, 0), (1.0, 1), (1.9, 1), (2.0, 2), (9.0, 2)]
)
def test_the_coarsest_level_that_is_fine_enough_is_read(um_per_px, level):
    sizes = [(301, 403), (150, 201), (76, 101)]  # halved, trimmed once and padded once
    arrays = [Counted(np.full((*size, 3), index, np.uint8)) for index, size in enumerate(sizes)]
    patches = pyramid_of(*arrays).read(np.array([[200, 150]]), size=8, um_per_px=um_per_px)
    assert np.unique(patches).tolist() == [level]
    assert [len(array.windows) for array in arrays] == [int(index == level) for index in range(3)]


@pytest.mark.parametrize("um_per_px", [1.0, 1.5, 2.0])
def test_every_level_shows_the_same_place(um_per_px):
    coarse = np.asarray(
        PIL.Image.fromarray(SMOOTH[:300, :402]).resize((201, 150), PIL.Image.Resampling.BOX)
    )
    window = {"size": 24, "um_per_px": um_per_px}
    centers = CENTERS.round() // 2 * 2  # on whole pixels of both levels
    both, fine = (
        pyramid_of(*levels).read(centers, **window) for levels in ([SMOOTH, coarse], [SMOOTH])
    )
    assert np.abs(both.astype(int) - fine).mean() < 1  # 2 for a shift by half a pixel


def test_from_path_takes_the_scale_of_the_file(real, tmp_path):
    pyramid = ImagePyramid.from_path(real("wsi", "CMU-1-Small-Region.svs"))
    assert (pyramid.um_per_px, pyramid.scale_source) == (0.499, "the file's metadata")
    with pytest.warns(UserWarning, match=r"=0\.25 is used .* file's metadata gives 0\.499"):
        given = ImagePyramid.from_path(real("wsi", "CMU-1-Small-Region.svs"), um_per_px=0.25)
    assert (given.um_per_px, given.scale_source) == (0.25, "um_per_px")
    PIL.Image.fromarray(IMAGE).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="no physical scale"):
        ImagePyramid.from_path(tmp_path / "a.png")
    read = ImagePyramid.from_path(tmp_path / "a.png", um_per_px=0.5).read(
        CENTERS, size=32, um_per_px=0.5
    )
    np.testing.assert_array_equal(read, pyramid_of(IMAGE).read(CENTERS, size=32, um_per_px=0.5))


def test_linear_scale_does_not_depend_on_turns():
    turn = np.array([[np.cos(1), -np.sin(1), 7], [np.sin(1), np.cos(1), 8], [0, 0, 1]])
    assert linear_scale(turn * 0.3) == pytest.approx(0.3)
    assert linear_scale(np.diag([-0.5, 2.0, 1])) == pytest.approx(1.0)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_files_are_opened_in_each_process(method, real):
    pyramid = ImagePyramid.from_path(real("wsi", "CMU-1-Small-Region.svs"))
    parts = np.random.default_rng(0).uniform([200, 200], [2000, 2700], (8, 20, 2))
    expected = [pyramid.read(part, size=64, um_per_px=0.499) for part in parts]  # open here already
    assert len(ForkingPickler.dumps(pyramid)) < 2000
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context(method)) as workers:
        patches = list(workers.map(partial(pyramid.read, size=64, um_per_px=0.499), parts))
    for of_worker, of_parent in zip(patches, expected, strict=True):
        np.testing.assert_array_equal(of_worker, of_parent)


@pytest.mark.filterwarnings(
    "ignore::PIL.Image.DecompressionBombWarning"
)  # by PIL in this test, not by stp
def test_patches_of_a_real_section_are_slices_of_its_picture(real):
    centers = anndata.read_h5ad(real("her2st", "C6.h5ad"), backed="r").obsm["spatial"][::9]
    path = real("her2st", "C6.jpg")
    whole = imagecodecs.imread(path)
    patches = ImagePyramid.from_path(path, um_per_px=0.6836).read(
        centers, size=224, um_per_px=0.6836
    )
    for patch, (x, y) in zip(patches, np.floor(centers - 111.5).astype(int), strict=True):
        np.testing.assert_array_equal(patch, whole[y : y + 224, x : x + 224])


def test_coordinates_that_are_no_numbers_are_refused():
    centers = CENTERS.copy()
    centers[[3, 7], 1] = np.nan
    with pytest.raises(
        ValueError, match="2 spots have no finite coordinates, the first in row 3; leave them out"
    ):
        pyramid_of(IMAGE).read(centers, size=8, um_per_px=0.5)
