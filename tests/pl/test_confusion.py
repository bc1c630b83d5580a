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
def adata():
    adata = anndata.AnnData(np.zeros((4, 1), np.float32))
    scores = pd.DataFrame({"balanced_accuracy": [0.5, 0.7]}, index=["s0", "s1"])
    confusion = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    classes = np.array(["tumor", "stroma", "fat"], dtype=object)
    details = {
        "scores": scores,
        "confusion": confusion,
        "classes": classes,
        "params": {"label_key": "region"},
    }
    adata.uns["stp_probe"] = details
    return adata


def test_confusion_shows_shares_of_each_class(adata):
    ax = pl.confusion(adata).axes[0]
    np.testing.assert_allclose(ax.images[0].get_array(), [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]])
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "tumor (4)",
        "stroma (4)",
        "fat (0)",
    ]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["tumor", "stroma", "fat"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "obs['region']")
    assert ax.get_title() == "balanced accuracy 0.60, mean of 2 folds"
    assert {text.get_text() for text in ax.texts} >= {"0.75", "0.25", "1.00"}
    adata.uns["stp_probe"]["scores"] = adata.uns["stp_probe"]["scores"][:1]
    title = pl.confusion(adata).axes[0].get_title()
    assert title == "balanced accuracy 0.50", "no mean of one fold"


def test_batch_effect_draws_batches_labels_and_chance():
    adata = anndata.AnnData(np.zeros((4, 1), np.float32))
    scores = {
        "batch_accuracy": [0.4, 0.9],
        "batch_chance": [0.25] * 2,
        "label_accuracy": [0.8, 0.7],
    }
    scores = pd.DataFrame({**scores, "label_chance": [0.5] * 2}, index=["X_a", "X_b"])
    adata.uns["stp_batch_effect"] = {
        "scores": scores,
        "params": {"batch_key": "slide", "label_key": "region"},
    }
    ax = pl.batch_effect(adata).axes[0]
    heights = [[bar.get_height() for bar in bars] for bars in ax.containers]
    assert heights == [[0.4, 0.9], [0.8, 0.7]]
    lines = [segment[0][1] for lines in ax.collections for segment in lines.get_segments()]
    assert lines == [0.25, 0.25, 0.5, 0.5]
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert set(legend) == {"obs['slide']", "obs['region'], read across batches", "chance"}
    assert [label.get_text() for label in ax.get_xticklabels()] == ["X_a", "X_b"]


def test_figures_without_results_name_the_call():
    adata = anndata.AnnData(np.zeros((4, 1), np.float32))
    with pytest.raises(KeyError, match=r"run stp\.tl\.linear_probe\(adata, label_key\) first"):
        pl.confusion(adata)
    with pytest.raises(KeyError, match=r"run stp\.tl\.batch_effect\(adata, batch_key\) first"):
        pl.batch_effect(adata)
