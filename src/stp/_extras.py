"""Import packages that only some functions need."""

from importlib import import_module
from types import ModuleType

EXTRAS = {
    "aiohttp": "remote",
    "decoupler": "genesets",
    "fsspec": "remote",
    "mcp": "mcp",
    "openpyxl": "excel",
    "openslide": "openslide",
    "peft": "lora",
    "s3fs": "remote",
    "skmisc": "eval",
}


def import_extra(module: str) -> ModuleType:
    """Import a module of an optional dependency, or raise an error with the pip command."""
    try:
        return import_module(module)
    except ImportError as error:
        name = EXTRAS[module]
        raise ImportError(
            f"{module} is missing; install it with: pip install 'stp-spatial[{name}]'"
        ) from error
