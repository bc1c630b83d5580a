"""Ranks of any CSR against an oracle of ten lines, and on any number of threads and any CPU."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

from stp.genes.rank_table import MAX_PAIRS, rank_table
from stp.genes.tokens import rank_genes

N_SPECIAL = 30
LIMITS = {
    "float32": 2**24,  # all whole numbers up to here are exact
    "float64": 2**45,
    "int16": 2**15 - 1,
    "int32": 2**31 - 1,
    "int64": 2**45,
    "uint16": 2**16 - 1,
    "bool": 1,
}
EXACT_IN_FLOAT32 = [2**31, 2**32 + 2**10, 2**40, 3 * 2**40]


def oracle(entries, shape, index, divisors, context_length):
    """Rank entries (row, column, count) as Algorithm 1 is written."""
    tokens = np.zeros((shape[0], context_length), np.uint16)
    mapped = np.zeros(shape[0], np.int64)
    unmapped = np.zeros(shape[1], np.int64)
    sums = [{} for _ in range(shape[0])]
    for row, column, count in entries:
        gene = index[column]
        if gene < 0:
            unmapped[column] += count
        elif count:
            mapped[row] += count
            sums[row][gene] = sums[row].get(gene, 0) + count
    for row, genes in enumerate(sums):
        order = sorted(
            (-np.float64(count) / np.float64(divisors[gene]), gene) for gene, count in genes.items()
        )
        tokens[row, : len(order)] = [gene + N_SPECIAL for _, gene in order][:context_length]
    return {
        "tokens": tokens,
        "n_tokens": (tokens > 0).sum(axis=1),
        "mapped": mapped,
        "unmapped": unmapped,
    }


def make_csr(entries, shape, dtype, indices="int32"):
    """Make a CSR of the entries in their own order, duplicates and zeros included."""
    rows = np.array([row for row, _, _ in entries], int)
    order = np.argsort(rows, kind="stable")
    data = np.array([count for _, _, count in entries], dtype)[order]
    columns = np.array([column for _, column, _ in entries], indices)[order]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))]).astype(indices)
    matrix = sp.csr_matrix(shape, dtype=dtype)
    matrix.data = data
    matrix.indices = columns
    matrix.indptr = indptr
    return matrix


def divisors_of(kind, n):
    return {
        "whole": st.lists(st.integers(1, 4).map(float), min_size=n, max_size=n),
        "real": st.lists(st.floats(0.5, 100), min_size=n, max_size=n),
        "extreme": st.lists(
            st.sampled_from([1e-6, 0.3, 1.0, 7.5, 1e5, 3e6, 1e12]), min_size=n, max_size=n
        ),
    }[kind]


@st.composite
def cases(draw, dtypes=tuple(LIMITS), least=0):
    dtype = draw(st.sampled_from(dtypes))
    n_rows = draw(st.integers(1, 4))
    n_columns = draw(st.integers(1, 12))
    n_genes = draw(st.integers(1, 8))
    numbers = [st.integers(0, min(3, LIMITS[dtype])), st.integers(0, LIMITS[dtype])]
    numbers += [st.sampled_from(EXACT_IN_FLOAT32)] * (dtype in ("float32", "float64", "int64"))
    entry = st.tuples(st.integers(0, n_rows - 1), st.integers(0, n_columns - 1), st.one_of(numbers))
    if draw(st.booleans()):  # sorted and without duplicates, as most tables are
        entries = sorted(
            draw(st.lists(entry, min_size=least, max_size=40, unique_by=lambda e: e[:2]))
        )
    else:
        entries = draw(st.lists(entry, min_size=least, max_size=40))
    gene = st.integers(-1, n_genes - 1)
    index = np.array(draw(st.lists(gene, min_size=n_columns, max_size=n_columns)))
    kind = draw(st.sampled_from(["whole", "real", "extreme"]))
    divisors = np.array(draw(divisors_of(kind, n_genes)))
    context_length = draw(st.sampled_from([1, 2, 5, 64]))
    return entries, (n_rows, n_columns), index, divisors, context_length, dtype


def rank(counts, index, divisors, context_length):
    return rank_genes(
        counts, index, rank_table(divisors), context_length=context_length, n_special=N_SPECIAL
    )


def assert_same(result, expected):
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(result, name), values, name)
        assert getattr(result, name).dtype == values.dtype


@given(cases())
@settings(max_examples=400, deadline=None)
def test_ranks_of_any_csr_are_those_of_the_oracle(case):
    entries, shape, index, divisors, context_length, dtype = case
    result = rank(make_csr(entries, shape, dtype), index, divisors, context_length)
    assert_same(result, oracle(entries, shape, index, divisors, context_length))


@given(cases(("float32", "float64"), least=1), st.data())
@settings(max_examples=200, deadline=None)
def test_a_value_that_is_no_count_is_an_error_wherever_it_stands(case, data):
    entries, shape, index, divisors, context_length, dtype = case
    counts = make_csr(entries, shape, dtype)
    wrong = data.draw(st.sampled_from([0.5, 1e-3, 1.25, -1.0, -0.5, np.nan, np.inf, -np.inf, 3.5]))
    counts.data[data.draw(st.integers(0, len(entries) - 1))] = wrong
    with pytest.raises(ValueError, match="which is not a raw count") as caught:
        rank(counts, index, divisors, context_length)
    shown = float(str(caught.value).split("contains ")[1].split(",")[0])
    assert shown == pytest.approx(wrong, rel=1e-3, nan_ok=True)


@given(cases(("int16", "int32", "int64"), least=1), st.data())
@settings(max_examples=100, deadline=None)
def test_a_negative_integer_is_an_error_wherever_it_stands(case, data):
    entries, shape, index, divisors, context_length, dtype = case
    counts = make_csr(entries, shape, dtype)
    counts.data[data.draw(st.integers(0, len(entries) - 1))] = -data.draw(
        st.integers(1, min(LIMITS[dtype], 2**31))
    )
    with pytest.raises(ValueError, match="not a raw count"):
        rank(counts, index, divisors, context_length)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("indices", ["int32", "int64"])
def test_counts_on_both_sides_of_the_last_in_the_table_are_ranked(seed, indices):
    rng = np.random.default_rng(seed)
    divisors = rng.choice([1.0, 1.5, 2.0, 40.0, 333.25], 300)
    last = rank_table(divisors).last.astype(int)
    n_columns = 320
    index = np.concatenate([rng.permutation(300), rng.integers(-1, 300, 20)])
    around_last = np.maximum(0, last[index] + rng.integers(-3, 4, (20, n_columns)))
    counts = around_last * (rng.random((20, n_columns)) < 0.7)
    entries = [(row, column, int(counts[row, column])) for row, column in np.argwhere(counts)]
    result = rank(make_csr(entries, counts.shape, "float32", indices), index, divisors, 200)
    assert_same(result, oracle(entries, counts.shape, index, divisors, 200))


@pytest.mark.parametrize(
    "divisors", [[1.0], [1e9] * 3, [1e-9, 1.0], np.ones(65_505), np.full(20_000, 1e6)], ids=len
)
def test_the_pairs_of_the_table_are_sorted_and_bounded(divisors):
    table = rank_table(np.asarray(divisors))
    assert len(table.bits) <= max(MAX_PAIRS, 2 * len(divisors))
    assert (np.diff(table.keys) <= 0).all()
    assert (np.diff(table.genes[: len(table.keys)].astype(int))[np.diff(table.keys) == 0] > 0).all()
    place = np.log2(table.bits & 255).astype(int) + 8 * (table.bits >> 8)
    assert (np.sort(place) == np.arange(len(table.keys))).all()
    assert (table.genes[place[table.first + 1]] == np.arange(len(divisors))).all()


def test_the_worked_example_of_the_kernel():
    divisors = np.array([1 / 8, 1 / 4, 1 / 2])
    table = rank_table(divisors)
    assert table.last.tolist() == [2, 2, 2]
    assert table.genes[:6].tolist() == [0, 0, 1, 1, 2, 2]
    assert table.keys.tolist() == [16, 8, 8, 4, 4, 2]
    tokens = rank(sp.csr_matrix([[1.0, 3.0, 2.0]]), np.arange(3), divisors, 4).tokens
    assert (tokens - N_SPECIAL).tolist()[0][:3] == [1, 0, 2]
    assert tokens[0, 3] == 0


HASHES = """
import hashlib, numba, numpy as np, scipy.sparse as sp
from numpy._core._multiarray_umath import __cpu_features__
from stp.genes.rank_table import rank_table
from stp.genes.tokens import rank_genes

