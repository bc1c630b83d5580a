import json

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib_scalebar.scalebar import ScaleBar
from spatialdata.models import TableModel

from stp import io, pl
from stp.pl import _colors


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def titles(figure):
    return [ax.get_title() for ax in figure.axes]


def rectangles(ax):
    return [patch for patch in ax.patches if isinstance(patch, Rectangle)]


@pytest.mark.parametrize(
    "draw", [pl.patches, lambda sdata: pl.spots(sdata, "array_row")], ids=["patches", "spots"]
)
def test_a_table_of_several_slides_is_an_error(sdata, draw):
    table = sdata["table"].copy()
    table.obs["stp_region"] = pd.Categorical(["slide"] * 50 + ["other"] * 50)
    del table.uns["spatialdata_attrs"]
    sdata.shapes["other"] = sdata["slide"]
    sdata.tables["table"] = TableModel.parse(
        table, region=["slide", "other"], region_key="stp_region", instance_key="stp_spot"
    )
    with pytest.raises(ValueError, match=r"the table covers the regions \['slide', 'other'\]"):
        draw(sdata)


# ---- patches


def test_patches_shows_tissue_patches_and_regions(sdata, image):
    figure = pl.patches(sdata)
    assert isinstance(figure, Figure)
    overview, *pictures = figure.axes
    assert overview.get_title() == "slide_full_image, 100 spots"
    assert (overview.get_xlabel(), overview.get_ylabel()) == ("µm", "µm")
    height, width = image.shape[:2]
    assert overview.images[0].get_extent() == [0, width, height, 0]
    assert len(pictures) == 12  # six spots, from top to bottom
    patches, regions = pictures[:6], pictures[6:]
    names = [ax.get_title() for ax in patches]
    y = sdata.tables["table"][names].obsm["spatial"][:, 1]
    assert len(set(names)) == 6
    assert (np.diff(y) >= 0).all()
    assert [ax.get_title() for ax in regions] == [""] * 6


def test_patches_are_what_lies_around_the_spots(sdata, image):
    spot = "spot33"
    _, patch, region = pl.patches(sdata, spots=[spot], patch_um=224.0).axes
    x, y = np.floor(sdata.tables["table"][spot].obsm["spatial"][0] - 112 + 0.5).astype(int)
    np.testing.assert_array_equal(patch.images[0].get_array(), image[y : y + 224, x : x + 224])
    assert patch.images[0].get_extent() == [0, 224, 224, 0]
    assert region.images[0].get_extent() == [0, 672, 672, 0]
    # The middle of the region is the patch, three times smaller.
    inner = region.images[0].get_array()[75:149, 75:149].astype(float)
    small = image[y : y + 222, x : x + 222].reshape(74, 3, 74, 3, 3).mean(axis=(1, 3))
    assert np.abs(inner - small).mean() < 4


def test_patches_outlines_the_patch_in_its_region_and_on_the_tissue(sdata):
    overview, patch, region = pl.patches(sdata, spots=["spot33"], patch_um=100.0).axes
    (outline,) = rectangles(region)
    assert (outline.get_xy(), outline.get_width(), outline.get_height()) == ((100, 100), 100, 100)
    assert not rectangles(patch)
    (outline,) = rectangles(overview)
    center = np.add(outline.get_xy(), 50)
    np.testing.assert_allclose(center, sdata.tables["table"]["spot33"].obsm["spatial"][0])
    np.testing.assert_allclose(
        overview.collections[0].get_offsets(), sdata.tables["table"].obsm["spatial"]
    )


def test_patches_have_scale_bars_of_true_length(sdata):
    _, patch, region = pl.patches(sdata, spots="spot33").axes
    for ax, length in ((patch, 50), (region, 100)):
        (bar,) = [artist for artist in ax.artists if isinstance(artist, ScaleBar)]
        assert (bar.dx, bar.units, bar.fixed_value) == (1.0, "um", length)
        assert bar.box_alpha > 0.5, "the bar is readable on dark tissue"


def test_patches_and_overview_are_in_um_whatever_the_pixel(adata, image):
    adata.obsm["spatial"] = adata.obsm["spatial"] / 2  # 2 um per pixel
    sdata = io.from_anndata(adata, image[::2, ::2], um_per_px=2.0)
    overview, patch, _ = pl.patches(sdata, spots=["spot0"], patch_um=100.0).axes
    np.testing.assert_allclose(overview.collections[0].get_offsets()[0], [200, 200])
    assert patch.images[0].get_extent() == [0, 100, 100, 0]
    assert overview.images[0].get_extent() == pytest.approx(
        [0, image.shape[1], image.shape[0], 0], abs=2
    )


def test_patches_of_few_spots_shows_them_all(sdata):
    sdata.tables["table"] = sdata.tables["table"][:2].copy()
    assert titles(pl.patches(sdata))[1:3] == ["spot0", "spot1"]


