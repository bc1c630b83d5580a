"""Queries by an image: the spots of a slow search, and a rank-sum test of SciPy."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from scipy.stats import false_discovery_control, mannwhitneyu
from tests.tl.test_query_by_genes import GENES, N_SPOTS, measured, unit

from stp import tl


@pytest.fixture
def references(record_model):
    tables = [measured(seed, record_model) for seed in (1, 2)]
    for table in tables:  # few counts, so that there are zeros and ties
        rng = np.random.default_rng(table.n_obs)
        table.X = scipy.sparse.csr_matrix(rng.poisson(1.0, table.shape).astype(np.float32))
        table.X[:, 11] = 0
    return tables


@pytest.fixture
def query(record_model):
    rng = np.random.default_rng(9)
    table = anndata.AnnData(obs=pd.DataFrame(index=[f"tile{row}" for row in range(25)]))
    table.obsm["X_stp_images_aligned"] = unit(rng, 25)
    record_model(table, "X_stp_images")
    return table


def log_expression(table):
    counts = table.X.toarray().astype(float)
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)


def test_spots_are_the_nearest_of_all_references(query, references):
    assert tl.query_by_image(query, "tile3", reference=references, n_spots=7) is None
    spots = query.uns["stp_image_query"]["spots"]
    image = query.obsm["X_stp_images_aligned"][3]
    cosines = np.concatenate([table.obsm["X_stp_genes_aligned"] @ image for table in references])
    order = np.argsort(-cosines)[:7]
    names = np.concatenate([table.obs_names for table in references])
    assert spots["spot"].tolist() == names[order].tolist()
    assert spots["row"].tolist() == (order % N_SPOTS).tolist()
    assert spots["reference"].tolist() == (order // N_SPOTS).tolist()
    np.testing.assert_allclose(spots["similarity"], cosines[order], rtol=1e-5)


def test_with_one_slide_the_test_is_that_of_scipy(query, references):
    reference = references[0]
    tl.query_by_image(query, "tile0", reference=reference, n_spots=12)
    entry = query.uns["stp_image_query"]
    is_hit = np.isin(np.arange(N_SPOTS), entry["spots"]["row"])
    values = log_expression(reference)
    genes = entry["genes"]
    assert len(genes) == 11 and GENES[11] not in set(genes["gene_id"])  # it does not vary
    assert (genes["z"].diff().dropna() <= 0).all()
    for _, row in genes.iterrows():
        column = values[:, GENES.index(row["gene_id"])]
        test = mannwhitneyu(
            column[is_hit], column[~is_hit], use_continuity=False, method="asymptotic"
        )
        assert row["p"] == pytest.approx(test.pvalue, rel=1e-6)
        assert row["auroc"] == pytest.approx(test.statistic / (12 * 48), rel=1e-6)
        assert row["mean_hits"] == pytest.approx(column[is_hit].mean(), rel=1e-5)
        assert row["mean_rest"] == pytest.approx(column[~is_hit].mean(), rel=1e-5)
    np.testing.assert_allclose(genes["q"], false_discovery_control(genes["p"]))


def test_slides_are_strata(query, references):
    """A slide with a hundred times more of a gene does not make the gene enriched."""
    tl.query_by_image(query, "tile0", reference=references, n_spots=30)
    before = query.uns["stp_image_query"]["genes"]
    hits = query.uns["stp_image_query"]["spots"]
    assert set(hits["reference"]) == {0, 1}
    deviation = variance = 0
    for number, table in enumerate(references):
        rows = hits.loc[hits["reference"] == number, "row"]
        is_hit = np.isin(np.arange(N_SPOTS), rows)
        column = log_expression(table)[:, 0]
        a, b = column[is_hit], column[~is_hit]
        u = (np.sign(a[:, None] - b).sum() + len(a) * len(b)) / 2
        _, ties = np.unique(column, return_counts=True)
        n = N_SPOTS
        weight = 1 / (n + 1)
        deviation += weight * (u - len(a) * len(b) / 2)
        correction = (ties**3 - ties).sum() / (n * (n - 1))
        variance += weight**2 * len(a) * len(b) / 12 * (n + 1 - correction)
    assert before.set_index("gene_id").loc[GENES[0], "z"] == pytest.approx(
        deviation / np.sqrt(variance), rel=1e-5
    )


def test_pathways_are_compared_by_their_mean_expression(query, references):
    sets = {"first": GENES[:5], "second": ["CD3E", "RPL3", "G0", "G1", "G2", "unknown"]}
    tl.query_by_image(query, "tile0", reference=references[0], n_spots=12, gene_sets=sets)
    entry = query.uns["stp_image_query"]
    is_hit = np.isin(np.arange(N_SPOTS), entry["spots"]["row"])
    values = log_expression(references[0])
    for name, columns in {"first": slice(0, 5), "second": slice(2, 7)}.items():
        score = np.round(values[:, columns].mean(axis=1, dtype=float), 6)
        row = entry["pathways"].loc[name]
        test = mannwhitneyu(score[is_hit], score[~is_hit], use_continuity=False)
        assert row["auroc"] == pytest.approx(test.statistic / (12 * 48), rel=1e-6)
        assert row["n_genes"] == 5
    sets["small"] = ["LUM", "nothing"]
    with pytest.warns(UserWarning, match="left out 1 gene set with fewer than 5 genes.*small"):
        tl.query_by_image(query, "tile0", reference=references[0], n_spots=12, gene_sets=sets)
    with pytest.raises(ValueError, match="none of the 1 gene sets has 5 genes"):
        tl.query_by_image(query, "tile0", reference=references[0], gene_sets={"a": ["LUM"]})


def test_references_without_a_vector_are_neither_hits_nor_rest(query, references):
    reference = references[0]
    reference.obsm["X_stp_genes_aligned"][::3] = np.nan
    tl.query_by_image(query, "tile0", reference=reference, n_spots=9, key_added="nan")
    usable = reference[np.arange(N_SPOTS) % 3 != 0].copy()
    tl.query_by_image(query, "tile0", reference=usable, n_spots=9)
    pd.testing.assert_frame_equal(query.uns["nan"]["genes"], query.uns["stp_image_query"]["genes"])


def test_what_is_refused(query, references):
    with pytest.raises(KeyError, match="no tile 'nowhere'"):
        tl.query_by_image(query, "nowhere", reference=references)
    references[0].obsm["X_stp_genes_aligned"][3] = np.nan
    message = "119 of 120 reference spots have a vector, and 120 are searched for; lower n_spots"
    with pytest.raises(ValueError, match=message):
        tl.query_by_image(query, "tile0", reference=references, n_spots=120)
    with pytest.raises(ValueError, match="n_spots is 0"):
        tl.query_by_image(query, "tile0", reference=references, n_spots=0)
    query.obsm["X_stp_images_aligned"][2] = np.nan
    with pytest.raises(ValueError, match="tile 'tile2' has no embedding"):
        tl.query_by_image(query, "tile2", reference=references)


def test_a_tile_unlike_all_references_is_warned_of(query, references):
    for table in references:
        table.obsm["X_stp_genes_aligned"] = np.abs(table.obsm["X_stp_genes_aligned"])
    query.obsm["X_stp_images_aligned"][0] = -1
    with pytest.warns(UserWarning, match="tile 'tile0' is far from all references"):
        tl.query_by_image(query, "tile0", reference=references)


def test_results_can_be_written_and_read(query, references, tmp_path):
    tl.query_by_image(query, "tile0", reference=references)
    query.write_h5ad(tmp_path / "query.h5ad")
    again = anndata.read_h5ad(tmp_path / "query.h5ad").uns["stp_image_query"]
    pd.testing.assert_frame_equal(again["genes"], query.uns["stp_image_query"]["genes"])
    assert again["params"]["tile"] == "tile0"
