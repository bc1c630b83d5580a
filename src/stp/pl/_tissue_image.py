"""Values of spots on the tissue under them, drawn with squidpy."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.data.neighborhoods import spacing
from stp.images.levels import with_gaps
from stp.images.pyramid import ImagePyramid
from stp.images.regions import check_one_slide
from stp.images.slides import Slide, SlideQuery, only_slide
from stp.pl import _colors
from stp.tables.coordinates import REMEDY, read_coordinates, require_coordinates
from stp.tables.table import get_table

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

OVERVIEW_PIXELS = 1600  # longer side of the image of the whole slide
MARGIN = 0.06  # space around the spots, as a share of their extent
SPOT_SHARE = 0.8  # diameter of a spot, as a share of the distance to the next spot
LIBRARY = "slide"  # squidpy's name for the slide
SCALE_BAR = {"location": "lower left", "box_alpha": 0.7, "length_fraction": 0.25}


@dataclass(frozen=True)
class Tissue:
    """The spots of one slide and the image under them."""

    rows: np.ndarray  # (n,) positions of the spots in the table
    xy: np.ndarray  # (n, 2), in µm if there is an image
    image: np.ndarray | None  # (y, x, 3) uint8
    um_per_px: float  # of the image

    @classmethod
    def from_data(
        cls,
        data: Any,
        table_key: str,
        image_key: str | None,
        um_per_px: float | None,
        spatial_key: str,
    ) -> "Tissue":
        """Find the slide of a SpatialData with an image; else take the coordinates alone."""
        table = get_table(data, table_key)
        if hasattr(data, "images") and data.images:
            query = SlideQuery(image_key, um_per_px=um_per_px)
            return cls.from_slide(only_slide(data, table, query))
        xy = read_coordinates(table, spatial_key)
        require_coordinates(xy, table.obs_names, REMEDY)
        check_one_slide(table, xy)
        return cls(np.arange(len(xy)), xy, None, 1.0)

    @classmethod
    def from_slide(cls, slide: Slide) -> "Tissue":
        """Take the spots and the image of a slide."""
        xy = slide.pyramid.to_pixels(slide.centers) * slide.pyramid.um_per_px
        image, um_per_px = read_overview(slide)
        return cls(slide.rows, xy, image, um_per_px)

    def draw(
        self,
        ax: "Axes",
        values: Any,
        title: str,
        *,
        size: float | None = None,
        colors: Sequence[str] | None = None,
        norm: "Normalize | None" = None,
        image_alpha: float | None = None,
    ) -> None:
        """Color the spots by values of the table; spots without a value are not drawn.

        Parameters
        ----------
        ax
            Where the spots are drawn.
        values
            Categories, booleans or numbers (n_obs,).
        title
            Title of the panel.
        size
            Size of the spots, as a factor of their default size. Without an image, the area of a
            marker in square points.
        colors
            Colors of the categories.
        norm
            Color scale of numbers; by default their range.
        image_alpha
            Opacity of the image.
        """
        default_size = marker_area(len(self.xy)) if self.image is None else 1.0
        _import_squidpy().pl.spatial_scatter(
            self._to_anndata(values[self.rows], colors),
            color="value",
            cmap="magma",
            norm=norm,
            shape=None if self.image is None else "circle",
            size=size or default_size,
            img_alpha=image_alpha,
            title=title,
            ax=ax,
            **self._squidpy_options(),
        )
        self._set_limits(ax)

    def draw_image(self, ax: "Axes", title: str) -> None:
        """Draw the tissue without spots."""
        _import_squidpy().pl.spatial_scatter(
            self._to_anndata(np.zeros(len(self.xy))),
            shape="circle",
            alpha=0,
            title=title,
            ax=ax,
            **self._squidpy_options(),
        )
        self._set_limits(ax)

    def _squidpy_options(self) -> dict[str, Any]:
        """Return the options that all of our squidpy plots share."""
        options: dict[str, Any] = {"library_id": LIBRARY, "axis_label": ""}
        if self.image is not None:
            options["scalebar_dx"] = self.um_per_px
            options["scalebar_kwargs"] = SCALE_BAR
        return options

    def _to_anndata(self, values: Any, colors: Sequence[str] | None = None) -> "AnnData":
        """Make the table that squidpy draws: spots with a value, their colors, and the image."""
        import anndata
        import pandas as pd

        values = pd.Series(values)
        is_boolean = pd.api.types.is_bool_dtype(values)
        is_numeric = pd.api.types.is_numeric_dtype(values) and not is_boolean
        if is_numeric:
            values = pd.Series(values.to_numpy(dtype=float, na_value=np.nan))
            has_value = np.isfinite(values).to_numpy()
        else:
            values = values.astype("category").cat.rename_categories(str)
            has_value = values.notna().to_numpy()
        shown = values[has_value].array
        if not is_numeric:
            shown = shown.remove_unused_categories()
        obs = pd.DataFrame({"value": shown}, index=np.flatnonzero(has_value).astype(str))
        table = anndata.AnnData(obs=obs, obsm={"spatial": self.xy[has_value]})
        if not is_numeric:
            all_colors = np.asarray(colors or _colors.of_categories(len(values.cat.categories)))
            table.uns["value_colors"] = all_colors[np.unique(values[has_value].cat.codes)]
        if self.image is not None:
            table.uns["spatial"] = {LIBRARY: self._squidpy_image()}
        return table

    def _squidpy_image(self) -> dict[str, Any]:
        """Return the image and its scale in the form of a Space Ranger folder."""
        spot_distance = spacing(self.xy) if len(self.xy) > 1 else 0.0
        scalefactors = {
            "tissue_hires_scalef": 1 / self.um_per_px,
            "spot_diameter_fullres": SPOT_SHARE * (spot_distance or 1.0),
        }
        return {"images": {"hires": self.image}, "scalefactors": scalefactors}

    def _set_limits(self, ax: "Axes") -> None:
        """Show the spots with a margin; y points down, as in the image."""
        xy = self.xy / self.um_per_px
        low = xy.min(axis=0)
        high = xy.max(axis=0)
        margin = MARGIN * (high - low).max()
        ax.set(xlim=(low[0] - margin, high[0] + margin), ylim=(high[1] + margin, low[1] - margin))
        ax.set(xticks=[], yticks=[], xlabel="", ylabel="", aspect="equal")


def read_overview(slide: Slide) -> tuple[np.ndarray, float]:
    """Return a small image (y, x, 3) of the whole slide, and its µm per pixel."""
    height, width = slide.pyramid.levels[0].shape
    side = max(height, width)
    scale = side / OVERVIEW_PIXELS
    um_per_px = slide.pyramid.um_per_px * scale
    # A pyramid in pixels, where chunks of the image that were never written count as black.
    in_pixels = ImagePyramid(with_gaps(slide.pyramid.levels), slide.pyramid.um_per_px)
    square = in_pixels.read(
        np.array([[side / 2, side / 2]]),
        size=int(np.ceil(side / scale)),
        um_per_px=um_per_px,
        allow_upsampling=True,
    )[0]
    return square[: int(np.ceil(height / scale)), : int(np.ceil(width / scale))], um_per_px


def marker_area(n_spots: int) -> float:
    """Return a marker area in square points at which spots neither overlap nor vanish."""
    return float(np.clip(12_000 / max(n_spots, 1), 2, 40))


def _import_squidpy() -> Any:
    """Import squidpy without the warnings of its dependencies about themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import squidpy
    return squidpy
