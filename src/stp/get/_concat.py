"""Combine the tables of several slides in one."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import logger, preview
from stp.genes.gene_choice import GENE_COLUMNS, find_shared, open_lookups
from stp.tables import keys
from stp.tables.profiles import check_unique
from stp.tables.provenance import model_of, require_one_model
from stp.tables.references import name_slides, open_references, slides_of
from stp.tables.table import as_iterable

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

# Entries of a record in `uns` that say what the columns of an array are.
COLUMN_RECORDS = ("genes", "gene_ids", "units", "sets")


def concat(
    stores: "Iterable[AnnData | SpatialData | str | Path]",
    *,
    slide_key: str = "slide",
    table_key: str = "table",
) -> "AnnData":
    """Combine the tables of several slides in one AnnData, with the records of their models.

    `anndata.concat` loses the model of an embedding, and repeats names of spots.

    Parameters
    ----------
    stores
        The slides in their order: paths of stores, which are read whole, SpatialData, or tables.
    slide_key
        Column of `obs` with slides. It is added. A slide is a region that the table of a
        SpatialData annotates. A slide without a name has that of its file, or a number.
    table_key
        Name of the table in a SpatialData.

    Returns
    -------
    AnnData with the spots in the order of the slides. `obs_names` stay if all are unique, else the
    slide and an underscore are put before each of them. Genes are those that all slides measure,
    by symbols or Ensembl ids, with the names of the first. Columns of `obs`, layers and arrays of
    `obsm` are those that all slides have, and the log names the others. Entries of `uns` are kept
    if they are the same in all slides.

    Raises
    ------
    KeyError
        A SpatialData has no such table.
    ValueError
        There is no slide; embeddings of one name are of different models, or tokens of different
        vocabularies; slides share no gene; names of spots or genes repeat in a slide; a slide is
        passed twice; or `obs[slide_key]` exists and has other values.

    Examples
    --------
    >>> both = stp.get.concat(["demo/stores/train_0.zarr", "demo/stores/train_1.zarr"])
    >>> list(both.obs["slide"].cat.categories)
    ['train_0', 'train_1']
    """
    import anndata

    items = list(as_iterable(stores))
    _check_repeated_slides(items)
    tables = open_references(items, table_key, word="slide")
    _check_tables(tables)
    shared_keys = _shared_arrays(tables)
    _check_arrays(tables, shared_keys)
    slide_names = name_slides(tables)
    _check_column(tables, slide_names, slide_key)
    columns = _find_columns(tables)
    parts = [_select(tables, label, columns, shared_keys) for label in tables]
    _pad_tokens(parts, shared_keys)
    slide_column = np.concatenate(list(slide_names.values()))
    _name_spots(parts, slide_column)
    joined = anndata.concat(parts, merge="same", uns_merge="same")
    _annotate(joined, tables, slide_column, slide_key)
    _log_left_out(tables, joined)
    return joined


def _check_repeated_slides(items: Sequence[Any]) -> None:
    """Raise ValueError if an object or a path is passed twice."""
    seen: dict[object, int] = {}
    for number, item in enumerate(items):
        slide = Path(item).resolve() if isinstance(item, str | Path) else id(item)
        if slide in seen:
            raise ValueError(
                f"a slide is passed twice, as number {seen[slide]} and {number}; pass each once"
            )
        seen[slide] = number


def _check_tables(tables: Mapping[str, "AnnData"]) -> None:
    """Raise ValueError if tables cannot be combined: names repeat, or only some have counts."""
    for label, table in tables.items():
        check_unique(table, label)
        if not table.obs_names.is_unique:
            name = table.obs_names[table.obs_names.duplicated()][0]
            raise ValueError(
                f"several spots of {label} have the name {name!r}; call its "
                "obs_names_make_unique() first"
            )
    without = [label for label, table in tables.items() if table.X is None]
    if without and len(without) < len(tables):
        raise ValueError(
            f"{preview(without)} has no X and the other slides have; write the counts to X, or "
            "delete X of all slides"
        )


def _shared_arrays(tables: Mapping[str, "AnnData"]) -> list[str]:
    """Return the names in `obsm` that all tables have, and whose columns are the same in all.

    The neighbors of a prediction are left out: they are rows of a table in `uns` of each slide.
    """
    first = next(iter(tables.values()))
    predictions = {
        key for table in tables.values() for key in table.uns if "references" in _record(table, key)
    }
    neighbors = {keys.neighbors(key) for key in predictions}
    shared = []
    for key in first.obsm:
        is_everywhere = all(key in table.obsm for table in tables.values())
        owner = key.removesuffix(keys.uncertainty(""))
        records = [_column_record(table, owner) for table in tables.values()]
        if is_everywhere and key not in neighbors and all(r == records[0] for r in records):
            shared.append(key)
    return shared


def _check_arrays(tables: Mapping[str, "AnnData"], shared_keys: Iterable[str]) -> None:
    """Raise ValueError if arrays of one name have different models, vocabularies or widths."""
    for key in shared_keys:
        require_one_model(
            {f"{key} of {label}": model_of(table, key) for label, table in tables.items()}
        )
        vocabularies = {
            _record(table, key).get("params", {}).get("vocabulary") for table in tables.values()
        }
        if len(vocabularies) > 1:
            raise ValueError(
                f"obsm[{key!r}] of {', '.join(tables)} was made with different vocabularies; run "
                "stp.tl.tokenize(adata, model) on all slides with one model"
            )
        widths = {label: table.obsm[key].shape[1:] for label, table in tables.items()}
        if len(set(widths.values())) > 1 and not _are_tokens(tables, key):
            texts = ", ".join(f"{width} in {label}" for label, (width,) in widths.items())
            raise ValueError(
                f"obsm[{key!r}] has columns of different number: {texts}; compute it again for all "
                "slides, or delete it"
            )


def _are_tokens(tables: Mapping[str, "AnnData"], key: str) -> bool:
    """Return whether an array has tokens that were made with one context length in all tables."""
    lengths = {
        _record(table, key).get("params", {}).get("context_length") for table in tables.values()
    }
    return len(lengths) == 1 and None not in lengths


def _pad_tokens(parts: Sequence["AnnData"], shared_keys: Iterable[str]) -> None:
    """Pad tokens with 0 to the width of the widest table; other arrays have one width."""
    for key in shared_keys:
        width = max(part.obsm[key].shape[1] for part in parts)
        for part in parts:
            missing = width - part.obsm[key].shape[1]
            if missing:
                part.obsm[key] = np.pad(part.obsm[key], ((0, 0), (0, missing)))


def _record(table: "AnnData", key: str) -> Mapping[str, Any]:
    """Return the record of a verb in `uns`, or an empty one."""
    details = table.uns.get(key, {})
    return details if isinstance(details, Mapping) else {}


def _column_record(table: "AnnData", key: str) -> dict[str, Any]:
    """Return what the record in `uns` says of the columns of `obsm[key]`."""
    details = _record(table, key)
    return {name: np.asarray(details[name]).tolist() for name in COLUMN_RECORDS if name in details}


def _check_column(
    tables: Mapping[str, "AnnData"], slide_names: Mapping[str, np.ndarray], slide_key: str
) -> None:
    """Raise ValueError if tables already have a column of this name with other values."""
    for label, table in tables.items():
        if slide_key not in table.obs:
            continue
        values = table.obs[slide_key].astype(str).to_numpy(dtype=object)
        rows = np.flatnonzero(values != slide_names[label])
        if len(rows):
            raise ValueError(
                f"obs[{slide_key!r}] of {label} has {values[rows[0]]!r}, and the name of the slide "
                f"is {slide_names[label][rows[0]]!r}; pass slide_key= a new column"
            )


def _find_columns(tables: Mapping[str, "AnnData"]) -> dict[str, np.ndarray]:
    """Return the columns of the genes that all tables have, in the order of the first table."""
    if not any(table.n_vars for table in tables.values()):
        return {label: np.empty(0, np.int64) for label in tables}
    is_candidate = {label: np.ones(table.n_vars, dtype=bool) for label, table in tables.items()}
    return find_shared(open_lookups(tables), is_candidate)


def _select(
    tables: Mapping[str, "AnnData"],
    label: str,
    columns: Mapping[str, np.ndarray],
    shared_keys: Iterable[str],
) -> "AnnData":
    """Return a copy of a table with the shared genes, by the names of the first table."""
    first_label, first = next(iter(tables.items()))
    part = tables[label].to_memory()[:, columns[label]].copy()
    names = first.var.iloc[columns[first_label]]
    part.var_names = names.index
    for key in GENE_COLUMNS:
        if key in names:
            part.var[key] = names[key]
    for key in set(part.obsm) - set(shared_keys):
        del part.obsm[key]
    part.uns.pop("spatialdata_attrs", None)
    return part


def _name_spots(parts: Sequence["AnnData"], slides: np.ndarray) -> None:
    """Put the slide before the names of spots if names of several slides are equal."""
    import pandas as pd

    names = np.concatenate([part.obs_names.to_numpy(dtype=object) for part in parts])
    if len(set(names)) == len(names):
        return
    first = 0
    for part in parts:
        own_slides = slides[first : first + part.n_obs]
        pairs = zip(own_slides, part.obs_names, strict=True)
        part.obs_names = [f"{slide}_{name}" for slide, name in pairs]
        first += part.n_obs
    new_names = pd.Index([name for part in parts for name in part.obs_names])
    if not new_names.is_unique:
        raise ValueError(
            f"several spots would be named {new_names[new_names.duplicated()][0]!r}, the slide and "
            "the spot; rename the spots of one slide"
        )


def _annotate(
    joined: "AnnData", tables: Mapping[str, "AnnData"], slides: np.ndarray, slide_key: str
) -> None:
    """Write the slide of each spot and the regions of the slides."""
    import pandas as pd

    order = list(dict.fromkeys(slides))
    joined.obs[slide_key] = pd.Categorical(slides, order)
    joined.obs[keys.SPOT] = np.concatenate([_instances(table) for table in tables.values()])
    if keys.REGION in joined.obs and keys.REGION != slide_key:
        del joined.obs[keys.REGION]
    joined.uns["spatialdata_attrs"] = {
        "region": order,
        "region_key": slide_key,
        "instance_key": keys.SPOT,
    }


def _instances(table: "AnnData") -> np.ndarray:
    """Return the id of each spot (n_obs,) in its region, or its row if there are no regions."""
    attrs = table.uns.get("spatialdata_attrs")
    if not attrs or attrs["instance_key"] not in table.obs:
        return np.arange(table.n_obs)
    return table.obs[attrs["instance_key"]].to_numpy()


def _log_left_out(tables: Mapping[str, "AnnData"], joined: "AnnData") -> None:
    """Log the genes, columns and arrays that are not those of all slides."""
    texts = []
    for label, table in tables.items():
        n_genes = table.n_vars - joined.n_vars
        if n_genes:
            slides = preview(slides_of(table)) or label
            texts.append(f"{n_genes:,} of {table.n_vars:,} genes of {slides}")
    for slot in ("obs", "obsm", "layers"):
        names = dict.fromkeys(name for table in tables.values() for name in getattr(table, slot))
        lost = [name for name in names if name not in getattr(joined, slot)]
        texts += [f"{slot}[{name!r}]" for name in lost if name != keys.REGION]
    if texts:
        logger.info(f"The slides do not share these, which are left out: {', '.join(texts)}")
