"""The same tokens from wherever counts lie: memory, files, Dask, and a cluster."""

import tracemalloc
import warnings

import anndata
import dask.array
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from stp import Vocabulary, tl
from stp.genes.rank_table import rank_table
from stp.genes.tokens import rank_genes
from stp.tl._table_tokens import rank_all_genes

CHUNKS = (7, 5)


def unsorted(counts):
    """The same counts with the columns of each row in falling order."""
    falling = sp.csr_matrix(counts[:, ::-1])
    falling.indices = (counts.shape[1] - 1 - falling.indices).astype(falling.indices.dtype)
    falling.has_sorted_indices = False
    return falling


def duplicated(counts):
    """The same counts in two entries each, one of which may be 0."""
    matrix = sp.csr_matrix(counts)
    half = matrix.data // 2
    parts = np.column_stack([half, matrix.data - half]).ravel()
    twice = sp.csr_matrix(matrix.shape, dtype=matrix.dtype)
    twice.data, twice.indices, twice.indptr = parts, np.repeat(matrix.indices, 2), matrix.indptr * 2
    return twice


def dask_dense(counts):
    return dask.array.from_array(counts, chunks=CHUNKS)


def dask_csr(counts):
    return dask.array.from_array(counts, chunks=(7, counts.shape[1])).map_blocks(sp.csr_matrix)


def dask_csr_both(counts):
    return dask_dense(counts).map_blocks(sp.csr_matrix)


MEMORY = {
    "csr": sp.csr_matrix,
    "csr array": sp.csr_array,
    "csc": sp.csc_matrix,
    "dense": np.asarray,
    "dense by columns": np.asfortranarray,
    "float64": lambda counts: sp.csr_matrix(counts.astype(np.float64)),
    "dense integers": lambda counts: counts.astype(np.int64),
    "int32": lambda counts: sp.csr_matrix(counts.astype(np.int32)),
    "uint16": lambda counts: sp.csr_matrix(counts.astype(np.uint16)),
    "unsorted": unsorted,
    "duplicated": duplicated,
}
DASK = {
    "dask": dask_dense,
    "dask of csr": dask_csr,
    "dask of csr, by columns too": dask_csr_both,
    "dask of halves": lambda counts: dask_dense(counts.astype(np.float16)),
}


def tokenized(X, adata, vocabulary, **arguments):
    table = anndata.AnnData(X, obs=adata.obs.copy(), var=adata.var.copy())
    tl.tokenize(table, vocabulary, context_length=24, **arguments)
    return table


@pytest.fixture
def counts(adata):
    return adata.X.toarray()


@pytest.fixture
def expected(counts, adata, vocabulary):
    return tokenized(sp.csr_matrix(counts), adata, vocabulary)


def assert_same(table, expected):
    np.testing.assert_array_equal(np.asarray(table.obsm["stp_tokens"]), expected.obsm["stp_tokens"])
    assert table.obsm["stp_tokens"].dtype == np.uint16
    assert table.obs["stp_tokens_n"].tolist() == expected.obs["stp_tokens_n"].tolist()
    report, other = table.uns["stp_tokens"], expected.uns["stp_tokens"]
    assert (report["coverage"], report["params"]) == (other["coverage"], other["params"])
    assert report["unmapped"].equals(other["unmapped"])


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1), st.sampled_from([0.3, 3, 300]))
@settings(max_examples=20, deadline=None)
def test_the_kind_of_counts_does_not_matter(vocabulary, seed, density, mean):
    rng = np.random.default_rng(seed)
    counts = (rng.poisson(mean, (30, 34)) * (rng.random((30, 34)) < density)).astype(np.float32)
    var = [*vocabulary.gene_ids[rng.permutation(32)], vocabulary.symbols[3], vocabulary.symbols[4]]
    tables = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # empty spots
        for make in [*MEMORY.values(), *DASK.values()]:
            table = anndata.AnnData(make(counts))
            table.var_names = var
            tl.tokenize(table, vocabulary, context_length=24)
            tables.append(table)
    for table in tables[1:]:
        assert_same(table, tables[0])


@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "int32"])
def test_backed_files_of_any_kind(counts, adata, vocabulary, expected, kind, tmp_path):
    anndata.AnnData(MEMORY[kind](counts), obs=adata.obs, var=adata.var).write_h5ad(
        tmp_path / "a.h5ad"
    )
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    assert backed.isbacked
    tl.tokenize(backed, vocabulary, context_length=24)
    assert_same(backed, expected)


@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_counts_in_a_zarr_that_is_read_lazily(counts, adata, vocabulary, expected, kind, tmp_path):
    anndata.AnnData(MEMORY[kind](counts), obs=adata.obs, var=adata.var).write_zarr(
        tmp_path / "a.zarr"
    )
    X = anndata.io.sparse_dataset(zarr.open_group(tmp_path / "a.zarr", mode="r")["X"])
    assert_same(tokenized(X, adata, vocabulary), expected)


