"""Spots are colored by columns, measured genes and predicted genes."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from stp import Vocabulary, pl

GENE = "ERBB2"


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def predicted(adata):
    adata.obsm["stp_expression"] = np.stack([np.arange(100.0), -np.arange(100.0)], axis=1)
    adata.obsm["stp_expression"][7] = np.nan
    adata.uns["stp_expression"] = {
        "genes": np.array([GENE, "NEW"], dtype=object),
        "units": "scores",
    }
    return adata


def draw(adata, name, **options):
    """Return the panel of a name."""
    (ax,) = pl.spots(adata, name, **options).axes
    return ax


def drawn(ax):
    return np.asarray(ax.collections[0].get_array())


def units(ax):
    return ax.child_axes[0].get_ylabel()


def test_measured_genes_are_log_counts(adata):
    counts = adata.X.toarray()
    expected = np.log1p(1e4 * counts[:, adata.var_names.get_loc(GENE)] / counts.sum(axis=1))
    ax = draw(adata, GENE)
    np.testing.assert_allclose(drawn(ax), expected, rtol=1e-5)
    assert (ax.get_title(), units(ax)) == (GENE, "log1p of counts per 10,000")


def test_values_that_are_no_counts_are_drawn_as_they_are(adata):
    adata.layers["scaled"] = adata.X.toarray() / 3 - 1
    ax = draw(adata, GENE, layer="scaled")
    column = adata.var_names.get_loc(GENE)
    np.testing.assert_allclose(drawn(ax), adata.layers["scaled"][:, column])
    assert units(ax) == "layer 'scaled'"
    adata.X = adata.layers["scaled"]
    assert units(draw(adata, GENE)) == "X"


def test_a_prediction_is_drawn_by_its_key_or_if_a_gene_is_not_measured(predicted):
    ax = draw(predicted, GENE, key="stp_expression")
    np.testing.assert_array_equal(drawn(ax), np.delete(np.arange(100.0), 7))
    assert (ax.get_title(), units(ax)) == ("ERBB2, predicted", "scores")
    np.testing.assert_array_equal(drawn(draw(predicted, "NEW")), -np.delete(np.arange(100.0), 7))
    assert draw(predicted, GENE).get_title() == GENE, "measured values come first"


def test_a_prediction_is_drawn_without_counts(predicted):
    without = predicted[:, :0].copy()
    assert draw(without, GENE).get_title() == "ERBB2, predicted"
    predicted.X = None
    assert draw(predicted, GENE).get_title() == "ERBB2, predicted"


def test_ambiguous_names_are_an_error(predicted):
    predicted.obsm["mine"] = predicted.obsm["stp_expression"]
    predicted.uns["mine"] = predicted.uns["stp_expression"]
    message = r"several predictions have 'NEW'; pass key= one of \['stp_expression', 'mine'\]"
    with pytest.raises(ValueError, match=message):
        pl.spots(predicted, "NEW")
    assert draw(predicted, "NEW", key="mine").get_title() == "NEW, predicted"
    predicted.obs[GENE] = 1.0
    with pytest.raises(ValueError, match=r"'ERBB2' is a column of adata\.obs and a gene; rename"):
        pl.spots(predicted, GENE)


def test_unknown_names_are_an_error_with_similar_names(predicted):
    message = r"neither a column of adata\.obs nor a gene .* did you mean \['ERBB2'"
    with pytest.raises(KeyError, match=message):
        pl.spots(predicted, ["array_row", "ERBB22"])
    with pytest.raises(KeyError, match=r"nor a gene of the prediction 'stp_expression'; "):
        pl.spots(predicted, "LUM", key="stp_expression")
    with pytest.raises(KeyError, match=r"run stp\.tl\.predict_expression\(adata, reference\)"):
        pl.spots(predicted, GENE, key="other")


def test_a_palette_colors_categories_and_is_stored(adata):
    adata.obs["half"] = np.repeat(["a", "b"], 50)
    adata.obs["half"] = adata.obs["half"].astype("category")
    for palette in ({"b": "red", "a": "#00ff00"}, ["#00ff00", "red"]):
        colors = draw(adata, "half", palette=palette).collections[0].get_facecolors()
        assert mpl.colors.to_hex(colors[0]) == "#00ff00"
        assert mpl.colors.to_hex(colors[-1]) == "#ff0000"
        assert list(adata.uns["half_colors"]) == ["#00ff00", "#ff0000"]
    draw(adata, "half", palette="Set2")
    assert (
        adata.uns["half_colors"] == [mpl.colors.to_hex(c) for c in mpl.color_sequences["Set2"]][:2]
    )


@pytest.mark.parametrize(
    ("palette", "message"),
    [
        (["red"], "palette has 1 colors for the 2 categories"),
        ({"a": "red"}, r"palette has no color for \['b'\]; it has \['a'\]"),
        ("nothing", "palette 'nothing' is no color map of matplotlib"),
    ],
)
def test_palettes_without_enough_colors_are_an_error(adata, palette, message):
    adata.obs["half"] = np.repeat(["a", "b"], 50)
    with pytest.raises(ValueError, match=message):
        pl.spots(adata, "half", palette=palette)


def test_own_axes_take_one_name(adata):
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match="ax is one panel, but color has 2 names; pass one name"):
        pl.spots(adata, ["array_row", "array_col"], ax=ax)


ERBB2_ID = "ENSG00000141736"


@pytest.mark.parametrize("name", [GENE, ERBB2_ID, "HER2"])
@pytest.mark.parametrize("has_symbols", [True, False])
def test_genes_of_a_table_with_ids_have_symbols(adata, name, has_symbols):
    expected = drawn(draw(adata, GENE))
    vocabulary = Vocabulary.default()
    if has_symbols:
        adata.var["symbol"] = adata.var_names
    adata.var_names = vocabulary.gene_ids[vocabulary.encode(adata.var_names)]
    ax = draw(adata, name)
    np.testing.assert_array_equal(drawn(ax), expected)
    assert ax.get_title() == GENE


@pytest.mark.parametrize("name", [GENE, ERBB2_ID, "HER2"])
def test_predicted_genes_are_found_by_all_their_names(predicted, name):
    predicted.uns["stp_expression"]["gene_ids"] = [ERBB2_ID, ""]
    ax = draw(predicted, name, key="stp_expression")
    np.testing.assert_array_equal(drawn(ax), np.delete(np.arange(100.0), 7))
    assert ax.get_title() == f"{GENE}, predicted"


def test_a_column_with_the_symbol_of_a_gene_is_refused(adata):
    adata.var["symbol"] = [f"symbol of {name}" for name in adata.var_names]
    adata.var_names = [f"ENSG9{i:010d}" for i in range(adata.n_vars)]
    adata.obs["symbol of LUM"] = 1.0
    with pytest.raises(ValueError, match="'symbol of LUM' is a column of adata.obs and a gene"):
        draw(adata, "symbol of LUM")
