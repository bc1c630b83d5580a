import tracemalloc

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from stp import tl


def unit(rng, n, width=8):
    vectors = rng.normal(size=(n, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def reference(adata, record_model):
    rng = np.random.default_rng(1)
    adata.obsm["X_stp_genes_aligned"] = unit(rng, adata.n_obs)
    record_model(adata, "X_stp_genes")
    adata.var["highly_variable"] = True
    return adata


@pytest.fixture
def query(record_model):
    """Spots with an image and no counts."""
    rng = np.random.default_rng(2)
    table = anndata.AnnData(obs={"n": np.arange(30)})
    table.obsm["X_stp_images_aligned"] = unit(rng, 30)
    record_model(table, "X_stp_images")
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
    np.testing.assert_allclose(
        predicted, slow(query, reference, n_neighbors, reference.var_names), rtol=1e-4
    )
    assert (
        query.obs["stp_expression_uniform"].dtype == bool
        and not query.obs["stp_expression_uniform"].any()
    )


def test_fifty_neighbors_are_the_default(query, reference):
    tl.predict_expression(query, reference)
    tl.predict_expression(query, reference, n_neighbors=50, key_added="fifty")
    np.testing.assert_array_equal(query.obsm["stp_expression"], query.obsm["fifty"])


def test_genes_are_those_asked_for_in_their_order(query, reference):
    genes = ["RPL3", "ERBB2", "CD3E"]
    tl.predict_expression(query, reference, genes=genes)
    np.testing.assert_allclose(
        query.obsm["stp_expression"], slow(query, reference, 50, genes), rtol=1e-4
    )
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
    is_nan = np.isnan(query.obsm["stp_expression"])
    assert np.flatnonzero(is_nan.any(axis=1)).tolist() == [4, 9]
    assert np.flatnonzero(is_nan.all(axis=1)).tolist() == [4, 9]
    others = np.delete(np.arange(30), [4, 9])
    np.testing.assert_allclose(
        query.obsm["stp_expression"][others], query.obsm["all"][others], rtol=1e-5
    )


def test_references_without_an_embedding_are_passed_over(query, reference):
    reference.obsm["X_stp_genes_aligned"][::3] = np.nan
    tl.predict_expression(query, reference, n_neighbors=10)
    usable = reference[np.arange(100) % 3 != 0].copy()
    expected = slow(query, usable, 10, reference.var_names)
    np.testing.assert_allclose(query.obsm["stp_expression"], expected, rtol=1e-4)
    with pytest.raises(
        ValueError, match="cannot retrieve 67 neighbors from 66 references; lower n_neighbors"
    ):
        tl.predict_expression(query, reference, n_neighbors=67)


def test_if_no_similarity_is_positive_the_mean_is_plain_and_flagged(query, reference):
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
    assert all(
        {*getattr(reference, slot)} == {*getattr(before, slot)} for slot in ("obsm", "obs", "uns")
    )


def test_copy_leaves_the_original(query, reference):
    result = tl.predict_expression(query, reference, copy=True)
    assert "stp_expression" in result.obsm and "stp_expression_uniform" in result.obs
    assert (
        "stp_expression" not in query.obsm
        and "stp_expression" not in query.uns
        and {*query.obs} == {"n"}
    )


def test_spatialdata_on_both_sides(embedded):
    table = embedded.tables["table"].copy()
    tl.predict_expression(embedded, embedded, genes=["LUM"])
    tl.predict_expression(table, table, genes=["LUM"])
    np.testing.assert_array_equal(
        embedded.tables["table"].obsm["stp_expression"], table.obsm["stp_expression"]
    )


def test_a_missing_gene_is_refused(query, reference):
    with pytest.raises(
        KeyError, match=r"2 genes are not in the reference, e\.g\. \['NOPE', 'NEITHER'\]"
    ):
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
    with pytest.raises(
        KeyError, match=rf"obsm\['{key}'\] (of reference 0 )?is missing; run {call} first"
    ):
        tl.predict_expression(query, reference)


def test_log_counts_in_the_reference_are_refused(query, reference):
    reference.layers["counts"] = reference.X.copy()
    reference.X = scipy.sparse.csr_matrix(np.log1p(reference.X.toarray()))
    with pytest.raises(ValueError, match="not a raw count .*; pass layer='counts'"):
        tl.predict_expression(query, reference)


@pytest.mark.parametrize("n_neighbors", [0, 101])
def test_impossible_numbers_of_neighbors_are_refused(query, reference, n_neighbors):
    with pytest.raises(
        ValueError, match=f"cannot retrieve {n_neighbors} neighbors from 100 references"
    ):
        tl.predict_expression(query, reference, n_neighbors=n_neighbors)


def test_no_query_with_an_embedding_is_refused(query, reference):
    query.obsm["X_stp_images_aligned"][:] = np.nan
    with pytest.raises(
        ValueError, match=r"no spot has an embedding in obsm\['X_stp_images_aligned'\]"
    ):
        tl.predict_expression(query, reference)


# ---- many references, and what a prediction rests on


def test_references_in_parts_are_one(query, reference):
    tl.predict_expression(query, reference, key_added="whole")
    tl.predict_expression(query, [reference[:30].copy(), reference[30:].copy()])
    for key in ("", "_uncertainty", "_similarity"):
        np.testing.assert_allclose(
            query.obsm[f"stp_expression{key}"], query.obsm[f"whole{key}"], rtol=1e-5, atol=1e-6
        )
    for key in ("spot", "row"):
        used = [
            query.uns[name]["references"][key].to_numpy() for name in ("whole", "stp_expression")
        ]
        index = [query.obsm[f"{name}_neighbors"] for name in ("whole", "stp_expression")]
        assert (used[0][index[0]] == used[1][index[1]]).all() == (key == "spot")


def test_provenance_uncertainty_and_similarity(query, reference):
    reference.obs["section"] = np.repeat(["A", "B"], 50)
    tl.predict_expression(query, reference, genes=["LUM"], n_neighbors=4, slide_key="section")
    details, index = query.uns["stp_expression"], query.obsm["stp_expression_neighbors"]
    used = details["references"].iloc[index[0]]
    similar = reference.obsm["X_stp_genes_aligned"] @ query.obsm["X_stp_images_aligned"][0]
    best = np.argsort(-similar, kind="stable")[:4]
    assert (
        used["row"].tolist() == best.tolist()
        and used["spot"].tolist() == reference.obs_names[best].tolist()
    )
    assert used["slide"].tolist() == reference.obs["section"].iloc[best].tolist()
    assert set(details["references"].index[index.ravel()]) == set(details["references"].index), (
        "only what was used"
    )
    np.testing.assert_allclose(query.obsm["stp_expression_similarity"][0], similar[best], rtol=1e-5)
    counts = reference.X.toarray()
    lum = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)[
        best, list(reference.var_names).index("LUM")
    ]
    weight = similar[best] / similar[best].sum()
    spread = np.sqrt(weight @ (lum - weight @ lum) ** 2)
    np.testing.assert_allclose(query.obsm["stp_expression_uncertainty"][0, 0], spread, rtol=1e-4)


def test_far_spots_are_flagged_by_a_stated_rule(query, reference):
    query.obsm["X_stp_images_aligned"][:] = reference.obsm["X_stp_genes_aligned"][:30]
    query.obsm["X_stp_images_aligned"][7] = -reference.obsm["X_stp_genes_aligned"].mean(axis=0)
    query.obsm["X_stp_images_aligned"][8] = np.nan
    tl.predict_expression(query, reference, genes=["LUM"])
    assert np.flatnonzero(query.obs["stp_expression_far"]).tolist() == [7]
    far = query.uns["stp_expression"]["far"]
    best = query.obsm["stp_expression_similarity"][:, 0]
    assert best[7] < far["threshold"] <= np.nanmin(np.delete(best, 7)) and "quartile" in far["rule"]
    assert (query.obsm["stp_expression_neighbors"][8] == -1).all()


def set_far_spots(query, reference, n_far):
    """Make some spots opposite to all references, one without an embedding, the others equal."""
    reference.obsm["X_stp_genes_aligned"] = np.abs(reference.obsm["X_stp_genes_aligned"])
    vectors = reference.obsm["X_stp_genes_aligned"][:30].copy()
    vectors[:n_far] *= -1
    vectors[29] = np.nan
    query.obsm["X_stp_images_aligned"] = vectors


def test_many_doubtful_predictions_are_warned_of_with_their_numbers(query, reference):
    set_far_spots(query, reference, n_far=2)
    message = (
        r"2 of 29 predicted spots \(6\.9%\) say little: 6\.9% are far from all references "
        r"\(obs\['stp_expression_far'\]\), and 6\.9% have no similar reference and get a plain "
        r"mean \(obs\['stp_expression_uniform'\]\); likely causes: glass"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        tl.predict_expression(query, reference, genes=["LUM"])
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(UserWarning, match=r"obs\['mine_far'\]"):
        tl.predict_expression(query, reference, genes=["LUM"], key_added="mine")


@pytest.mark.filterwarnings("error::UserWarning")
def test_few_doubtful_predictions_are_not_warned_of(query, reference):
    set_far_spots(query, reference, n_far=1)
    tl.predict_expression(query, reference, genes=["LUM"])
    assert query.obs["stp_expression_far"].sum() == 1


@pytest.mark.parametrize(("n_far", "is_warned"), [(5, False), (6, True)])
def test_five_percent_may_be_doubtful(query, reference, recwarn, n_far, is_warned):
    set_far_spots(query, reference, n_far=0)
    rows = np.arange(100) % 29
    many = query[rows].copy()
    many.obs_names_make_unique()
    many.obsm["X_stp_images_aligned"][:n_far] *= -1
    tl.predict_expression(many, reference, genes=["LUM"])
    assert any("say little" in str(warning.message) for warning in recwarn) == is_warned


def test_a_store_on_disk_is_read_in_blocks(
    query, reference, record_model, tmp_path, monkeypatch, image
):
    import spatialdata
    import zarr

    from stp import io

    sdata = io.from_anndata(reference, image, um_per_px=1.0)
    record_model(sdata.tables["table"], "X_stp_genes")
    sdata.write(tmp_path / "a.zarr")
    tl.predict_expression(query, sdata, genes=["LUM"], key_added="memory")
    selections = []
    getitem = zarr.Array.__getitem__

    def note_selection(array, selection):
        selections.append(selection)
        return getitem(array, selection)

    monkeypatch.setattr(zarr.Array, "__getitem__", note_selection)
    monkeypatch.setattr("stp.tables.embeddings.READ_ROWS", 16)
    tl.predict_expression(query, tmp_path / "a.zarr", genes=["LUM"])
    np.testing.assert_array_equal(query.obsm["stp_expression"], query.obsm["memory"])
    assert slice(16, 32) in selections
    assert spatialdata.read_zarr(tmp_path / "a.zarr").tables["table"].n_obs == 100


def test_a_layer_of_other_values_is_averaged_as_it_is(query, reference):
    reference.layers["scaled"] = np.random.default_rng(0).normal(size=reference.shape)
    tl.predict_expression(query, reference, genes=["LUM"], layer="scaled", n_neighbors=1)
    assert query.uns["stp_expression"]["units"] == "layer 'scaled'"
    rows = query.uns["stp_expression"]["references"]["row"].to_numpy()[
        query.obsm["stp_expression_neighbors"][:, 0]
    ]
    expected = reference.layers["scaled"][rows, list(reference.var_names).index("LUM")]
    np.testing.assert_allclose(query.obsm["stp_expression"][:, 0], expected, rtol=1e-5)
    other = reference.copy()
    other.layers["scaled"] = other.X
    with pytest.raises(
        ValueError, match="layer 'scaled' holds raw counts in some references and not in others"
    ):
        tl.predict_expression(query, [reference, other], genes=["LUM"], layer="scaled")


def test_genes_left_out_are_the_highly_variable_ones(query, reference):
    reference.var["highly_variable"] = reference.var_names.isin(["LUM", "CD3E"])
    tl.predict_expression(query, reference)
    assert set(query.uns["stp_expression"]["genes"]) == {"LUM", "CD3E"}
    del reference.var["highly_variable"]
    with pytest.raises(
        KeyError, match="marks no highly variable genes that all tables measure; pass genes="
    ):
        tl.predict_expression(query, reference)


@pytest.mark.parametrize("dtype", [object, "boolean", float])
def test_genes_without_a_mark_are_not_highly_variable(query, reference, dtype):
    marks = dict.fromkeys(reference.var_names, np.nan) | {"LUM": True, "CD3E": False}
    reference.var["highly_variable"] = pd.Series(marks, dtype=object).astype(dtype)
    tl.predict_expression(query, reference)
    assert list(query.uns["stp_expression"]["genes"]) == ["LUM"]


def test_bad_references_are_refused_by_name(query, reference, record_model):
    other = reference.copy()
    record_model(other, "X_stp_genes", name="another", digest="1" * 64)
    with pytest.raises(ValueError, match="of reference 1 by another"):
        tl.predict_expression(query, [reference, other])
    other = reference.copy()
    other.var_names = [f"ENSG{i:011d}" for i in range(other.n_vars)]
    with pytest.raises(
        ValueError, match=r"share no gene: reference 0 has \['EPCAM'.*reference 1 has \['ENSG0000"
    ):
        tl.predict_expression(query, [reference, other])
    other.var_names = [*reference.var_names[:-1], "DCN"]
    with pytest.raises(
        ValueError, match=r"gene names of reference 1 are not unique, e\.g\. \['DCN'\]"
    ):
        tl.predict_expression(query, [reference, other])
    del other.obsm["X_stp_genes_aligned"]
    with pytest.raises(
        KeyError,
        match=r"obsm\['X_stp_genes_aligned'\] of reference 1 is missing; run stp\.tl\.embed",
    ):
        tl.predict_expression(query, [reference, other])
    other.obsm["X_stp_genes_aligned"] = np.ones((100, 3), np.float32)
    with pytest.raises(ValueError, match="do not lie in one space"):
        tl.predict_expression(query, other)
    with pytest.raises(ValueError, match="no reference: the list is empty"):
        tl.predict_expression(query, [])
    assert not {*query.obsm} - {"X_stp_images_aligned"}


def with_ids(table):
    """Return a table whose genes have Ensembl ids in place of symbols."""
    from stp import Vocabulary

    vocabulary = Vocabulary.default()
    other = table.copy()
    other.var_names = vocabulary.gene_ids[vocabulary.encode(table.var_names)]
    return other


@pytest.mark.parametrize("by_id", [False, True])
def test_a_query_with_symbols_is_scored_and_drawn_with_references_with_ids(
    adata, reference, record_model, by_id
):
    from stp import pl

    genes = ["LUM", "ERBB2", "CD3E"]
    query = adata.copy()
    query.obsm["X_stp_images_aligned"] = unit(np.random.default_rng(2), adata.n_obs)
    record_model(query, "X_stp_images")
    expected = query.copy()
    tl.predict_expression(expected, reference, genes=genes)
    tl.score_expression(expected, reference, n_genes=2)
    other = with_ids(reference)
    ids = list(with_ids(reference[:, genes]).var_names)
    tl.predict_expression(query, other, genes=ids if by_id else genes)
    tl.score_expression(query, other, n_genes=2)
    details = query.uns["stp_expression"]
    assert (list(details["genes"]), list(details["gene_ids"])) == (genes, ids)
    np.testing.assert_array_equal(query.obsm["stp_expression"], expected.obsm["stp_expression"])
    scores, expected_scores = (table.uns["stp_expression_scores"] for table in (query, expected))
    assert scores["scores"] == expected_scores["scores"]
    pd.testing.assert_frame_equal(scores["genes"], expected_scores["genes"])
    figure = pl.expression(query, [ids[0], "HER2"])
    titles = [ax.get_title().split(",")[0] for ax in figure.axes[:6:3]]
    assert titles == ["LUM", "ERBB2"]


def test_references_with_symbols_and_with_ids_are_one_set(query, reference):
    genes = ["LUM", "CD3E"]
    tl.predict_expression(query, reference, genes=genes, key_added="whole")
    parts = [reference[:30].copy(), with_ids(reference[30:])]
    tl.predict_expression(query, parts, genes=genes)
    np.testing.assert_allclose(
        query.obsm["stp_expression"], query.obsm["whole"], rtol=1e-5, atol=1e-6
    )
    tl.predict_expression(query, parts, key_added="variable")
    assert list(query.uns["variable"]["genes"]) == list(reference.var_names)


def test_an_unknown_gene_gets_the_nearest_name(query, reference):
    with pytest.raises(KeyError, match=r"did you mean 'ERBB2' for 'ERRB2'\? Else choose from its"):
        tl.predict_expression(query, reference, genes=["ERRB2"])


def test_vectors_of_zeros_have_no_prediction(query, reference):
    query.obsm["X_stp_images_aligned"][4] = 0
    tl.predict_expression(query, reference, n_neighbors=5)
    is_missing = np.isnan(query.obsm["stp_expression"]).all(axis=1)
    assert np.flatnonzero(is_missing).tolist() == [4]
    assert (query.obsm["stp_expression_neighbors"][4] == -1).all()
    query.obsm["X_stp_images_aligned"][:] = 0
    with pytest.raises(ValueError, match="no spot has an embedding in .* all are NaN or zero"):
        tl.predict_expression(query, reference, n_neighbors=5)


def test_memory_for_many_spots_is_less_than_their_vectors(reference, record_model):
    rng = np.random.default_rng(3)
    many = anndata.AnnData(obs={"n": np.zeros(40_000)})
    many.obsm["X_stp_images_aligned"] = rng.random((40_000, 512), np.float32)
    many.obsm["X_stp_images_aligned"][0] = np.nan
    record_model(many, "X_stp_images")
    reference.obsm["X_stp_genes_aligned"] = unit(rng, reference.n_obs, 512)
    genes = list(reference.var_names[:3])
    tl.predict_expression(many[:9].copy(), reference, genes=genes, n_neighbors=5)  # compiles
    tracemalloc.start()
    tl.predict_expression(many, reference, genes=genes, n_neighbors=5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < many.obsm["X_stp_images_aligned"].nbytes
    assert np.isnan(many.obsm["stp_expression"]).any(axis=1).sum() == 1
