import anndata
import numpy as np
import pytest
import scipy.sparse

from stp import tl


def unit(rng, n, width=8):
    vectors = rng.normal(size=(n, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def reference(adata, made_by):
    rng = np.random.default_rng(1)
    adata.obsm["X_stp_genes_aligned"] = unit(rng, adata.n_obs)
    made_by(adata, "X_stp_genes")
    adata.var["highly_variable"] = True
    return adata


@pytest.fixture
def query(made_by):
    """Spots with an image and no counts."""
    rng = np.random.default_rng(2)
    table = anndata.AnnData(obs={"n": np.arange(30)})
    table.obsm["X_stp_images_aligned"] = unit(rng, 30)
    made_by(table, "X_stp_images")
    return table


def slow(query, reference, n_neighbors, genes):
    """Predict spot by spot, as the equation reads."""
    counts = reference.X.toarray().astype(float)
    profiles = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    columns = [list(reference.var_names).index(gene) for gene in genes]
    predicted = []
    for image in query.obsm["X_stp_images_aligned"]:
        similar = reference.obsm["X_stp_genes_aligned"] @ image
        nearest = np.argsort(-similar, kind="stable")[:n_neighbors]
        weight = np.maximum(similar[nearest], 0)
        weight = weight / weight.sum() if weight.sum() else np.full(n_neighbors, 1 / n_neighbors)
        predicted.append(weight @ profiles[nearest][:, columns])
    return np.array(predicted)


@pytest.mark.parametrize("n_neighbors", [1, 7, 50, 100])
def test_prediction_equals_a_slow_loop(query, reference, n_neighbors):
    assert tl.predict_expression(query, reference, n_neighbors=n_neighbors) is None
    predicted = query.obsm["stp_expression"]
    assert (predicted.dtype, predicted.shape) == (np.float32, (30, 32))
    np.testing.assert_allclose(predicted, slow(query, reference, n_neighbors, reference.var_names), rtol=1e-4)
    assert query.obs["stp_expression_uniform"].dtype == bool and not query.obs["stp_expression_uniform"].any()


def test_fifty_neighbors_are_the_default(query, reference):
    tl.predict_expression(query, reference)
    tl.predict_expression(query, reference, n_neighbors=50, key_added="fifty")
    np.testing.assert_array_equal(query.obsm["stp_expression"], query.obsm["fifty"])


def test_genes_are_those_asked_for_in_their_order(query, reference):
    genes = ["RPL3", "ERBB2", "CD3E"]
    tl.predict_expression(query, reference, genes=genes)
    np.testing.assert_allclose(query.obsm["stp_expression"], slow(query, reference, 50, genes), rtol=1e-4)
    assert list(query.uns["stp_expression"]["genes"]) == genes


def test_parameters_genes_and_units_are_recorded(query, reference):
    tl.predict_expression(query, reference, n_neighbors=9, layer=None)
    details = query.uns["stp_expression"]
    assert details["params"] == {
        "n_neighbors": 9,
        "use_rep": "X_stp_images_aligned",
        "reference_rep": "X_stp_genes_aligned",
        "layer": None,
    }
    assert list(details["genes"]) == list(reference.var_names)
    assert details["units"] == "log1p of counts per 10,000"


def test_spots_without_an_embedding_are_nan(query, reference):
    tl.predict_expression(query, reference, key_added="all")
    query.obsm["X_stp_images_aligned"][[4, 9]] = np.nan
    tl.predict_expression(query, reference)
    lost = np.isnan(query.obsm["stp_expression"])
    assert np.flatnonzero(lost.any(axis=1)).tolist() == np.flatnonzero(lost.all(axis=1)).tolist() == [4, 9]
    others = np.delete(np.arange(30), [4, 9])
    np.testing.assert_allclose(query.obsm["stp_expression"][others], query.obsm["all"][others], rtol=1e-5)


def test_references_without_an_embedding_are_passed_over(query, reference):
    reference.obsm["X_stp_genes_aligned"][::3] = np.nan
    tl.predict_expression(query, reference, n_neighbors=10)
    usable = reference[np.arange(100) % 3 != 0].copy()
    expected = slow(query, usable, 10, reference.var_names)
    np.testing.assert_allclose(query.obsm["stp_expression"], expected, rtol=1e-4)
    with pytest.raises(ValueError, match="cannot retrieve 67 neighbors from 66 references; lower n_neighbors"):
        tl.predict_expression(query, reference, n_neighbors=67)


def test_where_no_similarity_is_positive_the_mean_is_plain_and_flagged(query, reference):
    query.obsm["X_stp_images_aligned"][5] = -reference.obsm["X_stp_genes_aligned"].mean(axis=0)
    reference.obsm["X_stp_genes_aligned"] = np.abs(reference.obsm["X_stp_genes_aligned"])
    query.obsm["X_stp_images_aligned"][5] = -np.abs(query.obsm["X_stp_images_aligned"][5])
    tl.predict_expression(query, reference)
    assert query.obs["stp_expression_uniform"].iloc[5]
    np.testing.assert_allclose(
        query.obsm["stp_expression"][5], slow(query, reference, 50, reference.var_names)[5], 1e-4
    )


def test_layer_and_reps_are_read(query, reference):
    tl.predict_expression(query, reference, key_added="expected")
    reference.layers["counts"], reference.X = reference.X.copy(), None
    reference.obsm["theirs"] = reference.obsm.pop("X_stp_genes_aligned")
    query.obsm["mine"] = query.obsm.pop("X_stp_images_aligned")
    tl.predict_expression(query, reference, use_rep="mine", reference_rep="theirs", layer="counts")
    np.testing.assert_array_equal(query.obsm["stp_expression"], query.obsm["expected"])


def test_reference_is_left_as_it_was(query, reference):
    before = reference.copy()
    tl.predict_expression(query, reference)
    assert (before.X != reference.X).nnz == 0
    assert all({*getattr(reference, slot)} == {*getattr(before, slot)} for slot in ("obsm", "obs", "uns"))


def test_copy_leaves_the_original(query, reference):
    result = tl.predict_expression(query, reference, copy=True)
    assert "stp_expression" in result.obsm and "stp_expression_uniform" in result.obs
    assert "stp_expression" not in query.obsm and "stp_expression" not in query.uns and {*query.obs} == {"n"}


def test_spatialdata_on_both_sides(embedded):
    table = embedded.tables["table"].copy()
    tl.predict_expression(embedded, embedded, genes=["LUM"])
    tl.predict_expression(table, table, genes=["LUM"])
    np.testing.assert_array_equal(embedded.tables["table"].obsm["stp_expression"], table.obsm["stp_expression"])


def test_a_missing_gene_is_refused(query, reference):
    with pytest.raises(KeyError, match=r"2 genes are not in the reference, e\.g\. \['NOPE', 'NEITHER'\]"):
        tl.predict_expression(query, reference, genes=["ERBB2", "NOPE", "NEITHER"])
    assert "stp_expression" not in query.obsm


@pytest.mark.parametrize(
    ("side", "key", "call"),
    [
        ("query", "X_stp_images_aligned", r"stp\.tl\.embed_images\(sdata, model\)"),
        ("reference", "X_stp_genes_aligned", r"stp\.tl\.embed_genes\(reference, model\)"),
    ],
)
def test_a_missing_embedding_names_the_call(query, reference, side, key, call):
    del {"query": query, "reference": reference}[side].obsm[key]
    with pytest.raises(KeyError, match=rf"obsm\['{key}'\] (of reference 0 )?is missing; run {call} first"):
        tl.predict_expression(query, reference)


def test_log_counts_in_the_reference_are_refused(query, reference):
    reference.layers["counts"] = reference.X.copy()
    reference.X = scipy.sparse.csr_matrix(np.log1p(reference.X.toarray()))
    with pytest.raises(ValueError, match="no raw count .*; pass layer='counts'"):
        tl.predict_expression(query, reference)


@pytest.mark.parametrize("n_neighbors", [0, 101])
def test_impossible_numbers_of_neighbors_are_refused(query, reference, n_neighbors):
    with pytest.raises(ValueError, match=f"cannot retrieve {n_neighbors} neighbors from 100 references"):
        tl.predict_expression(query, reference, n_neighbors=n_neighbors)


def test_no_query_with_an_embedding_is_refused(query, reference):
    query.obsm["X_stp_images_aligned"][:] = np.nan
    with pytest.raises(ValueError, match=r"no spot has an embedding in obsm\['X_stp_images_aligned'\]"):
        tl.predict_expression(query, reference)