def test_patches_of_unknown_spots_are_an_error(sdata):
    with pytest.raises(
        KeyError, match=r"no spots \['nowhere'\]; choose from the table's obs_names"
    ):
        pl.patches(sdata, spots=["spot0", "nowhere"])


# ---- spots


@pytest.fixture
def colored(sdata):
    obs = sdata.tables["table"].obs
    obs["domain"] = pd.Categorical(np.repeat(["tumor", "stroma"], 50))
    obs["depth"] = np.arange(100.0)
    return sdata


def test_spots_draws_categories_with_a_legend_on_the_tissue(colored, image):
    colored.tables["table"].obs.loc["spot3", "domain"] = None
    tissue, ax = pl.spots(colored, "domain").axes
    assert (tissue.get_title(), ax.get_title()) == ("H&E", "domain")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "stroma",
        "tumor",
        "missing",
    ]
    spots, missing = ax.collections
    colors = spots.get_facecolors()
    assert len(colors) == 99
    assert mpl.colors.to_hex(missing.get_facecolor()[0]) == _colors.MISSING
    np.testing.assert_allclose(missing.get_offsets(), colored["table"]["spot3"].obsm["spatial"])
    assert len(np.unique(colors, axis=0)) == 2
    assert (colors[:49] == colors[0]).all()
    assert (colors[49:] == colors[-1]).all()
    for panel in (tissue, ax):
        (picture,) = panel.images
        height, width = picture.get_array().shape[:2]
        assert height / width == pytest.approx(image.shape[0] / image.shape[1], abs=0.01)
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "y points down, as in the image"
    assert ax.get_xlim() == tissue.get_xlim()
    assert ax.get_ylim() == tissue.get_ylim()


def test_categories_have_the_colors_that_scanpy_or_the_user_gave_them(colored):
    table = colored.tables["table"]
    table.obs["domain"] = table.obs["domain"].cat.add_categories(["fat"])
    table.uns["domain_colors"] = ["#ff0000", "#00ff00", "#0000ff"]  # of stroma, tumor, fat
    colors = pl.spots(colored, "domain").axes[1].collections[0].get_facecolors()[:, :3]
    assert (colors[:50] == [0, 1, 0]).all()
    assert (colors[50:] == [1, 0, 0]).all()
    table.uns["domain_colors"] = ["#ff0000"]  # too few: of another clustering
    colors = pl.spots(colored, "domain").axes[1].collections[0].get_facecolors()[:, :3]
    assert not (colors[50] == [1, 0, 0]).all()
    # Later plots of scanpy and squidpy use the same colors.
    assert list(table.uns["domain_colors"]) == _colors.TEN[:3]


def test_tissue_and_its_scale_bar_are_in_um(colored, image):
    for ax in pl.spots(colored, "domain").axes:
        (bar,) = [artist for artist in ax.artists if isinstance(artist, ScaleBar)]
        assert (bar.dx, bar.units) == (1.0, "um"), "the axes are in um"
        height, width = image.shape[:2]
        assert ax.images[0].get_extent() == [0, width, height, 0]


def test_spots_draws_numbers_with_a_color_bar(colored):
    _, ax = pl.spots(colored, "depth").axes
    (bar,) = ax.child_axes
    np.testing.assert_array_equal(ax.collections[0].get_array(), np.arange(100.0))
    assert ax.get_legend() is None
    assert bar.get_ylim() == (0, 99)
    ax.figure.draw_without_rendering()
    assert bar.get_window_extent().height == pytest.approx(ax.get_window_extent().height)


@pytest.mark.parametrize("dtype", ["bool", "boolean", "object"])
def test_spots_draws_booleans_as_categories(colored, dtype):
    colored.tables["table"].obs["inside"] = pd.Series(
        np.arange(100) < 50, colored["table"].obs_names
    ).astype(dtype)
    if dtype != "bool":
        colored.tables["table"].obs.loc["spot3", "inside"] = None
    ax = pl.spots(colored, "inside").axes[1]
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["False", "True"] + ["missing"] * (dtype != "bool")
    assert len(ax.collections[0].get_facecolors()) == (100 if dtype == "bool" else 99)
    colored.tables["table"].obs["inside"] = True
    colors = pl.spots(colored, "inside").axes[1].collections[0].get_facecolors()
    assert mpl.colors.to_hex(colors[0]) == _colors.TEN[1], "True has its color without False too"


@pytest.mark.parametrize("dtype", ["Int64", "Float32"])
def test_spots_draws_numbers_that_may_be_missing(colored, dtype):
    depth = colored.tables["table"].obs["depth"]
    colored.tables["table"].obs["depth"] = depth.where(depth != 3).astype(dtype)
    drawn = pl.spots(colored, "depth").axes[1].collections[0].get_array()
    np.testing.assert_array_equal(drawn, np.delete(np.arange(100.0), 3))


