"""Measured genes behind a slide model: agreement first, then effects within slides."""

import anndata
import numpy as np
import pytest
from scipy.stats import false_discovery_control, spearmanr
from tests.explained import DIGEST, GENES, draw_slide, make_model, make_spots, write_cohort

from stp import tl

LABELS = {f"P{n}": ("high", "low")[n // 4] for n in range(8)}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    tables = {
        f"{patient}_0": draw_slide(n, shift=1.0 if label == "high" else -1.0)
        for n, (patient, label) in enumerate(LABELS.items())
    }
    return write_cohort(tmp_path_factory.mktemp("cohort"), tables, LABELS)


@pytest.fixture
def spots():
    return make_spots()


def explain(spots, **options):
    """Explain with slides as sections; the warning about the missing cohort is expected."""
    model = options.pop("model", None) or make_model()
    with pytest.warns(UserWarning, match="nothing shows that the model predicts anything"):
        tl.explain_by_spots(spots, model, slide_key="section", **options)
    return spots.uns["stp_spot_genes"]


def test_effects_and_agreement_are_those_of_a_slow_loop(spots):
    entry = explain(spots)
    correlations = []
    agreements = []
    for section in ("section0", "section1"):
        own = spots[spots.obs["section"] == section]
        program = own.obsm["X_stp_genes_aligned"][:, 0]
        counts = own.X.toarray()
        values = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
        correlations.append([spearmanr(program, gene).statistic for gene in values.T])
        images = own.obsm["X_stp_images_aligned"][:, 0]
        agreements.append(spearmanr(program, images).statistic)
    genes = entry["genes"].set_index("gene").loc[GENES]
    np.testing.assert_allclose(genes["effect"], np.mean(correlations, axis=0), rtol=1e-5)
    np.testing.assert_allclose(entry["agreement"]["agreement"], agreements, rtol=1e-5)
    assert entry["agreement"]["slide"].tolist() == ["section0", "section1"]
    contributions = spots.obsm["stp_spot_genes"][:, 0]
    for section in ("section0", "section1"):
        is_own = (spots.obs["section"] == section).to_numpy()
        program = spots.obsm["X_stp_genes_aligned"][is_own, 0]
        np.testing.assert_allclose(contributions[is_own], program / is_own.sum(), rtol=1e-5)


def test_planted_genes_come_first_and_are_significant(spots, cohort):
    tl.explain_by_spots(spots, make_model(), slide_key="section", cohort=cohort)
    genes = spots.uns["stp_spot_genes"]["genes"]
    assert set(genes["gene"][:3]) == set(GENES[:3])
    model_p = spots.uns["stp_spot_genes"]["predictions"]["p"].iloc[0]
    assert model_p < 0.02
    expected = false_discovery_control(np.maximum(genes["p"], model_p))
    np.testing.assert_allclose(genes["q"], expected)
    assert (genes["q"][:3] < 0.05).all()


def test_shuffled_labels_leave_no_gene(spots, cohort):
    shuffled = cohort.copy()
    shuffled.obs["label"] = [LABELS[f"P{(int(p[1:]) * 3) % 8}"] for p in cohort.obs["patient"]]
    tl.explain_by_spots(spots, make_model(), slide_key="section", cohort=shuffled)
    genes = spots.uns["stp_spot_genes"]["genes"]
    assert genes["p"].min() < 0.01 and genes["q"].min() > 0.1


def test_unrelated_genes_are_as_rare_as_p_says():
    p = []
    for seed in range(40):
        spots = make_spots(1)
        rng = np.random.default_rng(seed)
        spots.X = spots.X[rng.permutation(spots.n_obs)]  # genes have another place
        p.append(explain(spots, n_permutations=100)["genes"]["p"].to_numpy())
    assert 0.01 < (np.concatenate(p) <= 0.1).mean() < 0.2


def test_low_agreement_closes_the_road_and_is_written():
    spots = make_spots(agreement=0.05)
    message = r"genes and by images agree only by -?0\.\d\d for label: high, and 0.2 is needed"
    with pytest.raises(ValueError, match=message):
        tl.explain_by_spots(spots, make_model(), slide_key="section")
    entry = spots.uns["stp_spot_genes"]
    assert (entry["agreement"]["agreement"].abs() < 0.4).all() and "genes" not in entry
    assert "stp_spot_genes" not in spots.obsm


def test_weak_agreement_warns():
    with pytest.warns(UserWarning, match=r"agree only by 0\.3\d for label: high; genes below"):
        tl.explain_by_spots(make_spots(agreement=0.37), make_model(), slide_key="section")


def test_vectors_of_another_stamp_are_refused(spots):
    with pytest.raises(ValueError, match=r"was trained on planted \(66.*obsm\['X_stp_genes_alig"):
        tl.explain_by_spots(spots, make_model(digest="6" * 64))
    spots.uns["X_stp_images"]["model"] = {"name": "other", "class": "Stamp", "digest": "7" * 64}
    with pytest.raises(ValueError, match=r"and obsm\['X_stp_images_aligned'\] has other \(777"):
        tl.explain_by_spots(spots, make_model(digest=DIGEST))


def test_spots_without_images_cannot_be_checked(spots):
    del spots.obsm["X_stp_images_aligned"]
    with pytest.raises(KeyError, match="run stp.tl.embed_images"):
        tl.explain_by_spots(spots, make_model())


def test_spots_without_vectors_have_no_contribution(spots):
    spots.obsm["X_stp_genes_aligned"][5] = np.nan
    spots.obsm["X_stp_images_aligned"][7] = np.nan
    entry = explain(spots)
    assert np.isnan(spots.obsm["stp_spot_genes"][:, 0]).nonzero()[0].tolist() == [5]
    n_first = (spots.obs["section"] == "section0").sum()
    assert entry["agreement"]["n_spots"].tolist() == [n_first - 2, spots.n_obs - n_first]


def test_rare_genes_have_no_effect(spots):
    counts = spots.X.tolil()
    counts[:, 7] = 0
    counts[:9, 7] = 1
    spots.X = counts.tocsr()
    genes = explain(spots)["genes"].set_index("gene")
    assert np.isnan(genes["effect"]["OTHER4"]) and np.isnan(genes["q"]["OTHER4"])
    assert genes.index[-1] == "OTHER4" and genes["n_slides"]["OTHER4"] == 0


def test_gene_sets_are_means_of_their_genes(spots):
    entry = explain(spots, gene_sets={"planted": GENES[:3], "other": GENES[3:6]})
    assert entry["genes"]["gene"].tolist() == ["planted", "other"]
    correlations = []
    for section in ("section0", "section1"):
        own = spots[spots.obs["section"] == section]
        counts = own.X.toarray()
        values = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)[:, :3].mean(axis=1)
        correlations.append(spearmanr(own.obsm["X_stp_genes_aligned"][:, 0], values).statistic)
    assert entry["genes"]["effect"].iloc[0] == pytest.approx(np.mean(correlations), rel=1e-5)


