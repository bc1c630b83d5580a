"""The image of a slide whose spots are in pixels of it, as 10x gives them."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stp._log import warn
from stp.images.coordinates import coordinate_systems
from stp.images.files.opening import open_file
from stp.images.files.plain import is_gray, open_plain
from stp.images.level_places import place_levels
from stp.images.levels import Level, open_array
from stp.images.placement import check_image_size, check_spots_on_image
from stp.images.sources import open_pixels
from stp.io._slide_elements import SlideImage, image_elements

if TYPE_CHECKING:
    from spatialdata import SpatialData


class OpenImage(NamedTuple):
    """An image file that is open, with µm per pixel if the file has it."""

    name: str
    levels: tuple[Level, ...]
    um_per_px: float | None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.levels[0].shape


def open_slide_image(image: Any) -> OpenImage | None:
    """Open the full-resolution image of a slide, if there is one: a file, or pixels in memory.

    Raises
    ------
    FileNotFoundError
        There is no file at the path.
    TypeError
        The image is neither a path nor pixels.
    ValueError
        The image is grayscale, or no RGB image with 8 bits per channel.
    """
    if image is None:
        return None
    if not isinstance(image, str | os.PathLike):
        return OpenImage("the image", open_pixels(image), None)
    path = os.fspath(image)
    arrays, tagged_um = open_file(path)
    levels = place_levels(tuple(open_array(array) for array in arrays))
    return OpenImage(Path(path).name, levels, tagged_um)


def image_element(image: OpenImage, systems: dict[str, Any]) -> Any:
    """Return an open image as an element of SpatialData in these coordinate systems."""
    from spatialdata.transformations import set_transformation

    (element,) = image_elements(SlideImage("slide", image.levels, 1.0)).values()
    set_transformation(element, systems, set_all=True)
    return element


def read_picture(path: Path) -> np.ndarray:
    """Return the pixels (y, x, channels) of a reduced picture; a gray one has one channel."""
    import PIL.Image

    if not is_gray(path):
        return open_plain(path)[:]
    with PIL.Image.open(path) as picture:
        return np.asarray(picture.convert("L"))[..., None]


def picture_element(picture: np.ndarray, systems: dict[str, Any]) -> Any:
    """Return a reduced picture as an element of SpatialData in these coordinate systems."""
    from spatialdata.models import Image2DModel

    channels = ["gray"] if picture.shape[-1] == 1 else ["r", "g", "b"]
    return Image2DModel.parse(
        picture, dims=("y", "x", "c"), c_coords=channels, transformations=systems
    )


def shows_spots(picture: np.ndarray, centers: np.ndarray, factor: float, picture_name: str) -> bool:
    """Return whether the spots lie on a reduced picture; a warning says if they do not."""
    try:
        check_spots_on_image(centers * factor, picture.shape[:2], picture_name)
    except ValueError as error:
        warn(f"{error}; the picture is left out")
        return False
    return True


def check_slide_image(
    image: OpenImage,
    centers: np.ndarray,
    scale_factors: dict[str, float],
    pictures: dict[str, np.ndarray],
) -> None:
    """Raise ValueError if an image is not the one on which Space Ranger placed the spots.

    Its size must be that of the hires or lowres picture divided by the scale factor of the
    picture, and the spots must lie on it.

    Parameters
    ----------
    image
        The full-resolution image.
    centers
        Spot centers (n, 2) as x and y in pixels of the full-resolution image.
    scale_factors
        Factors by their names in `scalefactors_json.json`.
    pictures
        The reduced pictures that show the spots, by name, the finest first.
    """
    for name, picture in pictures.items():
        factor = scale_factors[f"tissue_{name}_scalef"]
        height, width = picture.shape[:2]
        check_image_size(image.shape, (height / factor, width / factor), image.name)
        break
    check_spots_on_image(centers, image.shape, image.name, scale_factors)


def add_um(sdata: "SpatialData", spots_key: str, um_per_unit: float) -> None:
    """Add the coordinate system "um" to spots and images, from µm per unit of the spots."""
    from spatialdata.transformations import Scale, Sequence, set_transformation

    to_um = Scale([um_per_unit, um_per_unit], axes=("x", "y"))
    of_spots = coordinate_systems(sdata.shapes[spots_key])
    set_transformation(sdata.shapes[spots_key], to_um, "um")
    for image in sdata.images.values():
        of_image = coordinate_systems(image)
        system = next((system for system in of_image if system in of_spots), None)
        if system is not None:
            steps = [of_image[system], of_spots[system].inverse(), to_um]
            set_transformation(image, Sequence(steps), "um")
