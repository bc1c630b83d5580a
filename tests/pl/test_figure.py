"""Figures are shown, saved and returned as the user asks."""

import inspect
import io

import anndata
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import scanpy

from stp import pl
from stp.pl import _colors

INLINE = "module://matplotlib_inline.backend_inline"


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")
    plt.switch_backend("agg")


@pytest.fixture
def adata():
    grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), axis=-1).reshape(-1, 2)
    adata = anndata.AnnData(np.zeros((25, 1), np.float32), obsm={"spatial": 100 * grid})
    adata.obs["half"] = pd.Categorical(np.repeat(["a", "b"], [12, 13]))
    adata.obs["depth"] = np.arange(25.0)
    return adata


@pytest.fixture
def displayed(monkeypatch):
    """Switch to the backend of Jupyter, and list the figures that it shows."""
    from matplotlib_inline import backend_inline

    plt.close("all")  # of tests before
    figures = []
    monkeypatch.setattr(backend_inline, "display", lambda figure, **_: figures.append(figure))
    plt.switch_backend(INLINE)
    return figures


def end_cell():
    """Show what is still open, as Jupyter does at the end of a cell."""
    plt.show()


def test_jupyter_shows_a_figure_once_and_nothing_is_returned(adata, displayed):
    assert pl.spots(adata, "half") is None
    end_cell()
    assert len(displayed) == 1


@pytest.mark.parametrize("options", [{"show": False}, {"return_fig": True}])
def test_a_returned_figure_is_shown_by_jupyter_only_as_the_value_of_a_cell(
    adata, displayed, options
):
    figure = pl.spots(adata, "half", **options)
    end_cell()
    assert not displayed
    assert [ax.get_title() for ax in figure.axes] == ["half"]
    figure.savefig(io.BytesIO())


@pytest.fixture
def no_autoshow():
    scanpy.settings.autoshow = False
    yield
    scanpy.settings.autoshow = True


def test_scanpy_can_turn_off_showing(adata, displayed, no_autoshow):
    assert pl.spots(adata, "half") is not None
    assert not displayed
    assert pl.spots(adata, "half", show=True) is None
    assert len(displayed) == 1


def test_scripts_that_cannot_show_get_the_figure(adata):
    figure = pl.spots(adata, "half")
    assert figure.number in plt.get_fignums(), "plt.savefig saves this figure"


def test_own_axes_are_drawn_on_and_shown_with_their_figure(adata, displayed):
    figure, (left, right) = plt.subplots(1, 2)
    assert pl.spots(adata, "half", ax=left) is None
    assert pl.neighborhoods(adata, ax=right, title="groups") is None
    assert not displayed
    assert (left.get_title(), right.get_title()) == ("half", "groups")
    assert pl.spots(adata, "depth", ax=left, return_fig=True) is figure
    end_cell()
    assert displayed == [figure]


def test_a_figure_is_saved(adata, tmp_path, displayed):
    assert pl.spots(adata, "half", save=tmp_path / "spots.png") is None
    assert len(displayed) == 1, "it is shown too"
    assert max(PIL.Image.open(tmp_path / "spots.png").size) > 600
    pl.spots(adata, "half", save=str(tmp_path / "spots.svg"), show=False)
    assert "<svg" in (tmp_path / "spots.svg").read_text()
    with pytest.raises(TypeError, match=r"save is True; pass the path of a file, such as 'figure"):
        pl.spots(adata, "half", save=True)


@pytest.mark.parametrize(
    ("title", "panels", "above"),
    [
        (None, ["half", "depth"], ""),
        ("both", ["half", "depth"], "both"),
        (["one", "two"], ["one", "two"], ""),
    ],
)
def test_titles_are_those_of_panels_or_above_them(adata, title, panels, above):
    figure = pl.spots(adata, ["half", "depth"], title=title)
    assert [ax.get_title() for ax in figure.axes] == panels
    assert figure.get_suptitle() == above


def test_titles_must_be_as_many_as_panels(adata):
    with pytest.raises(ValueError, match="title has 2 titles for 1 panels"):
        pl.spots(adata, "half", title=["one", "two"])


