import gc
import tracemalloc
from dataclasses import replace

import anndata
import dask.array
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from stp.genes.vocabulary import Vocabulary

ALIASES = {"OLD": ("G2",), "BOTH": ("G1", "G3"), "B": ("G3",), "G1": ("G2",)}


@pytest.fixture(scope="module")
def small():
    return Vocabulary(["G1", "G2", "G3"], ["A", "B", ""], aliases=ALIASES)


def table(counts, names=("G1", "G2", "G3")):
    adata = anndata.AnnData(sparse.csr_matrix(np.array(counts, np.float32).reshape(-1, len(names))))
    adata.var_names = list(names)
    return adata


def test_fit_averages_over_detecting_spots_of_all_tables(small):
    # "G1" and its symbol "A" are one gene: its counts are summed before spots are counted.
    first = table([[1, 2, 0, 1], [0, 4, 0, 0], [0, 0, 0, 0]], ["G1", "A", "OLD", "unknown"])
    second = table([[5, 2], [3, 0]], ["A", "B"])
    fitted = small.fit([first, second])
    np.testing.assert_array_equal(fitted.means, [(3 + 4 + 5 + 3) / 4, 2.0, np.nan])
    assert fitted.n_detected.tolist() == [4, 1, 0]
    assert fitted.n_detected.dtype == np.int64
    assert fitted.corpus == ("3 spots x 4 genes", "2 spots x 2 genes")
    assert fitted.aliases == small.aliases
    assert small.means is None


def test_fit_does_not_depend_on_how_spots_are_divided(small):
    counts = np.random.default_rng(0).poisson(0.7, (101, 3))
    whole = table(counts, ["G1", "G2", "G3"])
    assert small.fit(whole).digest == small.fit([whole[:37], whole[37:]]).digest
    assert small.fit(whole).digest != small.fit(whole[:37]).digest


def test_fit_reads_layers_and_columns_of_names(small):
    adata = table([[0.5, 0.5]], ["x", "y"])
    adata.layers["counts"] = np.array([[4, 6]])
    adata.var["ids"] = ["G3", "G2"]
    fitted = small.fit(adata, layer="counts", gene_ids_key="ids")
    np.testing.assert_array_equal(fitted.means, [np.nan, 6, 4])


def test_fit_reads_stores(small, tmp_path):
    spatialdata = pytest.importorskip("spatialdata")
    adata = table([[1, 0], [3, 2]], ["G1", "B"])
    sdata = spatialdata.SpatialData(tables={"spots": adata})
    sdata.write(tmp_path / "slide.zarr")
    from_path = small.fit(str(tmp_path / "slide.zarr"), table_key="spots")
    assert from_path.digest == small.fit(sdata, table_key="spots").digest == small.fit(adata).digest
    assert from_path.corpus == ("slide.zarr",)


def test_fit_needs_raw_counts_of_genes_of_the_vocabulary(small):
    with pytest.raises(ValueError, match="raw count"):
        small.fit(table([[0.5]], ["G1"]))
    with pytest.raises(ValueError, match="gene_ids_key"):
        small.fit(table([[1]], ["nothing"]))
    with pytest.raises(ValueError, match="no data"):
        small.fit([])


def test_divisors_round_half_up_only_if_asked(small):
    with pytest.raises(ValueError, match=r"Vocabulary\.fit"):
        small.divisors()
    fitted = replace(small, means=[2.5, 1.4999, np.nan])
    assert fitted.divisors().tolist() == [2.5, 1.4999, 1.0]
    assert replace(fitted, round_means=True).divisors().tolist() == [3.0, 1.0, 1.0]
    assert replace(small, means=[0.3, 1.5, 3.5], round_means=True).divisors().tolist() == [
        1.0,
        2.0,
        4.0,
    ]


def assert_same(result, expected):
    for name in ("gene_ids", "symbols", "means", "n_detected"):
        assert getattr(result, name).tobytes() == getattr(expected, name).tobytes()
    for name in ("aliases", "round_means", "corpus", "digest"):
        assert getattr(result, name) == getattr(expected, name)


@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_fit_on_dask_equals_fit_in_memory(small, kind):
    counts = np.random.default_rng(0).poisson(0.7, (101, 4)).astype(np.float32)
    lazy = dask.array.from_array(counts, chunks=(13, 3))
    names = ["G3", "A", "OLD", "G1"]
    adata = anndata.AnnData(
        lazy if kind == "dense" else lazy.rechunk((13, 4)).map_blocks(sparse.csr_matrix)
    )
    adata.var_names = names
    assert_same(small.fit(adata), small.fit(table(counts, names)))
    assert isinstance(adata.X, dask.array.Array)


