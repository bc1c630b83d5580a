"""Share rows among threads, for compiled kernels that release Python's lock."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numpy as np

Result = TypeVar("Result")


def in_threads(work: Callable[[slice], Result], n_rows: int, min_rows: int) -> list[Result]:
    """Call `work` in parallel on consecutive parts of the rows, and return the results in order.

    Each part has about `min_rows` rows or more.
    """
    import numba

    # get_num_threads would start numba's threads, which also changes the number of torch threads.
    max_threads = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    n_threads = min(max_threads, -(-n_rows // min_rows))
    edges = np.linspace(0, n_rows, max(n_threads, 1) + 1).astype(int)
    parts = [slice(start, stop) for start, stop in pairwise(edges) if stop > start]
    if len(parts) < 2:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(work, parts))
