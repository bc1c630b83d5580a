"""Packages that only some functions need, and the one error for those that are missing."""

from importlib import import_module
from types import ModuleType

EXTRAS = {"peft": "lora", "spatialdata_plot": "plot", "skmisc": "eval"}


def import_extra(module: str) -> ModuleType:
    """Import a module of an optional dependency, or say which pip command installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        name = EXTRAS[module]
        raise ImportError(
            f"{module} is missing; install it with: pip install 'stp-spatial[{name}]'"
        ) from error
