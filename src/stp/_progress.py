"""The progress of work that takes long: bars for people, lines for log files."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import AbstractContextManager
from typing import TypeVar

from tqdm.std import tqdm

from stp._log import logger
from stp._settings import settings

Item = TypeVar("Item")

LINE_SECONDS = 30.0  # between lines of the log
BAR_DELAY = 0.5  # seconds; shorter work shows no bar


class Progress(AbstractContextManager):
    """A bar on a terminal and in Jupyter, or else a line of the log now and then.

    Parameters
    ----------
    total
        Number of units in all; None if unknown.
    title
        What is done, such as "embed images".
    unit
        What is counted, in the singular, such as "spot".
    is_shown
        Whether anything is shown; `stp.settings.progress` can switch it off, too.
    initial
        Number of units that were done before.
    line_seconds
        Seconds between two lines of the log.
    bar_delay
        Seconds before a bar appears.
    """

    def __init__(
        self,
        total: int | None,
        title: str,
        unit: str,
        *,
        is_shown: bool = True,
        initial: int = 0,
        line_seconds: float = LINE_SECONDS,
        bar_delay: float = BAR_DELAY,
    ) -> None:
        self._total = total
        self._title = title
        self._unit = unit
        self._initial = initial
        self._n_done = initial
        self._note = ""
        self._line_seconds = line_seconds
        self._start = time.monotonic()
        self._last_line = self._start
        is_shown = is_shown and settings.progress
        self.has_bar = is_shown and can_draw_bars()
        self._has_lines = is_shown and not self.has_bar
        # tqdm.std draws in Jupyter without ipywidgets, which tqdm.auto warns about.
        self._bar = tqdm(
            total=total,
            initial=initial,
            desc=title,
            unit=unit,
            disable=not self.has_bar,
            delay=bar_delay,
            dynamic_ncols=True,
        )

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def update(self, n: int = 1) -> None:
        """Count units that are done."""
        self._n_done += n
        self._bar.update(n)
        now = time.monotonic()
        if self._has_lines and now - self._last_line >= self._line_seconds:
            self._last_line = now
            note = f"; {self._note}" if self._note else ""
            logger.info(self._line(now - self._start) + note)

    def note(self, text: str) -> None:
        """Show a short text next to the bar or in the lines of the log, such as a loss."""
        self._note = text
        self._bar.set_postfix_str(text, refresh=False)

    def _line(self, seconds: float) -> str:
        """Return the line of the log: what is done, of how much, and how long the rest takes."""
        units = self._unit if self._n_done == 1 else f"{self._unit}s"
        if self._total is None:
            return f"{self._title}: {self._n_done:,} {units} after {_duration(seconds)}"
        n_new = self._n_done - self._initial
        rest = max(self._total - self._n_done, 0) * seconds / max(n_new, 1)
        share = self._n_done / max(self._total, 1)
        return (
            f"{self._title}: {self._n_done:,} of {self._total:,} {self._unit}s ({share:.0%}), "
            f"about {_duration(rest)} left"
        )


def track(
    items: Iterable[Item],
    title: str,
    unit: str,
    *,
    total: int | None = None,
    is_shown: bool = True,
) -> Iterator[Item]:
    """Yield the items, and count each when the next one is asked for; see :class:`Progress`.

    By default `total` is the length of `items`, if they have one.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(total, title, unit, is_shown=is_shown) as progress:
        for item in items:
            yield item
            progress.update()


def time_left(n_left: int, n_done: int, seconds: float) -> str:
    """Return how long the rest takes, such as "about 12 min left"; "" if nothing is done yet."""
    return f"about {_duration(n_left * seconds / n_done)} left" if n_done else ""


def can_draw_bars() -> bool:
    """Return whether standard error is a terminal or a Jupyter notebook."""
    return is_jupyter() or (sys.stderr is not None and sys.stderr.isatty())


def is_jupyter() -> bool:
    """Return whether this Python is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def _duration(seconds: float) -> str:
    """Return a duration in the largest unit that fits: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