@pytest.mark.parametrize("kind", DASK)
def test_dask_stays_lazy_but_for_what_is_small(counts, adata, vocabulary, expected, kind):
    table = tokenized(DASK[kind](counts), adata, vocabulary)
    assert isinstance(table.X, dask.array.Array)
    tokens = table.obsm["stp_tokens"]
    assert isinstance(tokens, dask.array.Array)
    assert (tokens.shape, tokens.chunks[1]) == ((100, 24), (24,))
    assert isinstance(table.obs["stp_tokens_n"].to_numpy(), np.ndarray)
    assert_same(table, expected)
    layered = anndata.AnnData(obs=adata.obs, var=adata.var, layers={"raw": DASK[kind](counts)})
    tl.tokenize(layered, vocabulary, layer="raw", context_length=24)
    np.testing.assert_array_equal(layered.obsm["stp_tokens"].compute(), expected.obsm["stp_tokens"])


@pytest.mark.parametrize("kind", DASK)
@pytest.mark.parametrize("value", [0.5, -1.0, np.nan])
@pytest.mark.parametrize("row", [0, 500, 999])
def test_a_wrong_count_in_any_chunk_of_dask_is_refused_at_once(vocabulary, kind, value, row):
    counts = np.ones((1000, 32), np.float32)
    counts[row, -1] = value
    chunks = dask.array.from_array(counts, chunks=(300, 20 if kind != "dask of csr" else 32))
    table = anndata.AnnData(chunks if kind == "dask" else chunks.map_blocks(sp.csr_matrix))
    table.var_names = vocabulary.gene_ids
    with pytest.raises(ValueError, match=f"contains {value:.4g}, which is not a raw count"):
        tl.tokenize(table, vocabulary, context_length=24)
    assert not table.obsm and not table.uns


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_tokens_of_dask_are_written_and_read_back(
    counts, adata, vocabulary, expected, ending, tmp_path
):
    table = tokenized(dask_csr(counts), adata, vocabulary)
    path = tmp_path / f"a.{ending}"
    getattr(table, f"write_{ending}")(path)
    back = getattr(anndata, f"read_{ending}")(path)
    assert isinstance(back.obsm["stp_tokens"], np.ndarray)
    np.testing.assert_array_equal(back.obsm["stp_tokens"], expected.obsm["stp_tokens"])
    np.testing.assert_array_equal(back.X.toarray(), counts)
    assert back.obs["stp_tokens_n"].tolist() == expected.obs["stp_tokens_n"].tolist()
    assert back.uns["stp_tokens"]["coverage"] == 1.0


def test_genes_are_embedded_from_tokens_of_dask(counts, adata, stamp):
    tables = [tokenized(make(counts), adata, stamp) for make in (sp.csr_matrix, dask_dense)]
    for table in tables:
        tl.embed_genes(table, stamp)
    for key in ("X_stp_genes", "X_stp_genes_aligned"):
        np.testing.assert_array_equal(tables[1].obsm[key], tables[0].obsm[key])


def test_a_cluster_of_processes_gives_the_same(counts, adata, vocabulary, expected):
    distributed = pytest.importorskip("distributed")
    options = {
        "n_workers": 2,
        "threads_per_worker": 1,
        "processes": True,
        "dashboard_address": None,
    }
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        table = tokenized(dask_csr(counts), adata, vocabulary)
        assert_same(table, expected)
        fitted = vocabulary.fit(anndata.AnnData(dask_csr(counts), var=adata.var))
        assert len(client.scheduler_info()["workers"]) == 2
    assert fitted.digest == vocabulary.fit(adata).digest


@pytest.mark.parametrize(("kind", "density"), [("csr", 0.4), ("dense", 0.1)])
def test_memory_of_a_backed_table_is_that_of_the_result_and_three_blocks(kind, density, tmp_path):
    n_genes, n_blocks, block_rows, width = 300, 6, 4096, 16
    vocabulary = Vocabulary(
        gene_ids := [f"G{i}" for i in range(n_genes)], gene_ids, means=np.full(n_genes, 1.5)
    )
    rng = np.random.default_rng(0)
    counts = (rng.random((n_blocks * block_rows, n_genes), np.float32) < density).astype(np.float32)
    whole = anndata.AnnData(MEMORY[kind](counts))
    whole.var_names = gene_ids
    whole.write_h5ad(tmp_path / "a.h5ad")
    block = (
        counts[:block_rows].nbytes if kind == "dense" else np.count_nonzero(counts[:block_rows]) * 8
    )
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    tl.tokenize(whole[:10].copy(), vocabulary)  # imports and compiles
    tracemalloc.start()
    tl.tokenize(backed, vocabulary, context_length=width)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < backed.obsm["stp_tokens"].nbytes + 3 * block
    assert 3 * block < counts.nbytes * 0.6


def test_dask_ranks_a_chunk_only_when_its_tokens_are_computed(counts, adata, vocabulary, expected):
    n_calls = []
    index = vocabulary.encode(adata.var_names)
    table = rank_table(vocabulary.divisors())

    def rank(block, context_length):
        n_calls.append(1)
        return rank_genes(
            block, index, table, context_length=context_length, n_special=vocabulary.n_special
        )

    ranks = rank_all_genes(dask_csr(counts), rank, index, 24)
    assert n_calls == []
    assert ranks.n_tokens.tolist() == expected.obs["stp_tokens_n"].tolist()
    tokens = ranks.tokens.compute(scheduler="synchronous")
    assert len(n_calls) == -(-len(counts) // 7)
    np.testing.assert_array_equal(tokens, expected.obsm["stp_tokens"])
