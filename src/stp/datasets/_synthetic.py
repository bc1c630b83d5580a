"""A synthetic slide whose image and expression follow one law: for tests, tutorials and demos.

Public slides need no code of ours: `squidpy.datasets.visium` and `scanpy.datasets.visium_sge`
fetch them.
"""

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Identity, Scale

from stp.datasets._counts import draw_counts
from stp.datasets._nuclei import draw_nuclei
from stp.datasets._scan import scan_slide
from stp.datasets._tissue import CELL_UM, DOMAINS, Tissue, draw_tissue, sample_map

__all__ = ["synthetic_visium"]

_PITCH_UM = 100.0  # distance of neighboring spots
_RADIUS_UM = 27.5  # of a spot
_RIM_DIAMETER_UM = 65  # of a spot with its rim: the diameter that Space Ranger writes
_MARGIN_UM = 100.0  # glass around the spots


def synthetic_visium(
    *,
    seed: int = 0,
    n_rows: int = 26,
    n_cols: int = 26,
    um_per_px: float = 1.0,
    name: str = "slide",
) -> SpatialData:
    """Make a Visium slide: an H&E-like image, hexagonal spots and counts of real human genes.

    Five domains and a continuous activity shape both form and expression, by a law that all seeds
    share. Form is the density, size and shape of nuclei, and texture; expression is that of marker
    programs. Each seed has its own layout, stain and depth. Stains differ so much that color says
    little across slides. A seed is the same tissue with the same counts at every `um_per_px`.
    Counts are negative-binomial.

    Parameters
    ----------
    seed
        Random seed for the layout, the nuclei, the scan and the counts.
    n_rows, n_cols
        Number of spots down and across, at least 6. Spots not wholly on tissue are left out.
    um_per_px
        µm per pixel of the image.
    name
        Name of the slide, which is that of the shapes and of the table's region. The image is
        called `f"{name}_full_image"`.

    Returns
    -------
    SpatialData
        `images[f"{name}_full_image"]`: uint8 RGB (c, y, x). `shapes[name]`: circles 55 µm wide.
        Both are in pixels in the coordinate system "global", and in µm in "um".
        `tables["table"]`: raw counts (float32 CSR) with gene symbols. Its `obs` has `array_row`,
        `array_col` and the truth: `domain`, which has most of the spot's area, and `activity`. Its
        `obsm["spatial"]` has pixel positions (x, y); pixel i covers [i, i + 1).

    Raises
    ------
    ValueError
        If there are fewer than 6 rows or columns, or `um_per_px` is not positive.

    Examples
    --------
    >>> slide = stp.datasets.synthetic_visium(seed=1, n_rows=8, n_cols=8, um_per_px=2.0)
    >>> list(slide.images), list(slide.tables)
    (['slide_full_image'], ['table'])
    """
    if min(n_rows, n_cols) < 6 or not um_per_px > 0:
        raise ValueError(
            "n_rows and n_cols must be 6 or more, um_per_px positive: "
            f"{n_rows}, {n_cols}, {um_per_px}"
        )
    # Each part draws from its own stream, so that the draws of one never change another.
    layout_rng, nuclei_rng, scan_rng, counts_rng = np.random.default_rng(seed).spawn(4)
    spots = _lay_out_spots(n_rows, n_cols)
    size_um = spots[["y", "x"]].max().to_numpy() + _MARGIN_UM
    tissue = draw_tissue(layout_rng, tuple(np.ceil(size_um / CELL_UM).astype(int)))
    spots = _keep_on_tissue(spots, tissue)
    nuclei = draw_nuclei(nuclei_rng, tissue)
    image_shape = tuple(np.ceil(size_um / um_per_px).astype(int))
    image = scan_slide(scan_rng, tissue, nuclei, image_shape, um_per_px)
    return _assemble(image, spots, draw_counts(counts_rng, spots), um_per_px, name)


def _lay_out_spots(n_rows: int, n_cols: int) -> pd.DataFrame:
    """Return all spots of the hexagonal lattice: array_row, array_col; x, y in µm."""
    row, col = np.divmod(np.arange(n_rows * n_cols), n_cols)
    spots = pd.DataFrame({"array_row": row, "array_col": 2 * col + row % 2})
    steps = spots[["array_col", "array_row"]].to_numpy() * _PITCH_UM / 2
    spots[["x", "y"]] = _MARGIN_UM + steps * [1, np.sqrt(3)]
    return spots


def _keep_on_tissue(spots: pd.DataFrame, tissue: Tissue) -> pd.DataFrame:
    """Return the spots wholly on tissue, with shares of domains, domain and activity under them."""
    square = np.mgrid[-_RADIUS_UM : _RADIUS_UM + 1 : 2.5, -_RADIUS_UM : _RADIUS_UM + 1 : 2.5]
    offsets = square.reshape(2, -1).T
    disc = offsets[np.linalg.norm(offsets, axis=1) <= _RADIUS_UM]
    points = spots[["x", "y"]].to_numpy()[:, None] + disc
    spots[DOMAINS] = sample_map(tissue.shares, points).mean(axis=-1).T
    spots["domain"] = pd.Categorical(spots[DOMAINS].idxmax(axis=1), categories=DOMAINS)
    spots["activity"] = sample_map(tissue.activity, points).mean(axis=-1)
    return spots[sample_map(tissue.mask, points).min(axis=-1) == 1]


def _assemble(
    image: np.ndarray, spots: pd.DataFrame, table: AnnData, um_per_px: float, name: str
) -> SpatialData:
    """Put image, spots and counts together."""
    to_um = Scale([um_per_px, um_per_px], axes=("x", "y"))
    transformations = {"global": Identity(), "um": to_um}
    xy = spots[["x", "y"]].to_numpy() / um_per_px
    obs = spots[["array_row", "array_col", "domain", "activity"]]
    obs = obs.set_axis(name + "_" + spots.index.astype(str))
    table.obs = obs.assign(region=pd.Categorical([name] * len(xy)), spot_id=spots.index)
    table.obsm["spatial"] = xy
    scalefactors = {
        "spot_diameter_fullres": _RIM_DIAMETER_UM / um_per_px,
        "microns_per_pixel": um_per_px,
    }
    table.uns["spatial"] = {name: {"images": {}, "scalefactors": scalefactors}}
    image = Image2DModel.parse(
        image, dims=("c", "y", "x"), c_coords=list("rgb"), transformations=transformations
    )
    circles = ShapesModel.parse(
        xy,
        geometry=0,
        radius=_RADIUS_UM / um_per_px,
        index=spots.index,
        transformations=transformations,
    )
    table = TableModel.parse(table, region=name, region_key="region", instance_key="spot_id")
    return SpatialData(
        images={f"{name}_full_image": image}, shapes={name: circles}, tables={"table": table}
    )
