import anndata
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from stp import pl
from stp.pl._spot_raster import SpotRaster


def lattice(n):
    return np.stack(np.meshgrid(np.arange(n), np.arange(n)), axis=-1).reshape(-1, 2).astype(float)


def test_each_pixel_shows_the_nearest_spot_within_the_radius():
    xy = np.random.default_rng(0).random((40, 2)) * [30, 20]
    raster = SpotRaster.from_spots(xy, 2.0, max_pixels=64)
    left, right, bottom, top = raster.extent
    height, width = raster.rows.shape
    assert max(height, width) == 64
    for row, column in np.ndindex(height, width):
        x = left + (column + 0.5) * (right - left) / width
        y = top + (row + 0.5) * (bottom - top) / height
        distance = np.hypot(xy[:, 0] - x, xy[:, 1] - y)
        expected = distance.argmin() if distance.min() < 2.0 else -1
        assert raster.rows[row, column] == expected


def test_a_hole_in_a_lattice_stays_a_hole():
    xy = lattice(9)
    rows = SpotRaster.from_spots(xy[np.arange(81) != 40], 0.71).rows
    is_hole = rows[len(rows) // 2, len(rows) // 2] < 0
    assert is_hole


@pytest.fixture(scope="module")
def many():
    """A square of 226 x 226 spots, whose upper half is one cluster."""
    n = 226
    table = anndata.AnnData(obs=pd.DataFrame(index=np.arange(n * n).astype(str)))
    table.obsm["spatial"] = lattice(n) * 8
    table.obs["half"] = pd.Categorical(np.repeat(["upper", "lower"], n * n // 2))
    table.obs["depth"] = np.repeat(np.arange(n, dtype=float), n)
    table.obs.iloc[-n:, 1] = np.nan
    return table


def test_many_categories_and_numbers_are_images(many):
    halves, depth = pl.spots(many, ["half", "depth"], palette=["#ff0000", "#0000ff"]).axes[:2]
    (picture,) = halves.images
    assert not halves.collections
    height = len(picture.get_array())
    middle = picture.get_array()[:, height // 2] / 255
    colors = [mpl.colors.to_hex(middle[row]) for row in (height // 4, 3 * height // 4)]
    assert colors == ["#0000ff", "#ff0000"]  # of "lower", which is the first category, and "upper"
    numbers, missing = depth.images
    column = np.ma.compressed(numbers.get_array()[:, height // 2])
    assert (np.diff(column) >= 0).all()
    assert (column.max(), numbers.get_clim()) == (224, (0, 224))
    is_gray = missing.get_array()[:, height // 2, 3] == 255
    assert np.flatnonzero(is_gray).min() > 0.99 * height
    assert is_gray.any()
    assert [text.get_text() for text in depth.get_legend().get_texts()] == ["missing"]


def test_a_part_of_many_spots_has_circles_in_its_frame(many):
    (ax,) = pl.spots(many, "half", crop_coord=(80, 160, 800, 1000)).axes
    assert (ax.get_xlim(), ax.get_ylim()) == ((80, 160), (1000, 800))
    (circles,) = ax.collections
    offsets = circles.get_offsets()
    assert len(offsets) == 11 * 26
    assert offsets.min(axis=0).tolist() == [80, 800]
    assert offsets.max(axis=0).tolist() == [160, 1000]


def test_a_part_of_an_image_lies_where_it_lies_in_the_slide(sdata, image):
    tissue, ax = pl.spots(sdata, "array_row", crop_coord=(300, 500, 200, 400)).axes
    (picture,) = tissue.images
    assert picture.get_extent() == [300, 500, 400, 200]
    np.testing.assert_array_equal(picture.get_array(), image[200:400, 300:500])
    assert ax.get_xlim() == (300, 500)


@pytest.mark.parametrize(
    ("crop_coord", "message"),
    [
        ((5, 5, 0, 9), r"crop_coord is \(5, 5, 0, 9\); pass \(left, right, top, bottom\)"),
        ((0, 9, 9, 0), "with left < right and top < bottom"),
        ((0, 9, 0), "with left < right"),
        ((1, 2, 1, 2), "no spot lies in crop_coord=.*spots reach from x = 0 to 1800"),
    ],
    ids=["no width", "upside down", "three", "empty"],
)
def test_a_part_without_area_or_spots_is_refused(many, crop_coord, message):
    with pytest.raises(ValueError, match=message):
        pl.spots(many, "half", crop_coord=crop_coord)
