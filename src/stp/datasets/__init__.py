"""Synthetic slides whose image and expression follow one law: for tests, tutorials and demos."""

from stp.datasets._synthetic import synthetic_visium

__all__ = ["synthetic_visium"]