def test_a_wrong_count_in_the_last_chunk_of_dask_is_an_error(small):
    counts = np.ones((600, 3), np.float32)
    counts[-1, -1] = 0.5
    adata = anndata.AnnData(dask.array.from_array(counts, chunks=(100, 3)))
    adata.var_names = small.gene_ids
    with pytest.raises(ValueError, match=r"0\.5, which is not a raw count"):
        small.fit(adata)


def test_memory_of_fit_does_not_grow_with_the_number_of_tables():
    n_genes = 400
    genes = Vocabulary.from_genes([f"G{i}" for i in range(n_genes)])

    def tables(n):
        for i in range(n):
            gc.collect()
            yield table(np.full((1500, n_genes), i + 1), genes.gene_ids)

    def peak(n):
        tracemalloc.start()
        genes.fit(tables(n))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak(1)  # imports
    assert peak(8) < 1.2 * peak(2)


@st.composite
def divided_tables(draw):
    """Draw counts of three genes and the part of each spot; a part may be empty or lack a gene."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_parts = draw(st.integers(1, 4))
    n = draw(st.integers(1, 30))
    rate = draw(st.sampled_from([0.1, 1, 50]))
    counts = rng.poisson(rate, (n, 3)) * rng.choice([1, 1, 7, 2**20], (n, 3))
    is_detected = rng.random((n, 3)) < 0.6
    part_of = draw(st.lists(st.integers(0, n_parts - 1), min_size=n, max_size=n))
    return counts * is_detected, np.array(part_of)


@given(divided_tables())
@settings(max_examples=40, deadline=None)
def test_merged_parts_are_the_whole_to_the_last_bit(divided):
    counts, part_of = divided
    genes = Vocabulary(["G1", "G2", "G3"], ["A", "B", ""], aliases=ALIASES)
    tables = [table(counts[part_of == part]) for part in range(part_of.max() + 1)]
    whole = genes.fit(tables)
    parts = [genes.fit(part) for part in tables]
    assert_same(Vocabulary.merge(parts), whole)
    assert_same(Vocabulary.merge([Vocabulary.merge(parts[:1]), *parts[1:]]), whole)
    np.testing.assert_array_equal(Vocabulary.merge(reversed(parts)).means, whole.means)


def test_merged_sections_are_the_corpus_to_the_last_bit(real):
    default = Vocabulary.default()
    sections = [
        anndata.read_h5ad(real("her2st", f"{name}.h5ad")) for name in ("C1", "D1", "E1", "F1")
    ]
    merged = Vocabulary.merge([default.fit(section) for section in sections])
    assert_same(merged, default.fit(sections))
    assert merged.corpus == tuple(
        f"{section.n_obs} spots x {section.n_vars} genes" for section in sections
    )
    assert np.isnan(merged.means).any()


def test_merge_keeps_names_and_rounding(small):
    parts = [
        replace(small.fit(table([[i, 0, 2]])), round_means=True, corpus=(f"part{i}",))
        for i in (1, 2)
    ]
    merged = Vocabulary.merge(iter(parts))
    assert (merged.round_means, merged.corpus) == (True, ("part1", "part2"))
    assert merged.aliases == small.aliases
    assert merged.symbols.tolist() == small.symbols.tolist()
    np.testing.assert_array_equal(merged.means, [1.5, np.nan, 2])
    assert merged.n_detected.tolist() == [2, 0, 2]


def test_merging_needs_means_of_the_same_genes(small):
    fitted = small.fit(table([[1, 2, 3]]))
    with pytest.raises(ValueError, match="no vocabularies"):
        Vocabulary.merge([])
    for other in (small, replace(fitted, n_detected=None)):
        with pytest.raises(ValueError, match=r"without means cannot be merged; Vocabulary\.fit"):
            Vocabulary.merge([fitted, other])
    for genes in (["G1", "G3", "G2"], ["G1", "G2", "G4"], ["G1", "G2"]):
        other = Vocabulary.from_genes(genes).fit(table([[1, 2]], genes[:2]))
        with pytest.raises(ValueError, match="different genes"):
            Vocabulary.merge([fitted, other])
