"""Compile kernels once per user: numba stores them on disk, and other sessions load them."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compile_kernel(**options: Any) -> Callable[[Callable], Any]:
    """Return a decorator that compiles a function, which releases Python's lock while it runs.

    The compiled code is stored in the folder of the package, or in that of the user if the package
    is read-only. If neither can be written to, each session compiles anew. `options` are those of
    `numba.njit`.
    """

    def compile_function(function: Callable) -> Any:
        try:
            return njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # numba found no folder for its cache
            return njit(nogil=True, **options)(function)

    return compile_function
