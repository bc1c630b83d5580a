"""Queries by genes: scores of a slow loop, their support, and what is refused."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import spatialdata
from scipy.stats import spearmanr

from stp import io, metrics, tl

N_SPOTS = 60
GENES = [f"ENSG{number:011d}" for number in range(12)]


def unit(rng, n, width=6):
    vectors = rng.normal(size=(n, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def measured(seed, record_model, n=N_SPOTS, name="ref"):
    """Return spots with raw counts, gene vectors and coordinates that no other table has."""
    rng = np.random.default_rng(seed)
    table = anndata.AnnData(scipy.sparse.csr_matrix(rng.poisson(300.0, (n, 12)).astype(np.float32)))
    table.var_names = GENES
    table.var["symbol"] = ["ERBB2", "LUM", "CD3E", "RPL3", *[f"G{i}" for i in range(8)]]
    table.obs_names = [f"{name}{seed}_{row}" for row in range(n)]
    table.obsm["spatial"] = rng.uniform(size=(n, 2))
    table.obsm["X_stp_genes_aligned"] = unit(rng, n)
    record_model(table, "X_stp_genes")
    return table


@pytest.fixture
def references(record_model):
    return [measured(seed, record_model) for seed in (1, 2)]


@pytest.fixture
def query(record_model):
    rng = np.random.default_rng(9)
    table = anndata.AnnData(obs=pd.DataFrame(index=[f"tile{row}" for row in range(25)]))
    table.obsm["X_stp_images_aligned"] = unit(rng, 25)
    record_model(table, "X_stp_images")
    return table


def slow_program(table, weights):
    counts = table.X.toarray().astype(float)
    values = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    score = np.zeros(len(values))
    for symbol, weight in weights.items():
        column = values[:, list(table.var["symbol"]).index(symbol)]
        score += weight * (column - column.mean()) / column.std()
    return (score - score.mean()) / score.std()


def slow_scores(query, references, weights, share, k):
    high, low = [], []
    for table in references:
        order = np.argsort(slow_program(table, weights))
        n = round(share * table.n_obs)
        high.append(table.obsm["X_stp_genes_aligned"][order[-n:]])
        low.append(table.obsm["X_stp_genes_aligned"][order[:n]])
    means = []
    for vectors in (np.concatenate(high), np.concatenate(low)):
        cosines = query.obsm["X_stp_images_aligned"] @ vectors.T
        means.append(np.sort(cosines, axis=1)[:, -k:].mean(axis=1))
    return means[0] - means[1]


@pytest.mark.parametrize("weights", [{"ERBB2": 1.0}, {"ERBB2": 2.0, "LUM": -1.0, "CD3E": 0.5}])
@pytest.mark.parametrize(("share", "k"), [(0.1, 3), (0.3, 10)])
def test_scores_equal_a_slow_loop(query, references, weights, share, k):
    assert (
        tl.query_by_genes(query, weights, reference=references, share=share, n_neighbors=k) is None
    )
    score = query.obs["stp_query"]
    assert score.dtype == np.float32
    np.testing.assert_allclose(
        score, slow_scores(query, references, weights, share, k), rtol=1e-4, atol=1e-5
    )


def test_each_tile_names_the_spots_behind_it(query, references):
    tl.query_by_genes(query, "ERBB2", reference=references, n_neighbors=4)
    entry = query.uns["stp_query"]
    examples = entry["references"]
    assert examples["kind"].value_counts().to_dict() == {"highest": 12, "lowest": 12}
    neighbors = query.obsm["stp_query_neighbors"]
    assert (neighbors.dtype, neighbors.shape) == (np.int32, (25, 4))
    for tile in (0, 7):
        image = query.obsm["X_stp_images_aligned"][tile]
        for place, row in enumerate(neighbors[tile]):
            example = examples.iloc[row]
            table = references[example["reference"]]
            assert example["kind"] == "highest"
            assert table.obs_names[example["row"]] == example["spot"]
            cosine = table.obsm["X_stp_genes_aligned"][example["row"]] @ image
            np.testing.assert_allclose(
                query.obsm["stp_query_similarity"][tile, place], cosine, rtol=1e-5
            )
            expected = slow_program(table, {"ERBB2": 1})[example["row"]]
            np.testing.assert_allclose(example["program"], expected, rtol=1e-4)
    assert entry["model"]["digest"] == "0" * 64
    assert entry["params"]["share"] == 0.1
    genes = entry["genes"]
    assert genes.index.tolist() == ["ERBB2"] and genes.loc["ERBB2", "gene_id"] == GENES[0]
    assert genes.loc["ERBB2", "highest"] > 0 > genes.loc["ERBB2", "lowest"]


def test_stores_on_disk_in_any_split_give_the_scores_of_memory(embedded, stamp, stores, tmp_path):
    paths = []
    for number, store in enumerate(stores[1:]):
        slide = spatialdata.read_zarr(store)
        tl.tokenize(slide, stamp)
        tl.embed_genes(slide, stamp)
        paths.append(tmp_path / f"{number}.zarr")
        slide.write(paths[-1])
    tl.query_by_genes(embedded, {"ERBB2": 1, "LUM": -1}, reference=paths, n_neighbors=3)
    in_memory = [spatialdata.read_zarr(path) for path in paths]
    tl.query_by_genes(
        embedded, {"ERBB2": 1, "LUM": -1}, reference=in_memory, n_neighbors=3, key_added="memory"
    )
    table = embedded["table"]
    np.testing.assert_array_equal(table.obs["stp_query"], table.obs["memory"])
    recall = table.uns["stp_query"]["recall"]
    images, genes = (table.obsm[f"X_stp_{kind}_aligned"] for kind in ("images", "genes"))
    assert recall["recall@5"].tolist() == [metrics.recall_at_k(images, genes)[5]]
    assert recall["chance@5"].tolist() == [5 / table.n_obs]
    table.write_h5ad(tmp_path / "table.h5ad")
    again = anndata.read_h5ad(tmp_path / "table.h5ad").uns["stp_query"]
    pd.testing.assert_frame_equal(again["recall"], recall)
    embedded.write(tmp_path / "slide.zarr")


def test_a_program_that_images_show_is_found(query, references):
    """Vectors of genes point to one side if a spot expresses the first gene, and images follow."""
    for table in references:
        score = slow_program(table, {"ERBB2": 1})
        table.obsm["X_stp_genes_aligned"][:, 0] += 2 * score
    tl.query_by_genes(query, "ERBB2", reference=references)
    truth = query.obsm["X_stp_images_aligned"][:, 0]
    assert spearmanr(query.obs["stp_query"], truth)[0] > 0.8
    tl.query_by_genes(query, {"ERBB2": -1}, reference=references, key_added="against")
    np.testing.assert_allclose(query.obs["against"], -query.obs["stp_query"], atol=1e-5)


def test_a_constant_factor_of_a_slide_changes_nothing(query, references):
    """Programs are compared within slides, so a slide with more of a gene is no example for it."""
    tl.query_by_genes(query, "ERBB2", reference=references)
    counts = references[0].X.toarray()
    counts[:, 0] += 40
    brighter = references[0].copy()
    brighter.X = scipy.sparse.csr_matrix(counts)
    tl.query_by_genes(query, "ERBB2", reference=[brighter, references[1]], key_added="brighter")
    slides = query.uns["brighter"]["references"].query("kind == 'highest'")["slide"]
    assert slides.value_counts().tolist() == [6, 6]


def test_spots_without_a_vector_stay_where_they_are(query, references):
    tl.query_by_genes(query, "ERBB2", reference=references, key_added="all")
    query.obsm["X_stp_images_aligned"][[3, 8]] = np.nan
    names = list(query.obs_names)
    tl.query_by_genes(query, "ERBB2", reference=references)
    assert np.flatnonzero(query.obs["stp_query"].isna()).tolist() == [3, 8]
    assert (query.obsm["stp_query_neighbors"][[3, 8]] == -1).all()
    assert not query.obs["stp_query_far"].iloc[[3, 8]].any()
    others = np.delete(np.arange(25), [3, 8])
    np.testing.assert_allclose(
        query.obs["stp_query"].iloc[others], query.obs["all"].iloc[others], rtol=1e-5
    )
    assert list(query.obs_names) == names


def test_references_without_a_vector_are_no_examples(query, references):
    for table in references:
        table.obsm["X_stp_genes_aligned"][::3] = np.nan
    tl.query_by_genes(query, "ERBB2", reference=references, n_neighbors=4)
    usable = [table[np.arange(N_SPOTS) % 3 != 0].copy() for table in references]
    expected = slow_scores(query, usable, {"ERBB2": 1}, 0.1, 4)
    np.testing.assert_allclose(query.obs["stp_query"], expected, rtol=1e-4, atol=1e-5)


def test_no_reference_with_a_vector_is_an_error(query, references):
    for table in references:
        table.obsm["X_stp_genes_aligned"][:] = np.nan
    with pytest.raises(ValueError, match="0 of 120 reference spots have a vector"):
        tl.query_by_genes(query, "ERBB2", reference=references)


def test_far_tiles_are_flagged_by_all_references(query, references):
    vectors = np.concatenate([table.obsm["X_stp_genes_aligned"] for table in references])
    query.obsm["X_stp_images_aligned"] = vectors[::4][:25].copy()  # the nearest cosine is 1
    query.obsm["X_stp_images_aligned"][[2, 4]] = -vectors.sum(axis=0) / 100
    with pytest.warns(UserWarning, match=r"2 of 25 searched spots \(8.0%\) are far from all"):
        tl.query_by_genes(query, "ERBB2", reference=references)
    assert np.flatnonzero(query.obs["stp_query_far"]).tolist() == [2, 4]
    assert query.uns["stp_query"]["far"]["threshold"] == pytest.approx(1.0)


def test_a_rare_gene_has_no_examples_without_it(query, references):
    for table in references:
        counts = table.X.toarray()
        counts[5:, 0] = 0
        counts[:5, 0] = 9
        table.X = scipy.sparse.csr_matrix(counts)
    tl.query_by_genes(query, "ERBB2", reference=references, share=0.5)
    examples = query.uns["stp_query"]["references"]
    highest = examples[examples["kind"] == "highest"]
    assert highest["row"].tolist() == [0, 1, 2, 3, 4] * 2
    lowest = examples[examples["kind"] == "lowest"]
    assert (lowest["program"] < 0).all() and not set(lowest["row"]) & set(range(5))


def test_a_partial_loss_is_reported_with_its_number(query, references):
    with pytest.warns(UserWarning, match="1 of 3 genes of the program are left out.*NOTAGENE"):
        tl.query_by_genes(query, ["ERBB2", "LUM", "NOTAGENE"], reference=references)
    entry = query.uns["stp_query"]
    assert list(entry["missing"]) == ["NOTAGENE"]
    assert entry["genes"].index.tolist() == ["ERBB2", "LUM"]
    tl.query_by_genes(query, ["ERBB2", "LUM"], reference=references, key_added="two")
    np.testing.assert_array_equal(query.obs["two"], query.obs["stp_query"])


@pytest.mark.parametrize(
    ("genes", "error", "message"),
    [
        ({"ERRB2": 1}, KeyError, r"did you mean 'ERBB2' for 'ERRB2'"),
        (["ERBB2", "A1X", "A2X"], KeyError, "2 genes are not in all of"),
        ({"ERBB2": 1, "A1X": -3}, KeyError, "1 gene is not in all of"),
        ([], ValueError, "genes is empty"),
        ({"ERBB2": 0}, ValueError, "the weight of 'ERBB2' is 0"),
        ({"ERBB2": np.nan}, ValueError, "the weight of 'ERBB2' is nan"),
        ({"ERBB2": "high"}, ValueError, "'high', which is no number"),
        (["ERBB2", GENES[0]], ValueError, "are one gene; name each gene once"),
    ],
)
def test_programs_that_are_refused(query, references, genes, error, message):
    with pytest.raises(error, match=message):
        tl.query_by_genes(query, genes, reference=references)
    assert "stp_query" not in query.obs


def test_numbers_that_are_refused(query, references):
    with pytest.raises(ValueError, match="share is 0.6"):
        tl.query_by_genes(query, "ERBB2", reference=references, share=0.6)
    with pytest.raises(ValueError, match="n_neighbors is 0"):
        tl.query_by_genes(query, "ERBB2", reference=references, n_neighbors=0)
    with pytest.raises(ValueError, match="12 reference spots express the program most and 12"):
        tl.query_by_genes(query, "ERBB2", reference=references, n_neighbors=13)


def test_models_must_be_one(query, references, record_model):
    record_model(references[1], "X_stp_genes", digest="1" * 64)
    with pytest.raises(ValueError, match="embeddings of different models do not mix"):
        tl.query_by_genes(query, "ERBB2", reference=references)


def test_the_searched_slide_is_no_reference(embedded, image, adata):
    table = embedded["table"]
    for reference in (table, table.copy(), [table[:50].copy()]):
        with pytest.raises(ValueError, match="holds spots of the slide that is searched"):
            tl.query_by_genes(embedded, "ERBB2", reference=reference)
    with pytest.raises(ValueError, match="holds spots of the slide that is searched"):
        tl.query_by_genes(embedded, "ERBB2", reference=table, copy=True)


def test_names_of_spots_that_many_slides_share_are_no_reason_to_refuse(query, references):
    """Visium has the same barcodes on each slide."""
    for table in references:
        table.obs_names = [f"tile{row}" for row in range(N_SPOTS)]
    tl.query_by_genes(query, "ERBB2", reference=references)
    query.obsm["spatial"] = references[1].obsm["spatial"][:25]
    with pytest.raises(ValueError, match="reference 1 holds spots of the slide that is searched"):
        tl.query_by_genes(query, "ERBB2", reference=references)


def test_the_name_of_the_slide_decides_if_there_is_one(embedded, adata, image):
    table = embedded["table"]
    slides = {}
    for name in ("C5", "C6"):
        slides[name] = io.from_anndata(adata, image, um_per_px=1.0, name=name)["table"]
        for kind in ("genes", "images"):
            slides[name].obsm[f"X_stp_{kind}_aligned"] = table.obsm[f"X_stp_{kind}_aligned"]
            slides[name].uns[f"X_stp_{kind}"] = table.uns[f"X_stp_{kind}"]
    tl.query_by_genes(slides["C6"], "ERBB2", reference=slides["C5"])
    in_um = slides["C6"].copy()
    in_um.obsm["spatial"] = in_um.obsm["spatial"] * 0.5
    with pytest.raises(ValueError, match="holds spots of the slide that is searched"):
        tl.query_by_genes(slides["C6"], "ERBB2", reference=[slides["C5"], in_um])


def test_a_copy_is_returned_and_the_table_is_left(query, references):
    annotated = tl.query_by_genes(query, "ERBB2", reference=references, copy=True)
    assert "stp_query" in annotated.obs and "stp_query" not in query.obs