def digest(threads):
    numba.config.NUMBA_NUM_THREADS = threads
    rng = np.random.default_rng(0)
    divisors = rng.lognormal(0.5, 1, 900)
    draw = lambda n: rng.geometric(0.3, n).astype(np.float32)
    counts = sp.random(1500, 1000, 0.2, "csr", np.float32, rng, draw)
    index = np.where(rng.random(1000) < 0.1, -1, rng.permutation(1000) % 900)
    ranked = rank_genes(counts, index, rank_table(divisors), context_length=150, n_special=30)
    return hashlib.sha256(b"".join(array.astype("<i8").tobytes() for array in ranked)).hexdigest()

"""


def run(code, **environment):
    command = [sys.executable, "-c", HASHES + code]
    result = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return result.stdout.split()


@pytest.fixture(scope="module")
def digest():
    """Return what a single thread computes here."""
    (digest,) = run("print(digest(1))", NUMBA_NUM_THREADS="1")
    assert len(digest) == len(hashlib.sha256().hexdigest())
    return digest


def test_tokens_do_not_depend_on_the_number_of_threads(digest):
    assert run("print(*map(digest, (1, 2, 3, 1)))", NUMBA_NUM_THREADS="3") == [digest] * 4


def test_torch_keeps_its_number_of_threads():
    """Numba's own threads, once they start, give OpenMP as many as there are, and torch with it."""
    code = "import torch; digest(2); print(torch.get_num_threads())"
    assert run(code, NUMBA_NUM_THREADS="2", OMP_NUM_THREADS="1") == ["1"]


def test_tokens_do_not_depend_on_the_vector_units_that_numpy_uses(digest):
    features = [name for name in __cpu_dispatch__ if __cpu_features__[name]]
    if not features:
        pytest.skip("numpy uses no other than the least of this kind of CPU")
    code = f"print(digest(1), any(__cpu_features__[name] for name in {features}))"
    assert run(code, NPY_DISABLE_CPU_FEATURES=" ".join(features)) == [digest, "False"]


def test_tokens_do_not_depend_on_the_cpu_that_numba_compiles_for(digest, tmp_path):
    plain = {
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    assert run("print(digest(1))", **plain) == [digest]
