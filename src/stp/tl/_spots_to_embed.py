"""Which spots `embed_images` embeds, and a warning if their patches overlap many times."""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stp._config import require_not_negative
from stp._log import count, logger, warn
from stp.images.lattice import fit_lattice
from stp.images.patches import PatchWindow
from stp.images.slides import Slide
from stp.tables.counts import count_blocks
from stp.tables.features import find_genes
from stp.tables.in_tissue import read_in_tissue
from stp.tables.table import require_column

if TYPE_CHECKING:
    from anndata import AnnData

MANY_SPOTS = 10_000  # fewer are embedded in minutes, however much their patches overlap
MANY_TIMES = 50.0  # patches of 112 µm every 16 µm overlap 49 times


@dataclass(frozen=True)
class SpotChoice:
    """Which spots are embedded.

    Parameters
    ----------
    min_counts
        Number of counts in genes that a spot must have to be embedded; others get NaN.
    in_tissue_key
        Column of `obs` with 0 or 1, such as "in_tissue"; spots with 0 get NaN. By default all spots
        are embedded.
    """

    min_counts: int = 0
    in_tissue_key: str | None = None


def choose_spots(table: "AnnData", choice: SpotChoice) -> np.ndarray:
    """Return whether each spot (n_obs,) is embedded, and log what share is left out.

    Parameters
    ----------
    table
        Table of the spots.
    choice
        Which spots are embedded.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        `min_counts` is negative, the counts are not raw, a value of the column is neither 0 nor 1,
        or no spot is left.
    """
    require_not_negative(choice, "min_counts")
    is_chosen = np.ones(table.n_obs, dtype=bool)
    reasons = []
    if choice.in_tissue_key is not None:
        column = require_column(table, choice.in_tissue_key, "in_tissue_key")
        is_chosen = read_in_tissue(column, f"obs[{choice.in_tissue_key!r}]")
        reasons.append(f"{np.count_nonzero(~is_chosen):,} are outside the tissue")
    if choice.min_counts:
        has_counts = _sum_counts(table) >= choice.min_counts
        n_poor = np.count_nonzero(is_chosen & ~has_counts)
        is_chosen &= has_counts
        reasons.append(f"{n_poor:,} have fewer than {count(choice.min_counts, 'count')}")
    n_left_out = table.n_obs - np.count_nonzero(is_chosen)
    if n_left_out and n_left_out == table.n_obs:
        raise ValueError(
            f"no spot is left to embed: of {table.n_obs:,}, {' and '.join(reasons)}; lower "
            "min_counts, or leave in_tissue_key out"
        )
    if n_left_out:
        share = n_left_out / table.n_obs
        logger.info(
            f"{n_left_out:,} of {count(table.n_obs, 'spot')} ({share:.1%}) are not embedded and "
            f"get NaN: {', '.join(reasons)}."
        )
    return is_chosen


def _sum_counts(table: "AnnData") -> np.ndarray:
    """Return the number of counts in genes of each spot (n_obs,)."""
    is_gene = find_genes(table).astype(np.float64)
    return np.concatenate([block @ is_gene for block in count_blocks(table)])


def warn_if_patches_overlap(table: "AnnData", slide: Slide, window: PatchWindow) -> None:
    """Warn if many patches of a square lattice, such as that of Visium HD, show each place.

    Parameters
    ----------
    table
        Table of the spots.
    slide
        Spots that are embedded, and their image.
    window
        Size and scale of the patches.
    """
    if len(slide.rows) < MANY_SPOTS or not {"array_row", "array_col"} <= set(table.obs):
        return
    obs = table.obs[["array_row", "array_col"]].iloc[slide.rows]
    centers_um = slide.pyramid.to_pixels(slide.centers) * slide.pyramid.um_per_px
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a lattice that does not fit was warned about before
        lattice = fit_lattice(obs, centers_um)
    if lattice is None or lattice.kind != "square":
        return
    pitch_um = (lattice.row_distance * lattice.column_distance) ** 0.5
    side_um = window.size * window.um_per_px
    n_times = (side_um / pitch_um) ** 2
    if n_times >= MANY_TIMES:
        size_um = max(2, round(side_um / pitch_um / 2)) * round(pitch_um)
        warn(
            f"a patch of {side_um:.0f} µm every {pitch_um:.3g} µm: about {n_times:.0f} patches "
            f"show each place of {slide.region}. Bins of {size_um} µm, made by "
            f"stp.tl.aggregate_bins(sdata, size_um={size_um}), need far fewer patches; min_counts= "
            "and in_tissue_key= leave spots out"
        )
