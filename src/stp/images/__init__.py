"""From a picture of any kind to patches of true physical scale."""

from stp.images.pyramid import ImagePyramid

__all__ = ["ImagePyramid"]
