"""The references of retrieval: measured spots of one or many tables, in memory or on disk."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._urls import as_url, url_name
from stp.tables import keys
from stp.tables.embeddings import read_blocks, read_embedding
from stp.tables.provenance import ModelRecord, model_of, require_one_model
from stp.tables.table import as_training_data, get_table, require_column

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def open_references(
    reference: Any, table_key: str, *, allow_none: bool = False, word: str = "reference"
) -> dict[str, "AnnData"]:
    """Return the table of each reference, with a unique label as its key.

    A reference is an AnnData, a SpatialData or the path of a store. Of a collection these are the
    stores to train on. The label is the name of the file, or `word` with a number.
    """
    items = list(as_training_data(reference))
    if not items and not allow_none:
        raise ValueError(f"there is no {word}: the list is empty")
    tables = [get_table(item, table_key) for item in items]
    labels = [_file_name(item) or f"{word} {number}" for number, item in enumerate(items)]
    if len(set(labels)) < len(labels):
        labels = [f"{label} ({number})" for number, label in enumerate(labels)]
    return dict(zip(labels, tables, strict=True))


def open_embeddings(
    adata: "AnnData", use_rep: str, tables: Mapping[str, "AnnData"], reference_rep: str
) -> tuple[np.ndarray, dict[str, Any], ModelRecord | None]:
    """Return the embeddings of a table, those of references, and the record of their model.

    Embeddings of references on disk are opened, not read. Each has a label for errors.

    Raises
    ------
    KeyError
        An embedding is missing.
    ValueError
        The embeddings are of different models or of different width, or rows of the table have
        infinite values, or NaN in a part of their columns.
    """
    values = read_embedding(adata, use_rep).astype(np.float32, copy=False)
    lacking = [label for label, table in tables.items() if reference_rep not in table.obsm]
    if lacking:
        call = keys.maker_call(reference_rep).replace("adata", "reference")
        raise KeyError(
            f"obsm[{reference_rep!r}] of {', '.join(lacking)} is missing; run {call} first"
        )
    models = {use_rep: model_of(adata, use_rep)}
    for label, table in tables.items():
        models[f"{reference_rep} of {label}"] = model_of(table, reference_rep)
    model_record = require_one_model(models)
    embeddings = {
        f"obsm[{reference_rep!r}] of {label}": table.obsm[reference_rep]
        for label, table in tables.items()
    }
    other_widths = {embedding.shape[1] for embedding in embeddings.values()} - {values.shape[1]}
    if other_widths:
        raise ValueError(
            f"obsm[{use_rep!r}] has {values.shape[1]} columns, obsm[{reference_rep!r}] of the "
            f"reference {other_widths}: they do not lie in one space; "
            "use aligned vectors of one Stamp"
        )
    return values, embeddings, model_record


def blocks(embeddings: Mapping[str, Any]) -> Iterator[np.ndarray]:
    """Yield the rows of several embeddings in order, a block at a time; keys are their labels.

    Raises
    ------
    ValueError
        A row has infinite values, or NaN in a part of its columns.
    """
    for label, embedding in embeddings.items():
        yield from read_blocks(embedding, label)


def name_spots(
    tables: Mapping[str, "AnnData"], rows: np.ndarray, slide_key: str | None
) -> "pd.DataFrame":
    """Return the spot, slide, reference and row of each reference spot in `rows`.

    `rows` are in ascending order and count through all tables.
    """
    import pandas as pd

    slides = name_slides(tables, slide_key)
    frames = []
    first = 0  # number of the table's first spot
    for number, (label, table) in enumerate(tables.items()):
        start, stop = np.searchsorted(rows, (first, first + table.n_obs))
        table_rows = rows[start:stop] - first
        columns = {
            "spot": table.obs_names[table_rows].astype(str),
            "slide": slides[label][table_rows],
            "reference": np.full(len(table_rows), number),
            "row": table_rows,
        }
        frames.append(pd.DataFrame(columns))
        first += table.n_obs
    frame = pd.concat(frames, ignore_index=True)
    frame.index = frame.index.astype(str)
    frame["slide"] = frame["slide"].astype("category")
    return frame


def name_slides(
    tables: Mapping[str, "AnnData"], slide_key: str | None = None
) -> dict[str, np.ndarray]:
    """Return the slide of each spot (n_obs,) in each table.

    A slide is a value of the column `slide_key`, or else the region that the table annotates. If
    there is no region, or its name is that of all slides, such as "slide", it is the label of the
    table. The label is added to names of regions that several tables have.
    """
    if slide_key is not None:
        return {
            label: require_column(table, slide_key, "slide_key").astype(str).to_numpy(dtype=object)
            for label, table in tables.items()
        }
    slides = {label: _region_names(table, label) for label, table in tables.items()}
    counts = Counter(name for names in slides.values() for name in set(names))
    for label, names in slides.items():
        renamed = {name: f"{name} ({label})" for name in set(names) if counts[name] > 1}
        slides[label] = np.array([renamed.get(name, name) for name in names], dtype=object)
    return slides


def slides_of(adata: "AnnData") -> list[str]:
    """Return the names of the slides of a table in the order of their spots, if they have names."""
    return [name for name in dict.fromkeys(_region_names(adata, "")) if name]


def _region_names(table: "AnnData", label: str) -> np.ndarray:
    """Return the region of each spot (n_obs,), or the label if there is none with a name."""
    attrs = table.uns.get("spatialdata_attrs")
    if not attrs or attrs["region_key"] not in table.obs:
        return np.full(table.n_obs, label, dtype=object)
    names = table.obs[attrs["region_key"]].astype(str).to_numpy(dtype=object)
    return np.where(np.isin(names.astype(str), keys.UNNAMED), label, names).astype(object)


def _file_name(item: Any) -> str | None:
    """Return the name of the file of a table without its ending, or None if it has no file."""
    path = item if isinstance(item, str | Path) else getattr(item, "path", None)
    path = path or getattr(item, "filename", None)
    if path and as_url(path) is not None:
        return Path(url_name(str(path))).stem
    return Path(path).stem if path else None
