"""The patch of a spot beside the patches of the references that spoke for it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.slides import find_slides
from stp.pl._patches import DRAWN_PX, scale_bar
from stp.retrieval.nearest import weights
from stp.tables import keys
from stp.tables.table import get_table, require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

BAR_UM = 50


def retrieval(
    sdata: "SpatialData",
    references: "SpatialData | Iterable[SpatialData]",
    spot: str,
    *,
    n_shown: int = 6,
    key: str = keys.EXPRESSION,
    patch_um: float = 112.0,
    table_key: str = "table",
) -> "Figure":
    """Draw the patch of a spot and those of the references nearest to it, which its prediction rests on.

    Parameters
    ----------
    sdata
        SpatialData with a prediction of :func:`stp.tl.predict_expression`.
    references
        The references of that prediction, in the same order, as SpatialData with images.
    spot
        Name of the spot.
    n_shown
        References shown, of those that were used.
    key
        Name of the prediction.
    patch_um
        Side of a patch in um.
    table_key
        Table of each SpatialData.

    Returns
    -------
    The figure: each reference with its name, slide, cosine and share of the prediction.

    Raises
    ------
    KeyError
        There is no prediction, or no such spot.
    ValueError
        The spot has no prediction, or the references are not those of the prediction.

    Examples
    --------
    >>> reference = spatialdata.read_zarr("demo/stores/train_0.zarr")
    >>> stp.tl.tokenize(reference, model)
    >>> stp.tl.embed_genes(reference, model)
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.predict_expression(sdata, reference, genes=adata.var_names[:2])
    >>> figure = stp.pl.retrieval(sdata, reference, spot=adata.obs_names[0])
    """
    import matplotlib.pyplot as plt

    table, made_by = get_table(sdata, table_key), "stp.tl.predict_expression(adata, reference)"
    index, similarity = (
        np.asarray(require(table, "obsm", name(key), made_by))
        for name in (keys.neighbors, keys.similarity)
    )
    if spot not in table.obs_names:
        raise KeyError(f"no spot {spot!r}; choose from the table's obs_names")
    row = table.obs_names.get_loc(spot)
    if index[row, 0] < 0:
        raise ValueError(
            f"spot {spot!r} has no prediction, for want of an embedding; choose another"
        )
    share = weights(similarity[row : row + 1])[0][0]
    used = table.uns[key]["references"].iloc[index[row, :n_shown]]
    given = [references] if hasattr(references, "tables") else list(references)
    figure, axes = plt.subplots(
        1, 1 + len(used), figsize=(2.1 * (1 + len(used)), 2.7), layout="constrained"
    )
    _draw(
        axes[0], _patch(sdata, row, patch_um, table_key), patch_um, f"{spot}\nis predicted from\n"
    )
    for i, (ax, one) in enumerate(zip(axes[1:], used.itertuples(), strict=True)):
        patch = _patch(_checked(given, one, table_key), one.row, patch_um, table_key)
        numbers = f"cosine {similarity[row, i]:.2f}, {share[i]:.1%}"
        _draw(ax, patch, patch_um, f"{one.spot}\n{one.slide}\n{numbers}")
    return figure


def _checked(given: list["SpatialData"], one, table_key: str) -> "SpatialData":
    """Return the SpatialData that a reference is of."""
    if one.reference < len(given):
        names = get_table(given[one.reference], table_key).obs_names
        if one.row < len(names) and str(names[one.row]) == one.spot:
            return given[one.reference]
    raise ValueError(
        f"{one.spot!r} of {one.slide} is not where the prediction found it; give the references of the prediction, "
        "as they were and in the same order"
    )


def _patch(sdata: "SpatialData", row: int, patch_um: float, table_key: str) -> np.ndarray:
    """Read the patch around the spot in one row of the table (y, x, 3)."""
    slide = next(
        slide for slide in find_slides(sdata, get_table(sdata, table_key)) if row in slide.rows
    )
    center = slide.centers[np.flatnonzero(slide.rows == row)]
    how: dict[str, Any] = {
        "size": DRAWN_PX,
        "um_per_px": patch_um / DRAWN_PX,
        "allow_upsampling": True,
    }
    return slide.pyramid.read(center, **how)[0]


def _draw(ax: "Axes", patch: np.ndarray, patch_um: float, title: str) -> None:
    ax.imshow(patch, extent=(0, patch_um, patch_um, 0))
    scale_bar(ax, patch_um, BAR_UM)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=8)
