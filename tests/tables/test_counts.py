import anndata
import dask.array
import numpy as np
import pytest
import scipy.sparse as sp

from stp.tables.counts import count_blocks, get_counts, log_normalized_blocks, row_blocks, sum_genes
from stp.tables.whole_counts import with_whole_counts

COUNTS = np.random.default_rng(0).poisson(0.6, (23, 7)).astype(np.float32)


def unsorted(counts):
    """The same counts: columns in falling order, and every value above 1 split into two entries."""
    indptr, indices, values = [0], [], []
    for row in counts:
        for column in reversed(row.nonzero()[0]):
            parts = (1, row[column] - 1) if row[column] > 1 else (1,)
            indices += [column] * len(parts)
            values += parts
        indptr.append(len(indices))
    return sp.csr_matrix((np.array(values, np.float32), indices, indptr), shape=counts.shape)


def with_zeros(counts):
    """The same counts with every zero stored."""
    matrix = sp.csr_matrix(np.ones_like(counts))
    matrix.data[:] = counts.ravel()
    return matrix


KINDS = {
    "csr": sp.csr_matrix,
    "csr array": sp.csr_array,
    "csc": sp.csc_matrix,
    "dense": np.asarray,
    "half precision": lambda x: x.astype(np.float16),
    "integers": lambda x: x.astype(np.int64),
    "dask": lambda x: dask.array.from_array(x, chunks=(5, 4)),
    "dask of csr": lambda x: dask.array.from_array(x, chunks=(5, 7)).map_blocks(sp.csr_matrix),
    "duplicates, unsorted": unsorted,
    "stored zeros": with_zeros,
}


def stack(blocks):
    return sp.vstack(list(blocks)).toarray()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [None, "counts"])
def test_count_blocks_are_canonical_csr_of_any_kind_of_counts(kind, layer):
    X = KINDS[kind](COUNTS)
    adata = (
        anndata.AnnData(X) if layer is None else anndata.AnnData(COUNTS + 0.5, layers={layer: X})
    )
    before = X.copy()
    blocks = list(count_blocks(adata, layer, block_rows=5))
    assert [block.shape[0] for block in blocks] == [5, 5, 5, 5, 3]
    np.testing.assert_array_equal(stack(blocks), COUNTS)
    for block in blocks:
        assert block.format == "csr"
        assert (block.data > 0).all()
        assert all(
            (np.diff(block.indices[a:b]) > 0).all()
            for a, b in zip(block.indptr, block.indptr[1:], strict=False)
        )
    if sp.issparse(X):  # the user's own counts are left as they were
        np.testing.assert_array_equal(X.data, before.data)
        np.testing.assert_array_equal(X.indices, before.indices)


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_count_blocks_read_a_backed_file(kind, tmp_path):
    anndata.AnnData(KINDS[kind](COUNTS)).write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    assert backed.isbacked
    np.testing.assert_array_equal(stack(count_blocks(backed, block_rows=5)), COUNTS)


def test_count_blocks_of_a_view():
    view = anndata.AnnData(sp.csr_matrix(COUNTS))[[3, 1, 20], [6, 0]]
    np.testing.assert_array_equal(stack(count_blocks(view)), COUNTS[[3, 1, 20]][:, [6, 0]])


@pytest.mark.parametrize(
    ("change", "value"),
    [
        (np.log1p, "0.6931"),
        (lambda x: x / 2, "0.5"),
        (lambda x: np.where(x > 2, -x, x), "-3"),
        (lambda x: np.where(x > 2, np.nan, x), "nan"),
        (lambda x: np.where(x > 2, np.inf, x), "inf"),
    ],
    ids=["log1p", "halves", "negative", "nan", "infinite"],
)
@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
def test_a_value_that_is_not_a_count_is_named(change, value, sparse):
    X = change(COUNTS).astype(np.float32)
    adata = anndata.AnnData(sp.csr_matrix(X) if sparse else X)
    with pytest.raises(
        ValueError,
        match=rf"X contains {value}, which is not a raw count.*start from the raw counts",
    ):
        get_counts(adata)


