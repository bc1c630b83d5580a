import tracemalloc

import numpy as np
import pytest
import scipy.sparse

from stp.tables.growing_rows import GrowingRows


def draw_blocks(n_blocks, n_rows, seed=0):
    rng = np.random.default_rng(seed)
    return [scipy.sparse.random(n_rows, 50, 0.3, "csr", np.float32, rng) for _ in range(n_blocks)]


@pytest.mark.parametrize("n_blocks", [1, 2, 13])
def test_rows_are_those_of_the_blocks_in_order(n_blocks):
    blocks = draw_blocks(n_blocks, 7)
    rows = GrowingRows(50)
    for block in blocks:
        rows.add(block)
    expected = scipy.sparse.vstack(blocks, format="csr")
    counts = rows.to_csr()
    for name in ("data", "indices", "indptr"):
        ours, theirs = getattr(counts, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert counts.shape == expected.shape


def test_no_second_copy_of_the_rows_is_in_memory():
    blocks = draw_blocks(3, 2000)
    tracemalloc.start()
    rows = GrowingRows(50)
    for number in range(60):
        rows.add(blocks[number % 3])
    counts = rows.to_csr()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.6 * (counts.data.nbytes + counts.indices.nbytes)
