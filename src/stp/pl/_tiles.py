"""The tiles that raise a prediction most and lower it most, at true scale."""

from pathlib import Path
from typing import TYPE_CHECKING

from stp.images.tile_places import find_tile_places, tile_record
from stp.pl._attention import read_named
from stp.pl._figure import finish
from stp.pl._tile_pictures import (
    TilePictures,
    choose_tiles,
    label_rows,
    open_pixels,
    side_of_tiles,
)
from stp.tables import keys
from stp.tables.table import get_table
from stp.tables.tile_scores import default_outputs, read_outputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

TILE_INCHES = 1.5
TITLE_INCHES = 0.6


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
    highest, lowest = choose_tiles(numbers, n, "stp.tl.score_tiles")
    side_um = side_of_tiles(table, key, record, places)
    pyramid = open_pixels(record, image, places)
    n_columns = max(len(highest), len(lowest))
    figure, axes = plt.subplots(
        2,
        n_columns,
        figsize=(TILE_INCHES * n_columns + 0.3, 2 * (TILE_INCHES + 0.3) + TITLE_INCHES),
        layout="constrained",
        squeeze=False,
    )
    pictures = TilePictures(pyramid, places, side_um)
    for row, index in zip(axes, (highest, lowest), strict=True):
        texts = [
            f"{number:+.2g}" if values.is_signed else f"{number:.2g} %" for number in numbers[index]
        ]
        pictures.draw(row, index, texts)
    label_rows(axes)
    figure.suptitle(f"{values.title}\n{values.unit}", fontsize="medium")
    if title is not None:
        figure.suptitle(title)
    return finish(figure, show=show, save=save, return_fig=return_fig)
