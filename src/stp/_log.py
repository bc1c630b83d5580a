"""The `stp` logger, warnings, and short lists of names.

Silence the logger with `logging.getLogger("stp").setLevel("WARNING")`.
"""

import logging
import sys
import warnings
from collections.abc import Iterable

PACKAGE = __name__.partition(".")[0]

logger = logging.getLogger(PACKAGE)
if not logger.handlers:
    logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    logger.propagate = False


def warn(message: str) -> None:
    """Warn the user; the warning names the first line outside this package that led to it."""
    level = 2
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
        level += 1
    warnings.warn(message, stacklevel=level)


def preview(names: Iterable[object], n_shown: int = 3) -> str:
    """Return the first names, and the number of the others, as text."""
    texts = [str(name) for name in names]
    n_more = len(texts) - n_shown
    more = f" and {n_more} more" if n_more > 0 else ""
    return ", ".join(texts[:n_shown]) + more


def _is_ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")
