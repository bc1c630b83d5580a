import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib_scalebar.scalebar import ScaleBar

from stp import io, pl


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def predicted(adata):
    """Add a prediction: ERBB2 is perfect, LUM is reversed, and one spot has none."""
    counts = adata.X.toarray()
    profiles = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    columns = adata.var_names.get_indexer(["LUM", "ERBB2"])
    adata.obsm["stp_expression"] = profiles[:, columns] * [-0.1, 0.1] + [9, 0]
    adata.obsm["stp_expression"][7] = np.nan
    units = "log1p of counts per 10,000"
    adata.uns["stp_expression"] = {
        "genes": np.array(["LUM", "ERBB2"], dtype=object),
        "params": {},
        "units": units,
    }
    adata.uns["truth"] = profiles[:, columns]
    return adata


TITLES = [
    "ERBB2, measured",
    "ERBB2, predicted (r = 1.00)",
    "ERBB2, predicted, own scale",
    "LUM, measured",
    "LUM, predicted (r = -1.00)",
    "LUM, predicted, own scale",
]


def test_expression_is_drawn_on_both_scales(predicted):
    figure = pl.expression(predicted, ["ERBB2", "LUM"])
    panels = figure.axes[:6]
    assert [ax.get_title() for ax in panels] == TITLES
    has_prediction = np.arange(100) != 7
    truth = predicted.uns["truth"]
    prediction = predicted.obsm["stp_expression"]
    for row, column in enumerate((1, 0)):
        measured, same_scale, own_scale = (
            ax.collections[0] for ax in panels[3 * row : 3 * row + 3]
        )
        np.testing.assert_allclose(measured.get_array(), truth[:, column], rtol=1e-5)
        for points in (same_scale, own_scale):
            np.testing.assert_allclose(
                points.get_array(), prediction[has_prediction, column], rtol=1e-5
            )
        assert measured.norm.vmin == pytest.approx(truth[:, column].min())
        assert measured.norm.vmax == pytest.approx(truth[:, column].max())
        assert same_scale.norm.vmin == measured.norm.vmin
        assert same_scale.norm.vmax == measured.norm.vmax
        assert own_scale.norm.vmin == np.nanmin(prediction[:, column])
        assert own_scale.norm.vmax == np.nanmax(prediction[:, column])
    assert all(ax.yaxis_inverted() and ax.get_aspect() == 1 for ax in panels)
    bars = [ax.child_axes[0].get_ylabel() for ax in panels]
    assert bars == ["log1p of counts per 10,000"] * 6


def test_expression_is_drawn_on_the_tissue(predicted, image):
    sdata = io.from_anndata(predicted, image, um_per_px=1.0)
    panels = pl.expression(sdata, "ERBB2").axes[:3]
    for ax in panels:
        (picture,) = ax.images
        height, width = picture.get_array().shape[:2]
        assert max(height, width) == 1600
        assert height / width == pytest.approx(image.shape[0] / image.shape[1], abs=0.01)
        assert picture.get_extent() == [0, image.shape[1], image.shape[0], 0]
        low, high = sorted(ax.get_ylim())
        y = predicted.obsm["spatial"][:, 1]
        assert 0 <= low < y.min() < y.max() < high
        (bar,) = [artist for artist in ax.artists if isinstance(artist, ScaleBar)]
        assert (bar.dx, bar.units) == (1.0, "um")
    assert len({ax.images[0].get_alpha() for ax in panels}) == 1
    np.testing.assert_allclose(panels[0].collections[0].get_offsets(), predicted.obsm["spatial"])


def crosses_of(ax):
    """Return the markers that are drawn on the spots, which are circles."""
    return [points for points in ax.collections if isinstance(points, PathCollection)]


@pytest.mark.parametrize("has_image", [False, True])
def test_doubtful_predictions_are_marked(predicted, image, has_image):
    predicted.obs["stp_expression_far"] = np.isin(np.arange(100), [3, 50])
    predicted.obs["stp_expression_uniform"] = np.isin(np.arange(100), [50, 60])
    data = io.from_anndata(predicted, image, um_per_px=1.0) if has_image else predicted
    figure = pl.expression(data, ["LUM", "ERBB2"])
    expected = predicted.obsm["spatial"][[3, 50, 60]]
    for row in range(2):
        measured, *both_predicted = figure.axes[3 * row : 3 * row + 3]
        assert not crosses_of(measured)
        for ax in both_predicted:
            (crosses,) = crosses_of(ax)
            np.testing.assert_allclose(crosses.get_offsets().data, expected, rtol=1e-5)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "far from all references (3 of 100 spots)"
    ]


