import anndata
import numpy as np
import pandas as pd
import pytest

from stp import metrics, tl


@pytest.fixture
def slides():
    """Four slides of two patients; genes carry the class, images the patient."""
    rng = np.random.default_rng(0)
    n = 240
    slide = np.arange(n) % 4
    label = np.arange(n) // 4 % 2
    genes, images = rng.normal(size=(2, n, 6)).astype(np.float32)
    genes[:, 0] += 5 * label
    images[:, 0] += 5 * (slide // 2)
    images[3] = np.nan
    obs = pd.DataFrame(
        {"slide": slide.astype(str), "patient": (slide // 2).astype(str)},
        index=list(map(str, range(n))),
    )
    obs["label"] = np.where(label, "tumor", "stroma")
    obs.loc["0", "label"] = ""
    return anndata.AnnData(
        np.zeros((n, 1), np.float32), obs=obs, obsm={"X_stp_genes": genes, "X_stp_images": images}
    )


def test_batches_and_labels_are_scored_for_each_embedding(slides, tmp_path):
    tl.batch_effect(slides, "patient", label_key="label", slide_key="slide")
    scores = slides.uns["stp_batch_effect"]["scores"]
    assert list(scores.index) == ["X_stp_genes", "X_stp_images"]
    assert (
        scores.loc["X_stp_genes", "batch_accuracy"]
        < 0.7
        < scores.loc["X_stp_images", "batch_accuracy"]
    )
    assert (
        scores.loc["X_stp_images", "label_accuracy"]
        < 0.7
        < scores.loc["X_stp_genes", "label_accuracy"]
    )
    slides.write_h5ad(tmp_path / "a.h5ad")
    back = anndata.read_h5ad(tmp_path / "a.h5ad").uns["stp_batch_effect"]["scores"]
    pd.testing.assert_frame_equal(back, scores)


def test_without_labels_only_batches_are_scored(slides):
    result = tl.batch_effect(slides, "slide", use_reps="X_stp_genes", copy=True)
    scores = result.uns["stp_batch_effect"]["scores"]
    expected = metrics.batch_effect(slides.obsm["X_stp_genes"], slides.obs["slide"].to_numpy())
    assert scores.loc["X_stp_genes"].to_dict() == expected
    assert "stp_batch_effect" not in slides.uns


@pytest.mark.parametrize("missing", [None, np.nan, ""])
def test_spots_without_a_patient_or_a_slide_are_ignored(slides, missing):
    slides.obs.loc["5", "patient"] = missing
    slides.obs.loc["6", "slide"] = missing
    others = slides[~slides.obs_names.isin(["5", "6"])].copy()
    for table in (slides, others):
        tl.batch_effect(
            table, "patient", label_key="label", slide_key="slide", use_reps=["X_stp_genes"]
        )
    pd.testing.assert_frame_equal(
        slides.uns["stp_batch_effect"]["scores"], others.uns["stp_batch_effect"]["scores"]
    )


@pytest.mark.parametrize(
    ("batch", "options", "error", "message"),
    [
        ("donor", {}, KeyError, r"obs\['donor'\] is missing"),
        ("slide", {"use_reps": ["X_stp_fused"]}, KeyError, r"run stp\.tl\.fuse\(adata\) first"),
        ("one", {}, ValueError, r"obs\['one'\] is 's' everywhere; a batch effect needs two"),
        ("none", {}, ValueError, r"obs\['none'\] is missing everywhere; a batch effect needs two"),
    ],
)
def test_batch_effect_refuses(slides, batch, options, error, message):
    slides.obs["one"] = "s"
    slides.obs["none"] = np.nan
    slides.obs.loc["0", "one"] = None
    with pytest.raises(error, match=message):
        tl.batch_effect(slides, batch, **options)
