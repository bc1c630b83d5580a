"""Settings of the package: what it logs, whether it shows progress, its device and its cache."""

import logging
import os
from pathlib import Path

from stp._log import logger

LEVELS = ("error", "warning", "info", "debug")
# The numbers of scanpy's verbosity; its "hint" is part of our "info".
_LEVEL_OF_NUMBER = {0: "error", 1: "warning", 2: "info", 3: "info", 4: "debug"}


class Settings:
    """The settings of `stp`, which hold until Python ends.

    Attributes
    ----------
    device
        Torch device of functions and configs whose `device` is None, such as "cuda:1". With None it
        is a GPU if there is one.
    progress
        Whether work that takes long shows its progress: a bar on a terminal and in Jupyter, a line
        of the log every 30 seconds elsewhere.

    Examples
    --------
    >>> stp.settings.verbosity = "warning"
    >>> stp.settings
    Settings(verbosity='warning', progress=True, device=None, cache_dir=None)
    >>> stp.settings.verbosity = "info"
    """

    def __init__(self) -> None:
        self.progress = True
        self.device: str | None = None
        self._cache_dir: Path | None = None

    @property
    def verbosity(self) -> str:
        """What is logged: "error", "warning", "info" or "debug", or 0 to 4 as in scanpy.

        Raises ValueError for anything else. Warnings of Python do not depend on it.
        """
        names = {getattr(logging, level.upper()): level for level in LEVELS}
        return names.get(logger.level, logging.getLevelName(logger.level).lower())

    @verbosity.setter
    def verbosity(self, verbosity: str | int) -> None:
        level = verbosity
        if isinstance(verbosity, int) and not isinstance(verbosity, bool):
            level = _LEVEL_OF_NUMBER.get(verbosity, "unknown")
        if level not in LEVELS:
            raise ValueError(
                f"verbosity must be one of {list(LEVELS)}, or 0 to 4, not {verbosity!r}"
            )
        logger.setLevel(str(level).upper())

    @property
    def cache_dir(self) -> Path | None:
        """Folder of files that are downloaded; None for the cache of Hugging Face.

        HF_HOME moves the cache of Hugging Face for all programs, `cache_dir` for `stp` alone.
        """
        return self._cache_dir

    @cache_dir.setter
    def cache_dir(self, folder: str | os.PathLike[str] | None) -> None:
        self._cache_dir = None if folder is None else Path(folder).expanduser().absolute()

    def __repr__(self) -> str:
        folder = None if self.cache_dir is None else str(self.cache_dir)
        return (
            f"Settings(verbosity={self.verbosity!r}, progress={self.progress!r}, "
            f"device={self.device!r}, cache_dir={folder!r})"
        )


settings = Settings()