def test_the_refusal_names_the_layer_that_holds_counts():
    layers = {"scaled": COUNTS - COUNTS.mean(0), "raw": sp.csr_matrix(COUNTS)}
    adata = anndata.AnnData(np.log1p(COUNTS), layers=layers)
    with pytest.raises(ValueError, match="pass layer='raw'"):
        get_counts(adata)
    with pytest.raises(ValueError, match="layer 'scaled' contains .* pass layer='raw'"):
        get_counts(adata, "scaled")
    assert get_counts(adata, "raw") is adata.layers["raw"]


def test_a_wrong_value_in_a_later_block_is_found():
    X = np.ones((600, 2), np.float32)
    X[599, 1] = 1.5
    adata = anndata.AnnData(X)
    get_counts(adata)  # looks at the first rows only
    with pytest.raises(ValueError, match=r"X contains 1\.5"):
        list(count_blocks(adata, block_rows=100))


def test_missing_layer_and_missing_x():
    adata = anndata.AnnData(COUNTS, layers={"spliced": COUNTS})
    with pytest.raises(KeyError, match="no layer 'counts'; pass layer= one of .*spliced"):
        get_counts(adata, "counts")
    adata.X = None
    with pytest.raises(ValueError, match="no X; pass layer= one of .*spliced"):
        get_counts(adata)


def test_log_normalized_blocks():
    counts = np.array([[1, 3, 0], [0, 0, 0], [0, 0, 5]], np.float32)
    expected = [[np.log1p(2500), np.log1p(7500), 0], [0, 0, 0], [0, 0, np.log1p(10_000)]]
    np.testing.assert_allclose(
        stack(log_normalized_blocks(anndata.AnnData(counts))), expected, rtol=1e-6
    )


def oracle_sums(counts, index, n_genes):
    merged = np.zeros((len(counts), n_genes), np.int64)
    for column, gene in enumerate(index):
        if gene >= 0:
            merged[:, gene] += counts[:, column].astype(np.int64)
    return np.stack([merged.sum(axis=0), (merged > 0).sum(axis=0)])


INDEX = np.array([3, -1, 0, 3, 1, -1, 4])


@pytest.mark.parametrize("kind", KINDS)
def test_sums_by_gene_are_the_same_for_any_kind_of_counts(kind):
    X = get_counts(anndata.AnnData(KINDS[kind](COUNTS)))
    sums = sum_genes(X, INDEX, 6)
    assert (sums.dtype, sums.shape) == (np.int64, (2, 6))
    np.testing.assert_array_equal(sums, oracle_sums(COUNTS, INDEX, 6))


@pytest.mark.parametrize("block_rows", [1, 4, 23, 100])
def test_sums_by_gene_do_not_depend_on_the_blocks(block_rows):
    sums = sum_genes(COUNTS, INDEX, 6, block_rows=block_rows)
    np.testing.assert_array_equal(sums, oracle_sums(COUNTS, INDEX, 6))


@pytest.mark.parametrize("block_rows", [1, 4, 23, 100])
def test_sums_by_gene_are_those_of_the_blocks(block_rows):
    blocks = row_blocks(COUNTS, block_rows)
    np.testing.assert_array_equal(
        sum(sum_genes(block, INDEX, 6) for block in blocks), oracle_sums(COUNTS, INDEX, 6)
    )


def test_sums_by_gene_of_no_spots():
    assert not sum_genes(sp.csr_matrix((0, 7)), INDEX, 6).any()


def test_sums_by_gene_do_not_overflow_the_type_of_the_counts():
    counts = np.full((300, 7), 30_000, np.int16)
    np.testing.assert_array_equal(
        sum_genes(sp.csr_matrix(counts), INDEX, 6)[0], [9e6, 9e6, 0, 18e6, 9e6, 0]
    )


@pytest.mark.parametrize("kind", ["csr", "dense", "dask"])
@pytest.mark.parametrize("column", [0, 1], ids=["mapped", "unmapped"])
def test_sums_by_gene_refuse_values_that_are_not_counts_in_any_column(kind, column):
    wrong = COUNTS.copy()
    wrong[-1, column] = 0.5
    with pytest.raises(ValueError, match=r"contains 0\.5, which is not a raw count"):
        sum_genes(KINDS[kind](wrong), INDEX, 6)


