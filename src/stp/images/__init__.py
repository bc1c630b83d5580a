"""Images of any kind, and patches of true physical scale cut from them."""

from stp.images.pyramid import ImagePyramid
from stp.images.tissue import mask_to_polygons

__all__ = ["ImagePyramid", "mask_to_polygons"]
