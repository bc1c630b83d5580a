"""Values of spots on the tissue under them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.data.neighborhoods import spacing
from stp.images.regions import check_one_slide
from stp.images.slides import Slide, SlideQuery, only_slide
from stp.pl import _colors
from stp.pl._figure import wrap
from stp.pl._markers import CROSS, cross_halo, legend_marker, marker_area
from stp.pl._slide_view import Crop, CropCoord, read_overview
from stp.pl._spot_raster import MAX_SPOTS, RADIUS_SHARE, SpotRaster
from stp.tables.coordinates import REMEDY, read_coordinates, require_coordinates
from stp.tables.table import get_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.collections import Collection
    from matplotlib.colors import Colormap, Normalize

PANEL_INCHES = 4.2  # longer side of a panel
TITLE_SIZE = 11  # points
MARGIN = 0.06  # space around the spots, as a share of their extent
BAR_MARGIN = 0.07  # space for the scale bar under the spots, as a share of their extent
SPOT_SHARE = 0.8  # diameter of a spot, as a share of the distance to the next spot
# Spots so small that gaps between them would pale their colors cover the gaps.
N_ACROSS_WITHOUT_GAPS = 120
SHARE_WITHOUT_GAPS = 1.8
N_RASTERIZED = 20_000  # vector graphics hold so many spots as pixels
TISSUE_ALPHA = 0.5  # opacity of the tissue under values
ROWS_OF_LEGEND = 18
# The white box makes the scale bar readable on dark tissue too.
SCALE_BAR = {"location": "lower left", "box_alpha": 0.8, "length_fraction": 0.25}


@dataclass(frozen=True)
class Tissue:
    """The spots of one slide and the image under them."""

    rows: np.ndarray  # (n,) positions of the spots in the table
    xy: np.ndarray  # (n, 2), in µm if there is an image
    image: np.ndarray | None  # (y, x, 3) uint8
    image_um: tuple[float, float] | None  # height and width of the image
    crop: Crop | None = None
    corner: tuple[float, float] = (0.0, 0.0)  # x, y of the image
    _rasters: dict[float, SpotRaster] = field(default_factory=dict, repr=False)  # by their radius

    @classmethod
    def from_data(
        cls,
        data: Any,
        table_key: str,
        image_key: str | None,
        um_per_px: float | None,
        spatial_key: str,
        crop_coord: CropCoord | None = None,
    ) -> "Tissue":
        """Find the slide of a SpatialData with an image; else take the coordinates alone.

        Only the spots in `crop_coord` are taken: left, right, top, bottom.
        """
        table = get_table(data, table_key)
        crop = None if crop_coord is None else Crop.from_user(crop_coord)
        if hasattr(data, "images") and data.images:
            query = SlideQuery(image_key, um_per_px=um_per_px)
            return cls.from_slide(only_slide(data, table, query), crop)
        xy = read_coordinates(table, spatial_key)
        require_coordinates(xy, table.obs_names, REMEDY)
        check_one_slide(table, xy)
        rows = np.arange(len(xy)) if crop is None else np.flatnonzero(crop.find_spots(xy))
        return cls(rows, xy[rows], None, None, crop)

    @classmethod
    def from_slide(cls, slide: Slide, crop: Crop | None = None) -> "Tissue":
        """Take the spots and the image of a slide, or of a part of it."""
        um_per_px = slide.pyramid.um_per_px
        xy = slide.pyramid.to_pixels(slide.centers) * um_per_px
        if crop is not None:
            is_inside = crop.find_spots(xy)
            image, (left, right, top, bottom) = crop.read_image(slide)
            sides = (bottom - top, right - left)
            return cls(slide.rows[is_inside], xy[is_inside], image, sides, crop, (left, top))
        height, width = slide.pyramid.levels[0].shape
        image, _ = read_overview(slide)
        return cls(slide.rows, xy, image, (height * um_per_px, width * um_per_px))

    @property
    def panel_inches(self) -> tuple[float, float]:
        """Width and height of a panel that the spots fill."""
        extent = np.maximum(np.ptp(self.xy, axis=0), 1e-9)
        if self.crop is not None:
            extent = np.array([self.crop.right - self.crop.left, self.crop.bottom - self.crop.top])
        width, height = PANEL_INCHES * np.maximum(extent / extent.max(), 0.3)
        return float(width), float(height)

    def draw_image(self, ax: "Axes", title: str, *, alpha: float = 1.0) -> None:
        """Draw the tissue without spots, in µm and with a scale bar."""
        from matplotlib_scalebar.scalebar import ScaleBar

        if self.image is not None and self.image_um is not None:
            height, width = self.image_um
            x, y = self.corner
            ax.imshow(self.image, extent=(x, x + width, y + height, y), alpha=alpha)
            ax.add_artist(ScaleBar(1.0, "um", **SCALE_BAR))
        ax.set_title(wrap(title, PANEL_INCHES, TITLE_SIZE), fontsize=TITLE_SIZE)
        self._set_limits(ax)

    def draw_numbers(
        self,
        ax: "Axes",
        values: Any,
        title: str,
        *,
        size: float = 1.0,
        norm: "Normalize | None" = None,
        cmap: "str | Colormap" = "magma",
        label: str = "",
    ) -> None:
        """Color the spots by numbers; spots without a finite number are gray.

        Parameters
        ----------
        ax
            Where the spots are drawn.
        values
            Numbers (n_obs,) of the spots of the table.
        title
            Title of the panel.
        size
            Size of the spots, as a factor of their default size.
        norm
            Color scale; by default the range of the numbers.
        cmap
            Color map of numbers.
        label
            Text along the color bar.
        """
        import pandas as pd

        numbers = pd.Series(values[self.rows]).to_numpy(dtype=float, na_value=np.nan)
        has_number = np.isfinite(numbers)
        self.draw_image(ax, title, alpha=TISSUE_ALPHA)
        spots: Any
        if self._is_raster:
            spots = self._raster(size).draw_numbers(ax, np.where(has_number, numbers, np.nan))
            spots.set(cmap=cmap)
        else:
            spots = self.add_spots(ax, has_number, size)
            spots.set(array=numbers[has_number], cmap=cmap)
        if norm is not None:
            spots.set_norm(norm)
        self._add_missing(ax, ~has_number, size)
        if has_number.any():
            bar = ax.inset_axes((1.03, 0.0, 0.045, 1.0))  # as tall as the map
            ax.figure.colorbar(spots, cax=bar, label=label)
        if not has_number.all():
            handle = legend_marker(_colors.MISSING)
            ax.legend(
                [handle],
                ["missing"],
                loc="upper right",
                bbox_to_anchor=(1.0, 0.0),
                frameon=False,
                fontsize="small",
            )

    def draw_categories(
        self,
        ax: "Axes",
        values: "pd.Categorical",
        title: str,
        *,
        colors: Sequence[str],
        size: float = 1.0,
    ) -> None:
        """Color the spots by categories (n_obs,); spots without a category are gray.

        Each category has one of `colors`. The legend lists the categories that occur.
        """
        codes = np.asarray(values.codes)[self.rows]
        has_category = codes >= 0
        self.draw_image(ax, title, alpha=TISSUE_ALPHA)
        if self._is_raster:
            self._raster(size).draw_colors(ax, codes, colors)
        else:
            spots = self.add_spots(ax, has_category, size)
            spots.set_facecolor([colors[code] for code in codes[has_category]])
        self._add_missing(ax, ~has_category, size)
        present = np.unique(codes[has_category])
        handles = [legend_marker(colors[code]) for code in present]
        labels = [str(values.categories[code]) for code in present]
        if not has_category.all():
            handles.append(legend_marker(_colors.MISSING))
            labels.append("missing")
        ax.legend(
            handles,
            labels,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            frameon=False,
            fontsize="small",
            ncols=-(-len(labels) // ROWS_OF_LEGEND),
        )

    def mark_spots(self, ax: "Axes", is_marked: np.ndarray) -> None:
        """Draw a cross on the marked spots (n_obs,) of the table."""
        if is_marked[self.rows].any():
            x, y = self.xy[is_marked[self.rows]].T
            area = marker_area(len(self.xy))
            crosses = ax.scatter(x, y, marker="x", s=area, color=CROSS, linewidths=1.3)
            crosses.set_path_effects([cross_halo()])

    def add_spots(self, ax: "Axes", is_drawn: np.ndarray, size: float = 1.0) -> "Collection":
        """Add circles, each as wide as most of the distance to the next spot."""
        from matplotlib.collections import EllipseCollection

        diameter = np.full(int(is_drawn.sum()), self._diameter() * size)
        circles = EllipseCollection(
            diameter,
            diameter,
            np.zeros(len(diameter)),
            units="xy",
            offsets=self.xy[is_drawn],
            offset_transform=ax.transData,
            linewidths=0,
            rasterized=len(diameter) > N_RASTERIZED,
        )
        ax.add_collection(circles, autolim=False)
        return circles

    def _add_missing(self, ax: "Axes", is_missing: np.ndarray, size: float) -> None:
        if is_missing.any() and self._is_raster:
            codes = np.where(is_missing, 0, -1)
            self._raster(size).draw_colors(ax, codes, [_colors.MISSING]).set(zorder=0.9)
        elif is_missing.any():
            circles = self.add_spots(ax, is_missing, size)
            circles.set(facecolor=_colors.MISSING, zorder=0.9)  # under the values

    @property
    def _is_raster(self) -> bool:
        """Whether there are so many spots that they are drawn as an image."""
        return len(self.xy) > MAX_SPOTS

    def _raster(self, size: float) -> SpotRaster:
        """Return the spot under each pixel; the panels of a figure share it."""
        radius = RADIUS_SHARE * self._spacing * size
        if radius not in self._rasters:
            self._rasters[radius] = SpotRaster.from_spots(self.xy, radius)
        return self._rasters[radius]

    @cached_property
    def _spacing(self) -> float:
        """Distance to the next spot; 1 if there is no other place with a spot."""
        return (spacing(self.xy) if len(self.xy) > 1 else 0.0) or 1.0

    def _diameter(self) -> float:
        distance = self._spacing
        has_gaps = np.ptp(self.xy, axis=0).max() < N_ACROSS_WITHOUT_GAPS * distance
        return distance * (SPOT_SHARE if has_gaps else SHARE_WITHOUT_GAPS)

    def _set_limits(self, ax: "Axes") -> None:
        """Show the part to draw, or the spots with a margin; y points down, as in the image."""
        ax.set(xticks=[], yticks=[], xlabel="", ylabel="", aspect="equal")
        if self.crop is not None:
            left, right, top, bottom = self.crop
            ax.set(xlim=(left, right), ylim=(bottom, top))
            return
        low = self.xy.min(axis=0)
        high = self.xy.max(axis=0)
        extent = (high - low).max()
        margin = max(MARGIN * extent, self._diameter())
        bottom = margin if self.image is None else margin + BAR_MARGIN * extent
        ax.set(xlim=(low[0] - margin, high[0] + margin), ylim=(high[1] + bottom, low[1] - margin))
