"""The version of the package, which verbs record beside their results."""

__version__ = "0.1.0"
