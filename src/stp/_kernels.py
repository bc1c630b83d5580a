"""Compile functions with Numba, and keep the result in its cache if the cache can be written."""

import functools
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import numba
from numba.core.caching import FunctionCache

from stp._log import logger

# What the cache raises on a full disk, for example, or if its files are empty
UNUSABLE = (OSError, EOFError)

Function = TypeVar("Function", bound=Callable[..., Any])


def compile_kernel(*, fastmath: Collection[str] = ()) -> Callable[[Function], Function]:
    """Return a decorator that compiles a function at its first call, without the GIL.

    Parameters
    ----------
    fastmath
        Rules of arithmetic that the compiler may bend: names of flags of LLVM.
    """

    def decorate(function: Function) -> Function:
        kernel: Any = numba.njit(nogil=True, fastmath=set(fastmath))(function)
        try:
            kernel._cache = OptionalCache(function)  # as njit(cache=True) does
        except (RuntimeError, OSError):  # no folder that can be written
            _log_no_cache()
        return kernel

    return decorate


class OptionalCache(FunctionCache):
    """The cache of Numba, of which no failure to read or write stops the call."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function, or None if it is not in the cache."""
        try:
            return super().load_overload(sig, target_context)
        except UNUSABLE:
            _log_no_cache()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save a compiled function if that is possible."""
        try:
            super().save_overload(sig, data)
        except UNUSABLE:
            _log_no_cache()


@functools.cache
def _log_no_cache() -> None:
    logger.warning(
        "Numba cannot use its cache, so that each process compiles for some seconds; set "
        "NUMBA_CACHE_DIR to a folder that can be written"
    )