def test_no_mark_and_no_legend_without_doubtful_predictions(predicted):
    predicted.obs["stp_expression_far"] = False
    figure = pl.expression(predicted, "LUM")
    assert not figure.legends
    assert not any(crosses_of(ax) for ax in figure.axes[:3])


def test_expression_takes_a_layer_and_other_keys(predicted):
    predicted.layers["counts"] = predicted.X.copy()
    predicted.X = None
    predicted.obsm["xy"] = predicted.obsm.pop("spatial")
    predicted.obsm["mine"] = predicted.obsm["stp_expression"]
    predicted.uns["mine"] = {**predicted.uns["stp_expression"], "genes": ["A", "LUM"]}
    panels = pl.expression(predicted, "LUM", key="mine", layer="counts", spatial_key="xy").axes[:3]
    drawn = panels[1].collections[0].get_array()
    np.testing.assert_allclose(
        drawn, np.delete(predicted.obsm["stp_expression"][:, 1], 7), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("change", "genes", "message"),
    [
        (
            lambda a: a.obsm.pop("stp_expression"),
            "LUM",
            r"run stp\.tl\.predict_expression\(adata, reference\) first",
        ),
        (lambda a: a.obsm.pop("spatial"), "LUM", r"obsm\['spatial'\] is missing"),
        (
            lambda a: None,
            ["LUM", "CD3E"],
            r"\['CD3E'\] were not predicted; choose from adata\.uns\['stp_expression'\]",
        ),
        (
            lambda a: a.uns["stp_expression"].update(genes=["NEW", "X"]),
            "NEW",
            r"\['NEW'\] are not measured",
        ),
    ],
    ids=["prediction", "coordinates", "not predicted", "not measured"],
)
def test_missing_values_are_named(predicted, change, genes, message):
    change(predicted)
    with pytest.raises(KeyError, match=message):
        pl.expression(predicted, genes)


def test_units_must_be_the_same(predicted):
    predicted.uns["stp_expression"]["units"] = "layer 'scaled'"
    with pytest.raises(
        ValueError, match="predicted is layer 'scaled', measured is log1p of counts per 10,000"
    ):
        pl.expression(predicted, "LUM")
    with pytest.raises(ValueError, match="predicted is layer 'scaled'"):
        pl.gene_correlation(predicted)


@pytest.mark.parametrize("draw", [lambda adata: pl.expression(adata, "LUM"), pl.gene_correlation])
def test_genes_of_one_name_are_refused(predicted, draw):
    predicted.var_names = [*predicted.var_names[:-1], "DCN"]
    with pytest.raises(
        ValueError,
        match=r"gene names of adata are not unique, e\.g\. \['DCN'\]; call its var_names_make",
    ):
        draw(predicted)


@pytest.mark.parametrize("draw", [lambda adata: pl.expression(adata, "LUM"), pl.gene_correlation])
def test_a_prediction_without_a_value_is_refused(predicted, draw):
    predicted.obsm["stp_expression"][:] = np.nan
    with pytest.raises(ValueError, match="has no prediction for any spot"):
        draw(predicted)


def test_spots_without_a_prediction_are_gray(predicted):
    panels = pl.expression(predicted, "ERBB2", cmap="viridis", title=["a", "b", "c"]).axes
    assert [ax.get_title() for ax in panels] == ["a", "b", "c"]
    assert [len(ax.collections) for ax in panels] == [1, 2, 2]
    (place,) = panels[1].collections[1].get_offsets()
    np.testing.assert_array_equal(place, predicted.obsm["spatial"][7])
    assert panels[1].collections[0].get_cmap().name == "viridis"


def test_gene_correlation_by_rank_and_mean(predicted):
    predicted.obsm["stp_expression"] = np.column_stack(
        [predicted.obsm["stp_expression"], np.ones(100)]
    )
    predicted.uns["stp_expression"]["genes"] = ["LUM", "ERBB2", "NOT MEASURED"]
    ranks, means = pl.gene_correlation(predicted, n_named=1).axes
    assert ranks.get_title() == "2 genes, 1 not measured"
    np.testing.assert_allclose(ranks.lines[0].get_ydata(), [1, -1], atol=1e-5)
    assert [text.get_text() for text in ranks.texts] == ["ERBB2 1.00", "LUM -1.00"]
    x, y = means.collections[0].get_offsets().data.T
    np.testing.assert_allclose(
        x, np.delete(predicted.uns["truth"], 7, axis=0).mean(axis=0), rtol=1e-5
    )
    np.testing.assert_allclose(y, [-1, 1], atol=1e-5)
    predicted.uns["stp_expression"]["genes"] = ["A", "B", "C"]
    with pytest.raises(ValueError, match=r"no predicted gene is measured: \['A', 'B', 'C'\]"):
        pl.gene_correlation(predicted)
