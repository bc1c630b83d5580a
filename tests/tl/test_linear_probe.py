import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from stp import tl
from stp.metrics import classification_scores


def make(n=180, gap=4.0, n_slides=3, classes=("a", "b", "c")):
    """Make features whose first axes show the class, on several slides; ten labels are missing."""
    rng = np.random.default_rng(0)
    codes = rng.integers(len(classes), size=n)
    features = rng.normal(size=(n, 8)).astype(np.float32)
    features[np.arange(n), codes] += gap
    labels = np.array(classes, dtype=object)[codes]
    labels[:5] = ""
    labels[5:10] = np.nan
    obs = pd.DataFrame(
        {"label": labels, "slide": [f"s{i % n_slides}" for i in range(n)]},
        index=[str(i) for i in range(n)],
    )
    adata = anndata.AnnData(np.zeros((n, 1), np.float32), obs=obs, obsm={"X_stp_images": features})
    adata.uns["truth"] = np.array(classes)[codes]
    return adata


FAST = {"learning_rate": 3e-2}


def test_a_class_in_the_features_is_predicted(tmp_path):
    adata = make()
    tl.linear_probe(adata, "label", group_key="slide", **FAST)
    predicted = adata.obs["stp_probe"]
    details = adata.uns["stp_probe"]
    assert predicted[:10].isna().all(), "spots without a label are not predicted"
    assert predicted[10:].notna().all()
    assert (predicted[10:] == adata.uns["truth"][10:]).mean() > 0.9
    scores = details["scores"]
    assert list(scores.index) == ["s0", "s1", "s2"]
    for slide, row in scores.iterrows():
        rows = np.flatnonzero((adata.obs["slide"] == slide) & predicted.notna())
        expected = classification_scores(adata.uns["truth"][rows], predicted.iloc[rows].astype(str))
        assert row.to_dict() == pytest.approx({"n_spots": len(rows), **expected})
    counts = pd.crosstab(adata.uns["truth"][10:], predicted[10:].astype(str))
    np.testing.assert_array_equal(details["confusion"], counts)
    assert list(details["classes"]) == ["a", "b", "c"]
    assert details["params"]["n_folds"] == 3
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = anndata.read_h5ad(tmp_path / "a.h5ad").uns["stp_probe"]
    pd.testing.assert_frame_equal(back["scores"], scores, check_dtype=False)


@pytest.mark.parametrize("missing", [None, np.nan, ""])
def test_spots_without_a_group_are_no_group(missing):
    adata = make()
    adata.obs.loc[["20", "21"], "slide"] = missing
    tl.linear_probe(adata, "label", group_key="slide", **FAST)
    assert list(adata.uns["stp_probe"]["scores"].index) == ["s0", "s1", "s2"]
    assert np.flatnonzero(adata.obs["stp_probe"].isna()).tolist() == [*range(10), 20, 21]
    adata.obs["slide"] = missing
    with pytest.raises(
        ValueError, match=r"no spot has all of obs\['label'\], obs\['slide'\], obsm\['X_stp_images'"
    ):
        tl.linear_probe(adata, "label", group_key="slide")


def test_noise_predicts_nothing():
    adata = make(gap=0.0)
    tl.linear_probe(adata, "label", group_key="slide", **FAST)
    assert adata.uns["stp_probe"]["scores"]["balanced_accuracy"].mean() == pytest.approx(
        1 / 3, abs=0.1
    )


def test_a_spot_is_predicted_by_a_probe_that_never_saw_its_slide():
    """If the labels of a slide are swapped, probes of the other slides predict it all wrong."""
    adata = make(classes=("a", "b"))
    labels = adata.obs["label"].to_numpy(copy=True)
    on_slide = (adata.obs["slide"] == "s0").to_numpy()
    labels[on_slide] = [{"a": "b", "b": "a"}.get(label, label) for label in labels[on_slide]]
    adata.obs["label"] = labels
    tl.linear_probe(adata, "label", group_key="slide", **FAST)
    assert adata.uns["stp_probe"]["scores"]["balanced_accuracy"]["s0"] < 0.1


def test_random_folds_within_a_slide_are_the_same_for_a_seed():
    adata = make(gap=1.0)
    first, second, other = (
        tl.linear_probe(adata, "label", n_folds=4, seed=seed, copy=True, **FAST)
        for seed in (0, 0, 1)
    )
    assert "stp_probe" not in adata.uns
    scores = first.uns["stp_probe"]["scores"]
    assert list(scores.index) == ["0", "1", "2", "3"]
    pd.testing.assert_series_equal(first.obs["stp_probe"], second.obs["stp_probe"])
    pd.testing.assert_frame_equal(scores, second.uns["stp_probe"]["scores"])
    assert not scores.equals(other.uns["stp_probe"]["scores"])


def test_spots_without_an_embedding_keep_their_row():
    adata = make()
    adata.obsm["X_stp_images"][20] = np.nan
    tl.linear_probe(adata, "label", **FAST)
    assert pd.isna(adata.obs["stp_probe"].iloc[20])
    assert adata.uns["stp_probe"]["confusion"].sum() == 169


@pytest.mark.parametrize(
    ("gap", "learning_rate", "is_early"), [(0.0, 0.3, True), (4.0, 1e-4, False)]
)
def test_training_stops_when_the_validation_loss_no_longer_falls(
    monkeypatch, gap, learning_rate, is_early
):
    steps = []
    adam_step = torch.optim.Adam.step

    def count_step(optimizer, *args, **kwargs):
        steps.append(1)
        return adam_step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", count_step)
    tl.linear_probe(make(gap=gap), "label", n_folds=2, learning_rate=learning_rate)
    n_epochs = len(steps) / 2 / 10  # two folds, and at least ten steps per epoch
    assert (n_epochs < 50) == is_early


def one_class(adata):
    adata.obs["label"] = "a"


def no_label(adata):
    adata.obs["label"] = ""


def of_regions(adata):
    adata.uns["spatialdata_attrs"] = {"region_key": "slide"}


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (
            lambda a: a.obs.pop("label"),
            {},
            KeyError,
            r"obs\['label'\] is missing; pass label_key= one of",
        ),
        (
            lambda a: a.obsm.pop("X_stp_images"),
            {},
            KeyError,
            r"run stp\.tl\.embed_images\(sdata, model\) first",
        ),
        (
            one_class,
            {},
            ValueError,
            r"all labels are 'a' in obs\['label'\]; a probe needs two classes",
        ),
        (no_label, {}, ValueError, r"no spot has a label in obs\['label'\]"),
        (lambda a: None, {"n_folds": 200}, ValueError, "fewer than 200 folds"),
        (lambda a: None, {"group_key": "patient"}, KeyError, r"obs\['patient'\] is missing"),
        (
            of_regions,
            {},
            ValueError,
            r"of 3 slides; give group_key=, so that no slide is on both sides",
        ),
        (of_regions, {"group_key": "block"}, ValueError, "slide 's0' is on both sides of a split"),
    ],
    ids=[
        "label",
        "features",
        "one class",
        "no label",
        "folds",
        "group",
        "slides without groups",
        "slide cut",
    ],
)
def test_the_probe_refuses(change, options, error, message):
    adata = make()
    adata.obs["block"] = [str(i % 2) for i in range(adata.n_obs)]
    change(adata)
    with pytest.raises(error, match=message):
        tl.linear_probe(adata, "label", **options)
    assert "stp_probe" not in adata.uns