def test_a_lattice_is_used_if_there_is_one(spots):
    cells = (spots.obsm["spatial"] / 224).round().astype(int)
    expected = explain(spots)["genes"]
    spots.obs[["array_row", "array_col"]] = cells[:, ::-1]
    spots.obsm["spatial"] = np.random.default_rng(0).random((spots.n_obs, 2))
    np.testing.assert_array_equal(explain(spots)["genes"]["p"], expected["p"])
    del spots.obs["array_row"]
    with pytest.raises(ValueError, match="spots of the slide 'section0' lie on no square grid"):
        tl.explain_by_spots(spots, make_model(), slide_key="section")


def test_few_spots_are_refused(spots):
    with pytest.raises(ValueError, match="no slide has 20 spots with vectors of genes and of imag"):
        tl.explain_by_spots(spots[:12].copy(), make_model())


def test_a_transformer_is_refused(spots):
    with pytest.raises(ValueError, match="pooling='transformer'"):
        tl.explain_by_spots(spots, make_model(pooling="transformer"))


def test_results_can_be_stored(spots, tmp_path):
    explain(spots)
    spots.write_h5ad(tmp_path / "spots.h5ad")
    stored = anndata.read_h5ad(tmp_path / "spots.h5ad")
    assert stored.uns["stp_spot_genes"]["genes"]["gene"].tolist()[:3]
