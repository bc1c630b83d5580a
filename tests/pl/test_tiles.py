"""The highest and lowest tiles: the right pixels at true scale, from the recorded slide."""

import os
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pytest
import spatialdata
import tifffile
from matplotlib_scalebar.scalebar import ScaleBar
from tests.features import example_features, katherlab_25, write_katherlab
from tests.scored_tiles import TILE_UM, log_odds, make_model, score_slide

from stp import io, pl, tl


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a slide and its scored tile store."""
    path = tmp_path_factory.mktemp("scored")
    score_slide(path)
    return path


@pytest.fixture
def tiles(folder):
    return spatialdata.read_zarr(folder / "tiles.zarr")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_tiles_are_the_pixels_of_the_slide_in_the_order_of_their_values(tiles, folder):
    figure = pl.tiles(tiles, n=3)
    slide = tifffile.imread(folder / "slide.tif")
    values = log_odds(tiles["table"])
    order = np.argsort(-values)
    corners = (tiles["table"].obsm["spatial"] - 56).round().astype(int)
    for ax, tile in zip(figure.axes, [*order[:3], *order[::-1][:3]], strict=True):
        x, y = corners[tile]
        pixels = slide[y : y + 112, x : x + 112].astype(float)
        shown = np.asarray(ax.images[0].get_array()).astype(float)
        # Each pixel of the slide is drawn as two by two.
        means = shown.reshape(112, 2, 112, 2, 3).mean(axis=(1, 3))
        assert np.abs(means - pixels).mean() < 12
        assert ax.images[0].get_extent() == [0, TILE_UM, TILE_UM, 0]
        assert ax.get_title() == f"{values[tile]:+.2g}"
        (bar,) = [artist for artist in ax.artists if isinstance(artist, ScaleBar)]
        assert (bar.dx, bar.units, bar.fixed_value) == (1.0, "um", 20)
    assert figure.axes[0].get_ylabel() == "highest" and figure.axes[3].get_ylabel() == "lowest"
    assert figure.get_suptitle() == "EGFR: mutated\ncontribution per tile, log-odds of mutated"


def test_tiles_by_attention_and_no_tile_twice(tiles):
    figure = pl.tiles(tiles, by="stp_attention", n=8, title="mine")
    texts = [float(ax.get_title().removesuffix(" %")) for ax in figure.axes]
    expected = np.sort(100 * tiles["table"].obs["stp_attention"])
    np.testing.assert_allclose(sorted(texts), expected, rtol=0.05)
    assert figure.get_suptitle() == "mine"


def test_a_slide_that_moved_is_passed_as_image(tiles, folder, tmp_path):
    moved = tmp_path / "moved.tif"
    shutil.copyfile(folder / "slide.tif", moved)
    os.utime(moved, (1, 1))
    tiles.attrs["stp_slide"]["path"] = str(tmp_path / "away.tif")
    with pytest.raises(FileNotFoundError, match=r"no slide at .*away.tif; if it moved, pass image"):
        pl.tiles(tiles)
    assert len(pl.tiles(tiles, n=1, image=moved).axes) == 2
    with moved.open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match=r"bytes, and the slide of these tiles had"):
        pl.tiles(tiles, image=moved)
    with pytest.raises(FileNotFoundError, match="check image="):
        pl.tiles(tiles, image=tmp_path / "nothing.tif")


def test_a_slide_that_was_changed_is_refused(tiles):
    tiles.attrs["stp_slide"]["mtime_ns"] += 1
    with pytest.raises(ValueError, match="was changed after its tiles were laid; tile it again"):
        pl.tiles(tiles)


def test_features_of_other_tools_need_their_slide(tmp_path, folder):
    corners = [(56 * (n % 3), 56 * (n // 3)) for n in range(6)]
    path = write_katherlab(
        tmp_path / "a.h5", example_features(), corners, **katherlab_25(TILE_UM, 16)
    )
    sdata = io.read_features(path)
    table = sdata["table"]
    table.obsm["X_stp_images"] = table.obsm["X_features"]
    table.uns["X_stp_images"] = table.uns["X_features"]
    tl.score_tiles(sdata, make_model(table), use_rep="X_features")
    with pytest.raises(ValueError, match="µm per pixel of the slide are not recorded; pass um_per"):
        pl.tiles(sdata)
    with pytest.raises(ValueError, match="does not name their slide; pass image="):
        pl.tiles(sdata, um_per_px=0.5)
    figure = pl.tiles(sdata, n=1, um_per_px=0.5, image=folder / "slide.tif")
    tile = int(np.argmax(log_odds(table)))
    x, y = (2 * corner for corner in corners[tile])
    slide = tifffile.imread(folder / "slide.tif")[y : y + 112, x : x + 112]
    shown = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(shown.mean(axis=(0, 1)), slide.mean(axis=(0, 1)), atol=1)


def test_pixels_in_memory_need_no_file(folder):
    stored = spatialdata.read_zarr(folder / "tiles.zarr")
    sdata = io.read_wsi(folder / "slide.tif", tile_um=TILE_UM)
    sdata.tables["table"].obsm["X_stp_images"] = stored["table"].obsm["X_stp_images"]
    sdata["table"].uns["X_stp_images"] = stored["table"].uns["X_stp_images"]
    tl.score_tiles(sdata, make_model(sdata["table"]))
    sdata.attrs["stp_slide"]["path"] = "nowhere.tif"
    from_memory, from_file = (pl.tiles(data, n=1).axes[0] for data in (sdata, stored))
    np.testing.assert_array_equal(
        from_memory.images[0].get_array(), from_file.images[0].get_array()
    )


def test_the_number_of_tiles_is_positive(tiles):
    with pytest.raises(ValueError, match="at least 1, not 0"):
        pl.tiles(tiles, n=0)


def test_tiles_of_a_real_slide_are_where_its_store_says(real, tmp_path):
    slide = real("wsi", "CMU-1-Small-Region.svs")
    sdata = io.read_wsi(slide, tile_um=112)
    table = sdata["table"]
    add_scores(table, -np.arange(table.n_obs, dtype=np.float32))
    io.write_tiles(sdata, tmp_path / "tiles.zarr")
    stored = spatialdata.read_zarr(tmp_path / "tiles.zarr")
    figure = pl.tiles(stored, n=1, save=tmp_path / "tiles.png")
    half = 56 / stored.attrs["stp_slide"]["um_per_px"]
    for ax, row in zip(figure.axes, (0, -1), strict=True):
        left, top = (table.obsm["spatial"][row] - half).astype(int)
        right, bottom = (table.obsm["spatial"][row] + half).astype(int)
        pixels = tifffile.imread(slide)[top:bottom, left:right]
        shown = np.asarray(ax.images[0].get_array())
        np.testing.assert_allclose(shown.mean(axis=(0, 1)), pixels.mean(axis=(0, 1)), atol=1.5)
    _, _, contribution = pl.attention(stored, save=tmp_path / "map.png").axes
    assert contribution.get_title() == "order"
    assert (tmp_path / "map.png").stat().st_size > 50_000


def add_scores(table, values):
    """Write scores of tiles as `tl.score_tiles` does, for one value."""
    import pandas as pd

    table.obs["stp_attention"] = np.float32(1 / table.n_obs)
    table.obs["stp_attention_rank"] = np.float32(0.5)
    table.obsm["stp_attention_contribution"] = values[:, None]
    row = {"target": "order", "kind": "value", "label": "", "positive": False, "scale": 1.0}
    table.uns["stp_attention"] = {
        "params": {"use_rep": "X_stp_images"},
        "outputs": pd.DataFrame([row], index=["order"]),
    }
