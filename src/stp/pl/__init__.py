"""Pictures: what the model sees, what it predicts, how it learned."""

from stp.pl._curves import training
from stp.pl._neighborhoods import neighborhoods
from stp.pl._patches import patches
from stp.pl._spots import expression, spots

__all__ = ["expression", "neighborhoods", "patches", "spots", "training"]
