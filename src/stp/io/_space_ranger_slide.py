"""A slide of Space Ranger in memory, with the elements that spatialdata-io gives it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.lattice import um_per_unit_from_lattice
from stp.images.scale import Scale, resolve_scale
from stp.io._slide_image import (
    OpenImage,
    check_slide_image,
    image_element,
    open_slide_image,
    picture_element,
    read_picture,
    shows_spots,
)
from stp.io._space_ranger import SpaceRangerFiles
from stp.io._space_ranger_table import SPOT_DIAMETER, read_scale_factors, read_spots

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class SpaceRangerSlide:
    """The spots of a folder, its reduced pictures and its full-resolution image.

    Parameters
    ----------
    adata
        Counts of the spots, with x and y in pixels of the full-resolution image in
        `obsm["spatial"]`.
    factors
        Scale factors by their names in `scalefactors_json.json`.
    pictures
        Reduced pictures that show the spots, by name, the finest first.
    full_image
        The full-resolution image, or None.
    """

    adata: "AnnData"
    factors: dict[str, float]
    pictures: dict[str, np.ndarray]
    full_image: OpenImage | None

    @property
    def centers(self) -> np.ndarray:
        """Spot centers (n, 2) as x and y in pixels of the full-resolution image."""
        return self.adata.obsm["spatial"]

    def scale(self, um_per_px: float | None, pitch_um: float | None = None) -> Scale:
        """Return the scale of the full-resolution image, from all sources that give it.

        Parameters
        ----------
        um_per_px
            µm per pixel as the caller gives it, or None.
        pitch_um
            µm between bins of Visium HD; None for the lattice of Visium.
        """
        tagged_um = None if self.full_image is None else self.full_image.um_per_px
        sources = {
            "um_per_px": um_per_px,
            "the file's metadata": tagged_um,
            "microns_per_pixel of the scalefactors": self.factors.get("microns_per_pixel"),
            "the spot lattice": um_per_unit_from_lattice(self.adata.obs, self.centers, pitch_um),
        }
        return resolve_scale(sources, self.factors[SPOT_DIAMETER])

    def spot_systems(self, name: str) -> dict[str, Any]:
        """Return the coordinate systems of the spots, each with its transformation."""
        from spatialdata.transformations import Identity

        systems: dict[str, Any] = {name: Identity()}
        for key in self.pictures:
            systems[f"{name}_downscaled_{key}"] = self._to_picture(key)
        return systems

    def images(self, name: str) -> dict[str, Any]:
        """Return the images as elements of SpatialData, by name."""
        from spatialdata.transformations import Identity

        images = {}
        if self.full_image is not None:
            images[f"{name}_full_image"] = image_element(self.full_image, {name: Identity()})
        for key, picture in self.pictures.items():
            systems = {
                f"{name}_downscaled_{key}": Identity(),
                name: self._to_picture(key).inverse(),
            }
            images[f"{name}_{key}_image"] = picture_element(picture, systems)
        return images

    def table(self, region: str, instance_key: str) -> "AnnData":
        """Return the counts as the table of a region whose spots are numbered by row."""
        from spatialdata.models import TableModel

        adata = self.adata
        adata.obs[instance_key] = np.arange(adata.n_obs)
        adata.obs["region"] = region
        adata.obs["region"] = adata.obs["region"].astype("category")
        adata.uns["spatial"] = {region: {"scalefactors": self.factors}}
        return TableModel.parse(
            adata, region=region, region_key="region", instance_key=instance_key
        )

    def _to_picture(self, key: str) -> Any:
        """Return the transformation from the full-resolution image to a picture."""
        from spatialdata.transformations import Scale

        factor = self.factors[f"tissue_{key}_scalef"]
        return Scale([factor, factor], axes=("x", "y"))


def read_slide(files: SpaceRangerFiles, image: Any) -> SpaceRangerSlide:
    """Read the spots and pictures of a folder, and check its full-resolution image.

    Raises
    ------
    FileNotFoundError
        There is no file at `image`.
    ValueError
        A file cannot be read, spots have no position, or the image is not the one on which the
        spots were placed.
    """
    full_image = open_slide_image(image)
    factors = read_scale_factors(files.scale_factors)
    adata = read_spots(files)
    centers = adata.obsm["spatial"]
    pictures = _read_pictures(files.pictures, factors, centers)
    if full_image is not None:
        check_slide_image(full_image, centers, factors, pictures)
    return SpaceRangerSlide(adata, factors, pictures, full_image)


def _read_pictures(
    paths: dict[str, Path], factors: dict[str, float], centers: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the pictures that have a scale factor and show the spots, by name."""
    pictures = {}
    for name, path in paths.items():
        factor = factors.get(f"tissue_{name}_scalef", 0.0)
        if factor > 0:
            picture = read_picture(path)
            if shows_spots(picture, centers, factor, path.name):
                pictures[name] = picture
    return pictures