def test_long_titles_do_not_run_into_the_next_panel(adata):
    name = "a_long_name_of_a_column_with_clusters_that_does_not_fit_on_a_line"
    adata.obs[name] = adata.obs["half"]
    ax, other = pl.spots(adata, [name, "depth"]).axes
    ax.figure.draw_without_rendering()
    assert ax.get_title().replace("\n", "") == name
    assert ax.title.get_window_extent().x1 < other.get_window_extent().x0


@pytest.mark.parametrize("name", pl.__all__)
def test_all_figures_have_the_options_of_scanpy(name):
    function = getattr(pl, name)
    options = set(inspect.signature(function).parameters)
    assert {"show", "save", "return_fig", "title"} <= options
    is_single = name in {
        "attention",
        "batch_effect",
        "calibration",
        "confusion",
        "kaplan_meier",
        "neighborhoods",
        "precision_recall",
        "roc",
        "slide_genes",
        "spots",
        "tissue",
    }
    assert ("ax" in options) == is_single


def add_results(adata):
    """Add a probe and a comparison of batches."""
    adata.uns["stp_probe"] = {
        "scores": pd.DataFrame({"balanced_accuracy": [0.5]}),
        "confusion": np.eye(2),
        "classes": np.array(["a", "b"], dtype=object),
        "params": {"label_key": "half"},
    }
    scores = {"batch_accuracy": 0.4, "batch_chance": 0.2, "label_accuracy": 0.8}
    adata.uns["stp_batch_effect"] = {
        "scores": pd.DataFrame({**scores, "label_chance": 0.5}, index=["X_a"]),
        "params": {"batch_key": "slide", "label_key": "half"},
    }


@pytest.mark.parametrize("draw", [pl.confusion, pl.batch_effect, pl.neighborhoods, pl.tissue])
def test_single_panels_are_drawn_on_own_axes(draw, sdata):
    add_results(sdata["table"])
    figure, (_, ax) = plt.subplots(1, 2)
    assert draw(sdata, ax=ax, title="mine", return_fig=True) is figure
    assert figure.axes[1:] == [ax]
    assert ax.get_title() == "mine"
    assert ax.has_data()


def test_colors_are_those_of_the_user(adata):
    add_results(adata)
    bars = pl.batch_effect(adata, palette={"label": "red", "batch": "blue"}).axes[0].patches
    assert [mpl.colors.to_hex(bar.get_facecolor()) for bar in bars] == ["#0000ff", "#ff0000"]
    assert pl.confusion(adata, cmap="Reds").axes[0].images[0].get_cmap().name == "Reds"
    (ax,) = pl.neighborhoods(adata, group_size=5, palette=["red"], size=2.0).axes
    spokes = [spots.get_facecolor()[0] for spots in ax.collections if len(spots.get_facecolor())]
    assert {mpl.colors.to_hex(color) for color in spokes} == {"#ff0000"}


def test_missing_values_are_gray(adata):
    adata.obs.loc["3", "depth"] = np.nan
    (ax,) = pl.spots(adata, "depth", cmap="viridis").axes
    values, missing = ax.collections
    assert (values.get_cmap().name, len(values.get_offsets())) == ("viridis", 24)
    np.testing.assert_array_equal(missing.get_offsets(), adata.obsm["spatial"][[3]])
    red, green, blue, _ = missing.get_facecolor()[0]
    assert red == green == blue
    assert mpl.colors.to_hex(missing.get_facecolor()[0]) == _colors.MISSING
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["missing"]


def test_size_is_a_factor_of_the_distance_to_the_next_spot(adata):
    for size, diameter in ((1.0, 80), (0.5, 40)):
        (ax,) = pl.spots(adata, "depth", size=size).axes
        assert ax.collections[0].get_widths() == pytest.approx([diameter] * 25)


def test_colors_of_very_many_spots_are_not_paled_by_gaps(tmp_path):
    grid = np.stack(np.meshgrid(np.arange(150.0), np.arange(150.0)), axis=-1).reshape(-1, 2)
    adata = anndata.AnnData(np.zeros((len(grid), 1), np.float32), obsm={"spatial": grid})
    adata.obs["same"] = "a"
    pl.spots(adata, "same", palette=["#000000"], save=tmp_path / "spots.png")
    pixels = np.asarray(PIL.Image.open(tmp_path / "spots.png").convert("L"))
    height, width = pixels.shape
    assert pixels[height // 3 : height // 2, width // 3 : width // 2].max() < 20
