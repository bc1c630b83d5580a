"""The `stp` logger, warnings, and short lists of names.

`stp.settings.verbosity` sets what is logged.
"""

import logging
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import SupportsInt

# Of zarr: about arrays that we divide into shards ourselves, or that are small.
AUTOSHARDING = "zarr v3 autosharding"
# Of tqdm in a notebook without ipywidgets: about the bars of other packages.
NO_WIDGETS = "IProgress not found"
PACKAGE = __name__.partition(".")[0]


class _Handler(logging.StreamHandler):
    """Write lines to the standard error of the moment, above the progress bars that are shown."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        bars = sys.modules.get("tqdm.std")  # without it there is no bar
        if bars is None:
            super().emit(record)
            return
        with bars.tqdm.external_write_mode(file=self.stream):
            super().emit(record)


logger = logging.getLogger(PACKAGE)
if not logger.handlers:
    logger.addHandler(_Handler())
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


@contextmanager
def silence(*messages: str) -> Iterator[None]:
    """Hide warnings of other packages that no user can act on, by how their messages begin."""
    with warnings.catch_warnings():
        for message in messages:
            warnings.filterwarnings("ignore", message=message)
        yield


def preview(names: Iterable[object], n_shown: int = 3) -> str:
    """Return the first names, and the number of the others, as text."""
    texts = [str(name) for name in names]
    n_more = len(texts) - n_shown
    more = f" and {n_more} more" if n_more > 0 else ""
    return ", ".join(texts[:n_shown]) + more


def count(number: SupportsInt, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 spot", "20,000 spots"."""
    return f"{int(number):,} {noun if number == 1 else plural or noun + 's'}"


def _is_ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")
