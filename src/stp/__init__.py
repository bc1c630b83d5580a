"""STAMP for AnnData and SpatialData. Each part of the package is imported when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stp._log import NO_WIDGETS, silence
from stp._settings import settings
from stp._version import __version__

_MODULES = {
    "datasets": "stp.datasets",
    "get": "stp.get",
    "images": "stp.images",
    "io": "stp.io",
    "metrics": "stp.metrics",
    "models": "stp.models",
    "pl": "stp.pl",
    "tl": "stp.tl",
    "train": "stp.train",
    "Vocabulary": "stp.genes.vocabulary",
}
__all__ = ["__version__", "settings", *_MODULES]

if TYPE_CHECKING:
    from stp import datasets, get, images, io, metrics, models, pl, tl, train
    from stp.genes.vocabulary import Vocabulary


def __getattr__(name: str) -> Any:
    """Import a public part at its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'stp' has no attribute {name!r}")
    with silence(NO_WIDGETS):
        module = import_module(_MODULES[name])
    is_class = name[0].isupper()
    return getattr(module, name) if is_class else module


def __dir__() -> list[str]:
    return sorted(__all__)
