"""The figure of the genes behind a slide model."""

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from stp import pl


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def cohort():
    effects = {"mutated": [0.6, -0.5, 0.3, np.nan], "purity": [0.2, 0.1, -0.1, 0.05]}
    rows = [
        {
            "target": {"mutated": "EGFR", "purity": "purity"}[output],
            "output": output,
            "side": side,
            "gene": f"GENE{number}",
            "effect": effect if side == "all" else -effect,
            "low": effect - 0.1,
            "high": effect + 0.1,
            "q": [0.0004, 0.02, 0.3, np.nan][number],
        }
        for output, values in effects.items()
        for side in ("all", "high")
        for number, effect in enumerate(values)
    ]
    adata = anndata.AnnData(obs=pd.DataFrame(index=["slide"]))
    adata.uns["stp_slide_genes"] = {"genes": pd.DataFrame(rows)}
    return adata


def test_genes_are_drawn_from_the_strongest_with_effect_interval_and_q(cohort):
    figure = pl.slide_genes(cohort, target="EGFR", return_fig=True)
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_yticklabels()] == ["GENE0", "GENE1", "GENE2"]
    lines, dots = ax.collections
    np.testing.assert_allclose(dots.get_offsets()[:, 0], [0.6, -0.5, 0.3])
    segments = np.array(lines.get_segments())[:, :, 0]
    np.testing.assert_allclose(segments, [[0.5, 0.7], [-0.6, -0.4], [0.2, 0.4]])
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first gene is on top
    is_white = (dots.get_facecolor()[:, :3] == 1).all(axis=1)
    assert is_white.tolist() == [False, False, True]
    red, blue = dots.get_edgecolor()[0], dots.get_edgecolor()[1]
    assert (red != blue).any() and (dots.get_edgecolor()[2] == red).all()
    assert [text.get_text() for text in ax.texts] == ["q < 0.001", "q 0.020", "q 0.30"]
    assert ax.get_title() == "EGFR: mutated"


def test_each_output_has_a_panel(cohort):
    figure = pl.slide_genes(cohort, n_genes=2, title=["a", "b"], return_fig=True)
    assert [ax.get_title() for ax in figure.axes] == ["a", "b"]
    assert [len(ax.get_yticks()) for ax in figure.axes] == [2, 2]
    figure = pl.slide_genes(cohort, return_fig=True)
    assert [ax.get_title() for ax in figure.axes] == ["EGFR: mutated", "purity"]


def test_a_side_and_colors_are_those_asked_for(cohort):
    palette = {"positive": "#00ff00", "negative": "#000000"}
    figure = pl.slide_genes(cohort, target="EGFR", side="high", palette=palette, return_fig=True)
    dots = figure.axes[0].collections[1]
    np.testing.assert_allclose(dots.get_offsets()[:, 0], [-0.6, 0.5, -0.3])
    np.testing.assert_allclose(dots.get_edgecolor()[1], [0, 1, 0, 1])


def test_genes_of_spots_are_drawn_too(cohort, tmp_path):
    genes = cohort.uns["stp_slide_genes"]["genes"]
    genes = genes[genes["side"] == "all"].drop(columns="side")
    cohort.uns["stp_spot_genes"] = {"genes": genes}
    _, ax = plt.subplots()
    path = tmp_path / "genes.png"
    pl.slide_genes(cohort, key="stp_spot_genes", target="purity", ax=ax, save=path)
    assert len(ax.get_yticks()) == 4 and path.stat().st_size > 0
    with pytest.raises(ValueError, match="of measured spots, which have no side"):
        pl.slide_genes(cohort, key="stp_spot_genes", side="low")


def test_what_is_not_there_is_refused(cohort):
    with pytest.raises(KeyError, match="no target 'KRAS'; it has EGFR, purity"):
        pl.slide_genes(cohort, target="KRAS")
    with pytest.raises(ValueError, match="no side 'low', but all, high; a side needs 6 patients"):
        pl.slide_genes(cohort, side="low")
    with pytest.raises(ValueError, match="ax= has room for one output and there are 2"):
        pl.slide_genes(cohort, ax=plt.subplots()[1])
    with pytest.raises(KeyError, match=r"run stp.tl.explain_slides\(cohort, model\) first"):
        pl.slide_genes(cohort, key="mine")
