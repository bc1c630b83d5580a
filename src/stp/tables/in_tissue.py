"""Whether spots are in tissue, as Space Ranger and others write it in `obs["in_tissue"]`."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

IN_TISSUE = "in_tissue"
INSIDE = ("1", "1.0", "true")
OUTSIDE = ("0", "0.0", "false")


def is_outside_tissue(column: "pd.Series") -> np.ndarray:
    """Return whether each spot (n,) is marked as outside the tissue."""
    return column.astype(str).str.lower().isin(OUTSIDE).to_numpy()


def read_in_tissue(column: "pd.Series", owner: str) -> np.ndarray:
    """Return whether each spot (n,) is in tissue; the column may have any type.

    Parameters
    ----------
    column
        Column with 0 or 1, or True or False, for each spot.
    owner
        Name of the column in the error.

    Raises
    ------
    ValueError
        A value is neither 0 nor 1.
    """
    values = column.astype(str).str.lower()
    unknown = values[~values.isin([*INSIDE, *OUTSIDE])]
    if len(unknown):
        raise ValueError(
            f"{owner} contains {unknown.iloc[0]!r}, which is neither 0 nor 1; write 0 or 1 for "
            "each spot, or leave this column out"
        )
    return values.isin(INSIDE).to_numpy()
