"""The measured spots that predictions rest on: one or many tables, in memory or on disk."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.tables import keys
from stp.tables.provenance import Model, model_of, require_one_model
from stp.tables.table import get_table, require, require_column

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

READ_ROWS = 8192  # embeddings read at a time


def open_references(
    reference: Any, table_key: str, *, allow_none: bool = False
) -> dict[str, "AnnData"]:
    """Open one or several references, AnnData, SpatialData or paths of stores, by a name of each."""
    single = (
        isinstance(reference, str | Path)
        or hasattr(reference, "obs_names")
        or hasattr(reference, "tables")
    )
    given = [reference] if single else list(reference)
    if not given and not allow_none:
        raise ValueError("there is no reference: the list is empty")
    tables = [get_table(one, table_key) for one in given]
    names = [
        Path(one).stem if isinstance(one, str | Path) else f"reference {i}"
        for i, one in enumerate(given)
    ]
    unique = len(set(names)) == len(names)
    return {
        name if unique else f"{name} ({i})": t
        for i, (name, t) in enumerate(zip(names, tables, strict=True))
    }


def open_embeddings(
    adata: "AnnData", use_rep: str, tables: Mapping[str, "AnnData"], reference_rep: str
) -> tuple[np.ndarray, list[Any], Model | None]:
    """Return the embeddings of a table, those of references (unread where they are on disk), and their model.

    Raises
    ------
    KeyError
        One is missing.
    ValueError
        They are of different models.
    """
    values = np.asarray(require(adata, "obsm", use_rep, keys.maker_call(use_rep)), dtype=np.float32)
    call = keys.maker_call(reference_rep).replace("adata", "reference")
    if lacking := [label for label, table in tables.items() if reference_rep not in table.obsm]:
        raise KeyError(
            f"obsm[{reference_rep!r}] of {', '.join(lacking)} is missing; run {call} first"
        )
    models = {
        f"{reference_rep} of {label}": model_of(table, reference_rep)
        for label, table in tables.items()
    }
    model = require_one_model({use_rep: model_of(adata, use_rep), **models})
    found = [table.obsm[reference_rep] for table in tables.values()]
    if widths := {one.shape[1] for one in found} - {values.shape[1]}:
        raise ValueError(
            f"obsm[{use_rep!r}] has {values.shape[1]} columns, obsm[{reference_rep!r}] of the reference {widths}: "
            "they do not lie in one space; use aligned vectors of one Stamp"
        )
    return values, found, model


def blocks(values: list[Any]) -> Iterator[np.ndarray]:
    """Read embeddings in order, a block of rows at a time."""
    for one in values:
        for start in range(0, one.shape[0], READ_ROWS):
            yield np.asarray(one[start : start + READ_ROWS], dtype=np.float32)


def name_spots(
    tables: Mapping[str, "AnnData"], rows: np.ndarray, slide_key: str | None
) -> "pd.DataFrame":
    """Tell spot, slide, reference and row of some references, which are counted through all tables."""
    import pandas as pd

    frames, first = [], 0
    for number, (label, table) in enumerate(tables.items()):
        of_table = rows[slice(*np.searchsorted(rows, (first, first + table.n_obs)))] - first
        columns = {
            "spot": table.obs_names[of_table].astype(str),
            "slide": np.asarray(_slides(table, label, slide_key))[of_table].astype(str),
            "reference": np.full(len(of_table), number),
            "row": of_table,
        }
        frames.append(pd.DataFrame(columns))
        first += table.n_obs
    frame = pd.concat(frames, ignore_index=True)
    frame.index = frame.index.astype(str)
    frame["slide"] = frame["slide"].astype("category")
    return frame


def _slides(table: "AnnData", label: str, slide_key: str | None) -> Any:
    """Name the slide of each spot: by a column, by the regions that the table annotates, else by the reference."""
    if slide_key is not None:
        return require_column(table, slide_key, "slide_key")
    attrs = table.uns.get("spatialdata_attrs")
    return table.obs[attrs["region_key"]] if attrs else np.full(table.n_obs, label, dtype=object)
