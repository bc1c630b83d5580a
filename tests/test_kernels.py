"""Compiled kernels are stored on disk if there is a place for them."""

import pytest
from numba import njit

from stp._kernels import compile_kernel
from stp.genes import rank_kernel
from stp.retrieval import kernel

OURS = [
    value
    for module in (rank_kernel, kernel)
    for value in vars(module).values()
    if hasattr(value, "py_func")
]


@pytest.mark.parametrize("compiled", OURS, ids=lambda compiled: compiled.py_func.__name__)
def test_each_kernel_is_stored_for_the_next_session(compiled):
    assert compiled.stats.cache_path
    assert compiled.targetoptions["nogil"]


def test_a_kernel_without_a_place_on_disk_is_compiled_all_the_same():
    names: dict = {}
    exec("def double(x):\n    return 2 * x", names)  # numba stores only functions of files
    with pytest.raises(RuntimeError, match="cannot cache"):
        njit(cache=True)(names["double"])
    assert compile_kernel()(names["double"])(4) == 8
