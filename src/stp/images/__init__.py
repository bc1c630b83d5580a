"""Images of any kind, and patches of true physical scale cut from them."""

from stp.images.pyramid import ImagePyramid

__all__ = ["ImagePyramid"]
