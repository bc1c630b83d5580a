"""Synthetic slides and cohorts that follow one law: for tests, tutorials and demos."""

from stp.datasets._cohort import synthetic_cohort
from stp.datasets._synthetic import synthetic_visium

__all__ = ["synthetic_cohort", "synthetic_visium"]
