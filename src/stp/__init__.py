"""STAMP for AnnData and SpatialData: the lazy door to every part of the package."""

from importlib import import_module
from typing import TYPE_CHECKING

from stp._version import __version__

_HOME = {
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
__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from stp import datasets, get, images, io, metrics, models, pl, tl, train
    from stp.genes.vocabulary import Vocabulary


def __getattr__(name: str):
    """Import a public part at its first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'stp' has no attribute {name!r}")
    module = import_module(_HOME[name])
    return getattr(module, name) if name[0].isupper() else module


def __dir__() -> list[str]:
    return sorted(__all__)
