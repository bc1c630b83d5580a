"""The patch of a spot and the measured patches behind its prediction, or behind a query."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stp.images.slides import find_slides
from stp.pl._figure import finish, set_titles, wrap
from stp.pl._patches import NAME_SIZE, PATCH_BAR_UM, PATCH_INCHES, PATCH_PIXELS, draw_patch
from stp.retrieval.nearest import weights
from stp.tables import keys
from stp.tables.table import get_table, require

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

PANEL_INCHES = 2.1
PREDICT_CALL = "stp.tl.predict_expression(adata, reference)"


def retrieval(
    sdata: "SpatialData",
    references: "SpatialData | Iterable[SpatialData]",
    spot: str,
    *,
    n_shown: int = 6,
    key: str = keys.EXPRESSION,
    patch_um: float = 112.0,
    table_key: str = "table",
    title: str | Sequence[str] | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
    return_fig: bool = False,
) -> "Figure | None":
    """Draw the patch of a spot and the reference patches behind its prediction or its query.

    Parameters
    ----------
    sdata
        SpatialData with a prediction of :func:`stp.tl.predict_expression`, or with a query of
        :func:`stp.tl.query_by_genes` or :func:`stp.tl.query_by_image`.
    references
        The references of that prediction or query, in the same order, as SpatialData with images.
    spot
        Name of the spot.
    n_shown
        Number of references to show, the nearest first.
    key
        Name of the prediction or of the query.
    patch_um
        Side of a patch in µm.
    table_key
        Name of the table in a SpatialData.
    title
        Title of the panel, or a list with a title for each panel. One title for several panels is
        put above them.
    show
        Whether to show the figure. By default it is shown in Jupyter and in a window, unless
        `scanpy.settings.autoshow` is off.
    save
        Path of a file to save the figure in, such as `figure.png`.
    return_fig
        Whether to return the figure instead of showing it.

    Returns
    -------
    A figure that shows for each reference its name, slide, cosine, and share of the prediction. For
    a query by genes the last is the score of the program in the reference, in standard deviations
    of its slide. Nothing is returned if the figure is shown.

    Raises
    ------
    KeyError
        There is no prediction or query, or no such spot.
    ValueError
        The spot has no prediction, a query by an image was of another spot, or the references are
        not those of the prediction.

    Examples
    --------
    >>> reference = spatialdata.read_zarr("demo/stores/train_0.zarr")
    >>> stp.tl.tokenize(reference, model)
    >>> stp.tl.embed_genes(reference, model)
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.predict_expression(sdata, reference, genes=adata.var_names[:2])
    >>> stp.pl.retrieval(sdata, reference, spot=adata.obs_names[0])
    """
    import matplotlib.pyplot as plt

    table = get_table(sdata, table_key)
    if spot not in table.obs_names:
        raise KeyError(f"no spot {spot!r}; choose from the table's obs_names")
    row = table.obs_names.get_loc(spot)
    is_image_query = "spots" in table.uns.get(key, {})
    shown = _read_spots(table, key, spot) if is_image_query else _read_neighbors(table, key, row)
    nearest = shown.nearest.iloc[:n_shown]
    slides = [references] if hasattr(references, "tables") else list(references)
    n_panels = 1 + len(nearest)
    width = PANEL_INCHES * n_panels
    figure, axes = plt.subplots(1, n_panels, figsize=(width, 2.9), layout="constrained")
    draw_patch(axes[0], _read_patch(sdata, row, patch_um, table_key), patch_um, PATCH_BAR_UM)
    _set_lines(axes[0], [spot, shown.verb])
    for rank, (ax, (_, reference)) in enumerate(zip(axes[1:], nearest.iterrows(), strict=True)):
        slide = _find_reference(slides, reference, table_key)
        patch = _read_patch(slide, reference["row"], patch_um, table_key)
        draw_patch(ax, patch, patch_um, PATCH_BAR_UM)
        _set_lines(ax, [reference["spot"], reference["slide"], *shown.texts[rank]])
    set_titles(list(axes), title)
    return finish(figure, show=show, save=save, return_fig=return_fig)


class ShownSpots(NamedTuple):
    """The reference spots behind a spot, nearest first, and what is written above them."""

    nearest: "pd.DataFrame"
    texts: list[list[str]]  # lines
    verb: str


def _read_neighbors(table: "AnnData", key: str, row: int) -> ShownSpots:
    """Return the references of a prediction, or the nearest examples of a query by genes."""
    neighbors = np.asarray(require(table, "obsm", keys.neighbors(key), PREDICT_CALL))
    similarity = np.asarray(require(table, "obsm", keys.similarity(key), PREDICT_CALL))
    if neighbors[row, 0] < 0:
        raise ValueError(
            f"spot {table.obs_names[row]!r} has no prediction because it has no embedding; choose "
            "another"
        )
    nearest = table.uns[key]["references"].iloc[neighbors[row]]
    cosines = [f"cosine {cosine:.2f}" for cosine in similarity[row]]
    if "program" in nearest:
        programs = [f"program {number:+.1f} SD" for number in nearest["program"]]
        texts = [list(lines) for lines in zip(cosines, programs, strict=True)]
        return ShownSpots(nearest, texts, "looks like")
    shares = weights(similarity[row : row + 1])[0][0]
    texts = [[f"{cosine}, {share:.1%}"] for cosine, share in zip(cosines, shares, strict=True)]
    return ShownSpots(nearest, texts, "is predicted from")


def _read_spots(table: "AnnData", key: str, spot: str) -> ShownSpots:
    """Return the spots that a query by an image found, or raise ValueError for another spot."""
    tile = table.uns[key]["params"]["tile"]
    if spot != tile:
        raise ValueError(
            f"uns[{key!r}] is a query by {tile!r}, not by {spot!r}; run "
            f"stp.tl.query_by_image(sdata, {spot!r}, reference=reference) first"
        )
    nearest = table.uns[key]["spots"]
    texts = [[f"cosine {cosine:.2f}"] for cosine in nearest["similarity"]]
    return ShownSpots(nearest, texts, "looks like")


def _set_lines(ax: "Axes", lines: Sequence[str]) -> None:
    """Set the title of a panel, with lines that fit into it."""
    wrapped = [wrap(line, PATCH_INCHES, NAME_SIZE) for line in lines]
    ax.set_title("\n".join(wrapped), fontsize=NAME_SIZE)


def _find_reference(
    slides: list["SpatialData"], reference: "pd.Series", table_key: str
) -> "SpatialData":
    """Return the slide of a reference spot, or raise ValueError if the spot is not where it was."""
    if reference["reference"] < len(slides):
        slide = slides[reference["reference"]]
        names = get_table(slide, table_key).obs_names
        if reference["row"] < len(names) and str(names[reference["row"]]) == reference["spot"]:
            return slide
    raise ValueError(
        f"{reference['spot']!r} of {reference['slide']} is not where the prediction found it; "
        "give the references of the prediction, unchanged and in the same order"
    )


def _read_patch(sdata: "SpatialData", row: int, patch_um: float, table_key: str) -> np.ndarray:
    """Read the patch around the spot in one row of the table (y, x, 3)."""
    slides = find_slides(sdata, get_table(sdata, table_key))
    slide = next(slide for slide in slides if row in slide.rows)
    return slide.pyramid.read(
        slide.centers[slide.rows == row],
        size=PATCH_PIXELS,
        um_per_px=patch_um / PATCH_PIXELS,
        allow_upsampling=True,
    )[0]