def test_spots_draws_a_panel_per_column(colored):
    assert titles(pl.spots(colored, ["domain", "depth"])) == ["H&E", "domain", "depth"]
    many = pl.spots(colored, ["domain", "depth", "array_row", "array_col"]).axes
    assert [ax.get_subplotspec().rowspan.start for ax in many] == [0, 0, 0, 0, 1]


# ---- training


def log_line(phase, step, split="train", **values):
    return {"phase": phase, "epoch": 0, "step": step, "split": split, **values}


LINES = [
    log_line(0, 10, masked=3.0, loss=3.0, learning_rate=1e-4, spots_per_second=9.0),
    log_line(0, 20, masked=2.0, loss=2.0, learning_rate=1e-4, spots_per_second=9.0),
    log_line(0, 20, "validation", masked=2.5, score=-2.5),
    log_line(
        1, 5, masked=2.0, neighborhood=4.0, loss=6.0, learning_rate=1e-4, spots_per_second=9.0
    ),
    log_line(
        1, 15, masked=1.0, neighborhood=3.0, loss=4.0, learning_rate=1e-4, spots_per_second=9.0
    ),
]


def write(folder, lines, end=""):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + end)


def curves(ax):
    return {
        curve.get_label(): (list(curve.get_xdata()), list(curve.get_ydata()))
        for curve in ax.lines
        if not curve.get_label().startswith("_")
    }


@pytest.mark.parametrize("end", ["", '{"phase": 1, "st'], ids=["whole", "being written"])
def test_training_draws_a_panel_per_metric_and_phase(tmp_path, end):
    write(tmp_path, LINES, end)
    figure = pl.training(tmp_path)
    assert titles(figure) == [
        f"{name}, phase {number} of 2"
        for name in ("loss", "masked", "neighborhood")
        for number in (1, 2)
    ]
    assert [curves(ax) for ax in figure.axes] == [
        {"train": ([10, 20], [3, 2])},
        {"train": ([5, 15], [6, 4])},
        {"train": ([10, 20], [3, 2]), "validation": ([20], [2.5])},
        {"train": ([5, 15], [2, 1])},
        {},
        {"train": ([5, 15], [4, 3])},
    ]
    assert [ax.get_visible() for ax in figure.axes] == [True] * 4 + [False, True]
    assert all(ax.get_xlabel() == "step" for ax in figure.axes)


def test_training_never_goes_back_if_more_processes_make_fewer_steps(tmp_path):
    steps = [10, 20, 12, 14]  # twice as many processes after step 20
    write(tmp_path, [log_line(0, step, loss=1.0) for step in steps] + [log_line(1, 5, loss=1.0)])
    first, second = pl.training(tmp_path).axes
    assert curves(first)["train"][0] == [10, 20, 20, 22]
    assert curves(second)["train"][0] == [5]


def test_training_draws_a_chance_of_one_in_nine_for_localization(tmp_path):
    write(tmp_path, [log_line(0, 10, localized=0.2), log_line(0, 20, localized=0.4)])
    (ax,) = pl.training(str(tmp_path)).axes
    assert [list(curve.get_ydata()) for curve in ax.lines] == [[0.2, 0.4], [1 / 9, 1 / 9]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train", "chance"]


def test_training_draws_recalls_in_one_panel_with_their_chance(tmp_path):
    scores = {"recall@1": 0.1, "recall@5": 0.3, "chance@5": 0.05, "score": 0.3}
    write(tmp_path, [log_line(0, 10, loss=1.0), log_line(0, 10, "validation", **scores)])
    figure = pl.training(str(tmp_path))
    assert titles(figure) == ["loss", "recall"]
    recall = figure.axes[1]
    legend = [text.get_text() for text in recall.get_legend().get_texts()]
    assert legend == ["recall@1", "recall@5", "chance"]
    by_1, by_5, chance = (line for line in recall.lines if len(line.get_xdata()))
    assert [list(line.get_ydata()) for line in (by_1, by_5, chance)] == [[0.1], [0.3], [0.05]]
    assert chance.get_color() == by_5.get_color() != by_1.get_color()


def test_training_hides_empty_panels(tmp_path):
    write(tmp_path, [log_line(0, 10, **dict.fromkeys(["loss", "a", "b", "c", "d"], 1.0))])
    axes = pl.training(tmp_path).axes
    assert [ax.get_visible() for ax in axes] == [True] * 5 + [False] * 3


def test_a_folder_without_metrics_is_an_error(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"has no metrics\.jsonl; give the output_dir of stp\.train\.pretrain",
    ):
        pl.training(tmp_path)
    write(tmp_path, [])
    with pytest.raises(ValueError, match="has no line yet"):
        pl.training(tmp_path)
