"""The tiles that raise a prediction most and lower it most, at true scale."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.pyramid import ImagePyramid
from stp.images.source_slide import open_source_slide
from stp.images.tile_places import TilePlaces, find_tile_places, tile_record
from stp.pl._attention import read_named
from stp.pl._figure import finish
from stp.pl._patches import NAME_SIZE, PATCH_PIXELS, draw_patch
from stp.tables import keys
from stp.tables.table import get_table
from stp.tables.tile_scores import default_outputs, read_outputs

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

TILE_INCHES = 1.5
TITLE_INCHES = 0.6
BAR_SHARE = 0.45  # longest scale bar, as a share of a tile
BAR_LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # µm


def tiles(
    sdata: "SpatialData",
    *,
    by: str | None = None,
    n: int = 8,
    key: str = keys.ATTENTION,
    image: str | Path | None = None,
    um_per_px: float | None = None,
    table_key: str = "table",
    title: str | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> "Figure | None":
    """Draw the tiles with the highest and the lowest contribution to a prediction, at true scale.

    Parameters
    ----------
    sdata
        SpatialData with the tiles or spots of one slide, scored by :func:`stp.tl.score_tiles`. A
        tile store has no pixels: they are read from the slide that it was made from.
    by
        An output in `uns[key]["outputs"]`, whose contributions are compared, or a column of `obs`
        with attention. By default it is the first output, or the positive one of two classes.
    n
        Number of tiles of each kind.
    key
        Name of the scores of tiles.
    image
        Path of the slide, if it is not where it was when its tiles were laid, or if the features
        were read from the file of another tool.
    um_per_px
        µm per pixel of the image at full resolution; by default it is resolved from the data, and
        sources that differ by more than 5 % are an error.
    table_key
        Name of the table in a SpatialData.
    title
        Title of the figure, instead of what was compared.
    show
        Whether to show the figure. By default it is shown in Jupyter and in a window, unless
        `scanpy.settings.autoshow` is off.
    save
        Path of a file to save the figure in, such as `figure.png`.
    return_fig
        Whether to return the figure instead of showing it.

    Returns
    -------
    A figure with the highest tiles in the upper row, the highest first, and the lowest in the lower
    row, the lowest first. Above each tile is its value, in the unit of :func:`stp.pl.attention`.
    No tile is in both rows. Nothing is returned if the figure is shown.

    Raises
    ------
    FileNotFoundError
        The slide is not where it was when its tiles were laid; pass `image`.
    KeyError
        Tiles have no scores, or `by` is neither attention nor an output.
    TypeError
        `sdata` is no SpatialData, so that tiles have no places.
    ValueError
        The slide was changed after its tiles were laid, tiles have no places, or `n` is not
        positive.

    Examples
    --------
    >>> config = stp.train.SlideConfig(epochs=2, hidden=16, attention=8)
    >>> target = stp.train.Classes("EGFR", positive="mutated")
    >>> slide_model = stp.train.fit_slides(cohort, "runs/map", targets=target, config=config)
    >>> scored = stp.io.read_features("features/P1.h5")
    >>> stp.tl.score_tiles(scored, slide_model)
    >>> stp.pl.tiles(scored, n=2, image="slide.tif", um_per_px=1.0)
    """
    import matplotlib.pyplot as plt

    record = tile_record(sdata)
    table = get_table(sdata, table_key)
    if n < 1:
        raise ValueError(f"n is the number of tiles in a row, at least 1, not {n}")
    values = read_named(table, key, by or default_outputs(read_outputs(table, key))[0])
    places = find_tile_places(sdata, table, um_per_px)
    numbers = values.values[places.rows]
    highest, lowest = _choose(numbers, n)
    side_um = _side_um(table, key, record, places)
    pyramid = _open_pixels(record, image, places)
    n_columns = max(len(highest), len(lowest))
    figure, axes = plt.subplots(
        2,
        n_columns,
        figsize=(TILE_INCHES * n_columns + 0.3, 2 * (TILE_INCHES + 0.3) + TITLE_INCHES),
        layout="constrained",
        squeeze=False,
    )
    for row, index in zip(axes, (highest, lowest), strict=True):
        pictures = pyramid.read(
            places.centers[index] * places.um_per_px / pyramid.um_per_px,
            size=PATCH_PIXELS,
            um_per_px=side_um / PATCH_PIXELS,
            allow_upsampling=True,
        )
        for ax, picture, number in zip(row, pictures, numbers[index], strict=False):
            draw_patch(ax, picture, side_um, _bar_um(side_um))
            text = f"{number:+.2g}" if values.is_signed else f"{number:.2g} %"
            ax.set_title(text, fontsize=NAME_SIZE)
        for ax in row[len(index) :]:
            ax.remove()
    _label_rows(axes)
    figure.suptitle(f"{values.title}\n{values.unit}", fontsize="medium")
    if title is not None:
        figure.suptitle(title)
    return finish(figure, show=show, save=save, return_fig=return_fig)


def _choose(numbers: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the highest and of the lowest numbers, without an overlap."""
    has_number = np.flatnonzero(np.isfinite(numbers))
    if not len(has_number):
        raise ValueError("no tile has a score; run stp.tl.score_tiles again")
    order = has_number[np.argsort(-numbers[has_number], kind="stable")]
    n_highest = min(n, -(-len(order) // 2))
    n_lowest = min(n, len(order) // 2)
    return order[:n_highest], order[::-1][:n_lowest]


def _side_um(table: "AnnData", key: str, record: dict[str, Any], places: TilePlaces) -> float:
    """Return the side of a tile, or of the patch that the encoder saw at a spot, in µm."""
    if record:
        return float(record["tile_um"])
    rep = table.uns[key]["params"]["use_rep"]
    entry = table.uns.get(rep, table.uns.get(rep.removesuffix(keys.aligned("")), {}))
    params = entry.get("params", {})
    if "size" in params and "um_per_px" in params:
        return float(params["size"] * params["um_per_px"])
    return places.side * places.um_per_px


def _open_pixels(
    record: dict[str, Any], image: str | Path | None, places: TilePlaces
) -> ImagePyramid:
    """Return the slide in pixels: of the SpatialData, or the file that the tiles were laid on."""
    if image is None and places.pyramid is not None:
        return ImagePyramid(places.pyramid.levels, places.um_per_px)
    return open_source_slide(record, image, places.um_per_px)


def _bar_um(side_um: float) -> int:
    """Return a round length for the scale bar of a tile."""
    fitting = [length for length in BAR_LENGTHS if length <= BAR_SHARE * side_um]
    return max(fitting, default=BAR_LENGTHS[0])


def _label_rows(axes: np.ndarray) -> None:
    """Say at the left what each row has."""
    for ax, name in zip(axes[:, 0], ("highest", "lowest"), strict=True):
        if ax.figure is not None:
            ax.set_ylabel(name)
