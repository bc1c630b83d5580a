"""Values of spots on the tissue under them, through squidpy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.levels import with_gaps
from stp.images.slides import Slide, SlideQuery, only_slide
from stp.pl import _colors
from stp.tables.table import get_table, require

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

PICTURE_PX = 1600  # longer side of the picture of the whole slide
MARGIN = 0.06  # around the spots, of their extent
FILLED = 0.8  # of the distance to the next spot
LIBRARY = "slide"  # squidpy's word for it
BAR = {"location": "lower left", "box_alpha": 0.7, "length_fraction": 0.25}


@dataclass(frozen=True)
class Tissue:
    """Where the spots of one slide lie, and what is under them."""

    rows: np.ndarray  # (n,) in the table
    xy: np.ndarray  # (n, 2); in um, where there is a picture
    picture: np.ndarray | None  # (y, x, 3) uint8
    um_per_px: float  # of the picture

    @classmethod
    def of(
        cls,
        data: Any,
        table_key: str,
        image_key: str | None,
        um_per_px: float | None,
        spatial_key: str,
    ) -> "Tissue":
        """Find the slide of a SpatialData with an image, or take coordinates alone."""
        table = get_table(data, table_key)
        if getattr(data, "images", None):
            return cls.on(only_slide(data, table, SlideQuery(image_key, um_per_px=um_per_px)))
        xy = np.asarray(
            require(table, "obsm", spatial_key, "what gives the coordinates"), dtype=float
        )[:, :2]
        return cls(np.arange(len(xy)), xy, None, 1.0)

    @classmethod
    def on(cls, slide: Slide) -> "Tissue":
        """Take a slide with its image."""
        xy = slide.pyramid.to_pixels(slide.centers) * slide.pyramid.um_per_px
        return cls(slide.rows, xy, *picture_of(slide))

    def draw(
        self,
        ax: "Axes",
        values: Any,
        size: float | None,
        colors: Sequence[str] | None = None,
        **how: Any,
    ) -> None:
        """Color the spots by values (n_obs,) of the table, categories, booleans or numbers; none where missing."""
        import squidpy as sq

        shown = {"shape": "circle", "size": size or 1.0}
        if self.picture is None:
            shown = {"shape": None, "size": size or marker_area(len(self.xy))}
        view = self._view(values[self.rows], colors)
        sq.pl.spatial_scatter(
            view, color="value", cmap="magma", ax=ax, **shown, **self._shown(), **how
        )
        self._frame(ax)

    def draw_picture(self, ax: "Axes", **how: Any) -> None:
        """Show the tissue alone."""
        import squidpy as sq

        view = self._view(np.zeros(len(self.xy)))
        sq.pl.spatial_scatter(view, shape="circle", alpha=0, ax=ax, **self._shown(), **how)
        self._frame(ax)

    def _shown(self) -> dict[str, Any]:
        bar = (
            {"scalebar_dx": self.um_per_px, "scalebar_kwargs": BAR}
            if self.picture is not None
            else {}
        )
        return {"library_id": LIBRARY, "axis_label": "", **bar}

    def _view(self, values: Any, colors: Sequence[str] | None = None) -> "AnnData":
        """Make what squidpy reads: the spots that have a value, the picture, and colors of categories."""
        import anndata
        import pandas as pd

        values = pd.Series(values)
        if numeric := pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(
            values
        ):
            values = pd.Series(values.to_numpy(dtype=float, na_value=np.nan))
        else:
            values = values.astype("category").cat.rename_categories(str)
        known = (np.isfinite(values) if numeric else values.notna()).to_numpy()
        obs = pd.DataFrame({"value": values[known].array}, index=np.flatnonzero(known).astype(str))
        view = anndata.AnnData(obs=obs, obsm={"spatial": self.xy[known]})
        if not numeric:
            met = np.unique(values[known].cat.codes)
            view.obs["value"] = view.obs["value"].cat.remove_unused_categories()
            view.uns["value_colors"] = np.asarray(
                colors or _colors.of_categories(len(values.cat.categories))
            )[met]
        if self.picture is not None:
            scale = {
                "tissue_hires_scalef": 1 / self.um_per_px,
                "spot_diameter_fullres": FILLED * _pitch(self.xy),
            }
            view.uns["spatial"] = {
                LIBRARY: {"images": {"hires": self.picture}, "scalefactors": scale}
            }
        return view

    def _frame(self, ax: "Axes") -> None:
        """Show the spots with a margin; y points down, as in the image."""
        xy = self.xy / self.um_per_px
        low, high = xy.min(axis=0), xy.max(axis=0)
        margin = MARGIN * (high - low).max()
        ax.set(xlim=(low[0] - margin, high[0] + margin), ylim=(high[1] + margin, low[1] - margin))
        ax.set(xticks=[], yticks=[], xlabel="", ylabel="", aspect="equal")


def picture_of(slide: Slide) -> tuple[np.ndarray, float]:
    """Read a small picture of the whole slide; returns it and its um per pixel."""
    height, width = slide.pyramid.levels[0].shape
    um = slide.pyramid.um_per_px
    scale = max(height, width) / PICTURE_PX
    size = int(np.ceil(max(height, width) / scale))
    center = np.array([[max(height, width) / 2] * 2])
    in_pixels = type(slide.pyramid)(with_gaps(slide.pyramid.levels), um)
    picture = in_pixels.read(center, size=size, um_per_px=um * scale, allow_upsampling=True)[0]
    return picture[: int(np.ceil(height / scale)), : int(np.ceil(width / scale))], um * scale


def marker_area(n_spots: int) -> float:
    """Return the marker area, in points squared, at which this many spots neither touch nor vanish."""
    return float(np.clip(12_000 / max(n_spots, 1), 2, 40))


def _pitch(xy: np.ndarray) -> float:
    """Return the median distance to the nearest spot."""
    from scipy.spatial import cKDTree

    return float(np.median(cKDTree(xy).query(xy, k=min(2, len(xy)))[0][..., -1])) or 1.0