@pytest.mark.parametrize("kind", ["dense", "integers"])
def test_row_blocks_hold_the_rows_in_order(kind):
    blocks = list(row_blocks(KINDS[kind](COUNTS), 10))
    assert {block.format for block in blocks} == {"csr"}
    assert max(block.shape[0] for block in blocks) <= 10
    np.testing.assert_array_equal(stack(blocks), COUNTS)


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_row_blocks_of_a_backed_file(kind, tmp_path):
    anndata.AnnData(KINDS[kind](COUNTS)).write_h5ad(tmp_path / "a.h5ad")
    blocks = list(row_blocks(get_counts(anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")), 10))
    assert [block.shape[0] for block in blocks] == {
        "csr": [10, 10, 3],
        "csc": [23],
        "dense": [3] * 7 + [2],
    }[kind]
    np.testing.assert_array_equal(stack(blocks), COUNTS)


def test_row_blocks_of_dask_are_its_chunks():
    blocks = list(row_blocks(dask.array.from_array(COUNTS, chunks=((4, 19), 7)), 10))
    assert [block.shape for block in blocks] == [(4, 7), (19, 7)]
    np.testing.assert_array_equal(stack(blocks), COUNTS)


def test_row_blocks_of_a_csr_in_memory_copy_nothing():
    X = sp.csr_matrix(COUNTS)
    assert all(np.shares_memory(block.data, X.data) for block in row_blocks(X, 10))
    np.testing.assert_array_equal(stack(row_blocks(X, 10)), COUNTS)


def test_counts_of_dask_are_chunked_by_rows_and_stay_lazy():
    X = get_counts(anndata.AnnData(KINDS["dask"](COUNTS)))
    assert X.chunks == ((5, 5, 5, 5, 3), (7,))


@pytest.mark.parametrize("kind", KINDS)
def test_counts_that_are_nearly_whole_are_rounded_with_one_warning(kind):
    if kind == "half precision" or kind == "integers":
        pytest.skip("these types do not have such values")
    X = KINDS[kind]((COUNTS * (1 + 1e-5)).astype(np.float32))
    adata = anndata.AnnData(X)
    with pytest.warns(UserWarning, match="rounded") as caught:
        np.testing.assert_array_equal(stack(count_blocks(adata, block_rows=5)), COUNTS)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="rounded") as caught:
        sums = with_whole_counts(get_counts(adata), lambda whole: sum_genes(whole, INDEX, 6))
    assert len(caught) == 1
    np.testing.assert_array_equal(sums, oracle_sums(COUNTS, INDEX, 6))


def test_counts_on_disk_that_are_nearly_whole_are_rounded(tmp_path):
    anndata.AnnData(COUNTS * (1 + 1e-5)).write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.warns(UserWarning, match="rounded"):
        rows = with_whole_counts(get_counts(backed), lambda whole: sum_genes(whole, INDEX, 6))
    np.testing.assert_array_equal(rows, oracle_sums(COUNTS, INDEX, 6))


def test_shares_near_zero_are_no_counts():
    with pytest.raises(ValueError, match="which is not a raw count"):
        get_counts(anndata.AnnData(COUNTS / 1e6))


def test_the_refusal_shows_enough_digits():
    with pytest.raises(ValueError, match=r"X contains 3\.0002, which is not a raw count"):
        get_counts(anndata.AnnData(np.array([[3.0002, 1.0]])))


def test_the_refusal_names_counts_in_raw():
    adata = anndata.AnnData(COUNTS)
    adata.raw = adata.copy()
    adata.X = np.log1p(COUNTS)
    with pytest.raises(ValueError, match=r"adata\.raw holds counts: pass adata\.raw\.to_adata\(\)"):
        get_counts(adata)
    np.testing.assert_array_equal(get_counts(adata.raw.to_adata()), COUNTS)
    adata.X = None
    with pytest.raises(ValueError, match=r"no X; pass adata\.raw\.to_adata\(\)"):
        get_counts(adata)


def test_log_counts_have_the_total_of_the_genes_alone():
    adata = anndata.AnnData(np.array([[1, 3, 90]], np.float32))
    adata.var["feature_types"] = ["Gene Expression"] * 2 + ["Antibody Capture"]
    (block,) = log_normalized_blocks(adata)
    np.testing.assert_allclose(block.toarray()[0, :2], [np.log1p(2500), np.log1p(7500)], rtol=1e-6)
