import matplotlib.pyplot as plt
import numpy as np
import pytest
import tifffile
from matplotlib.collections import PolyCollection
from matplotlib_scalebar.scalebar import ScaleBar

from stp import io, pl


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def slide(tmp_path):
    """A slide of 800 x 600 pixels at 2 µm per pixel, with two tiles of tissue."""
    pixels = np.full((600, 800, 3), 243, np.uint8)
    pixels[100:200, 300:500] = (200, 120, 180)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    return io.read_wsi(tmp_path / "a.tif", um_per_px=2.0, tile_um=200, name="case")


def squares(ax):
    (tiles,) = [artist for artist in ax.collections if isinstance(artist, PolyCollection)]
    return [path.vertices[:4] for path in tiles.get_paths()]


def test_the_tiles_are_drawn_on_the_whole_slide_in_um(slide):
    figure = pl.tissue(slide)
    left, right = figure.axes
    assert (left.get_title(), right.get_title()) == ("case_full_image", "2 tiles of 200 µm")
    for ax in (left, right):
        assert ax.images[0].get_extent() == [0, 1600, 1200, 0]
        assert ax.get_xlim() == (0, 1600) and ax.get_ylim() == (1200, 0)
        (bar,) = [artist for artist in ax.artists if isinstance(artist, ScaleBar)]
        assert (bar.dx, bar.units) == (1.0, "um")
    assert not left.collections
    corners = [(square.min(axis=0), square.max(axis=0)) for square in squares(right)]
    np.testing.assert_allclose(corners, [[(600, 200), (800, 400)], [(800, 200), (1000, 400)]])


def test_the_scale_of_the_user_moves_the_tiles(slide):
    with pytest.warns(UserWarning, match="is used although"):
        _, right = pl.tissue(slide, um_per_px=1.0).axes
    assert right.get_title() == "2 tiles of 100 µm"
    np.testing.assert_allclose(squares(right)[0].max(axis=0), (400, 200))


def test_spots_are_drawn_with_their_diameter(sdata):
    _, right = pl.tissue(sdata).axes
    assert right.get_title() == "100 tiles of 55 µm"
    centers = [square.mean(axis=0) for square in squares(right)]
    np.testing.assert_allclose(centers, sdata["table"].obsm["spatial"])


def test_a_slide_without_tiles_is_an_error(slide):
    del slide.tables["table"]
    with pytest.raises(KeyError, match="no table 'table' in the SpatialData"):
        pl.tissue(slide)
