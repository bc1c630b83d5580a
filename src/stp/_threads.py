"""Split rows among threads, for kernels that leave the interpreter alone meanwhile."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np


def in_threads(work: Callable[[slice], Any], n: int, least: int) -> list:
    """Call `work` on consecutive parts of n rows, at least so many each, in parallel; results in order."""
    import numba

    # get_num_threads would start numba's own threads, which gives torch as many, whatever it was told.
    n_threads = min(numba.config.NUMBA_NUM_THREADS, -(-n // least))  # type: ignore[attr-defined]
    edges = np.linspace(0, n, max(n_threads, 1) + 1).astype(int)
    parts = [slice(start, stop) for start, stop in pairwise(edges) if stop > start]
    if len(parts) < 2:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(work, parts))
