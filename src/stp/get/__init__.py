"""Results of verbs as new tables, and the tables of several slides as one."""

from stp.get._concat import concat
from stp.get._expression import expression
from stp.get._patients import patients

__all__ = ["concat", "expression", "patients"]
