"""The version of the package, which every result records."""

__version__ = "0.1.0"
