"""Results of verbs as new tables, and the tables of several slides as one."""

from stp.get._concat import concat
from stp.get._expression import expression

__all__ = ["concat", "expression"]
