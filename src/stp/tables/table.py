"""Find the table of any data, read its slots and write results into them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._version import __version__

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def get_table(data: Any, table_key: str = "table") -> "AnnData":
    """Return the table of an AnnData (itself), a SpatialData, or the path of a SpatialData zarr store (lazy X)."""
    if isinstance(data, str | Path):
        return _open_table(Path(data), table_key)
    if not hasattr(data, "tables"):
        if not (hasattr(data, "obs_names") and hasattr(data, "obsm")):
            raise TypeError(
                f"expected an AnnData, a SpatialData or the path of a store, got {type(data).__name__}"
            )
        return data
    if table_key not in data.tables:
        raise KeyError(
            f"no table {table_key!r} in the SpatialData; pass table_key= one of {sorted(data.tables)}"
        )
    return data.tables[table_key]


def get_tables(data: Any, table_key: str = "table") -> Iterator[tuple[str, "AnnData"]]:
    """Yield a label and the table of one or several data, one at a time; a label is a file's name, or the shape."""
    single = isinstance(data, str | Path) or hasattr(data, "obs_names") or hasattr(data, "tables")
    for item in [data] if single else data:
        adata = get_table(item, table_key)
        path = (
            item if isinstance(item, str | Path) else getattr(item, "path", None) or adata.filename
        )
        yield Path(path).name if path else f"{adata.n_obs} spots x {adata.n_vars} genes", adata


def _open_table(path: Path, table_key: str) -> "AnnData":
    """Open a table of a store: names, obs and uns are read, counts and obsm stay on disk."""
    import anndata
    import zarr

    try:
        group = zarr.open_group(path, mode="r")[f"tables/{table_key}"]
    except (FileNotFoundError, KeyError, zarr.errors.ContainsArrayError) as error:
        raise ValueError(
            f"{path} is not a SpatialData store with a table {table_key!r}; stp.io.write_store makes one"
        ) from error
    lazy = {
        slot: dict(group[slot].members()) if slot in group else {} for slot in ("layers", "obsm")
    }
    lazy = {
        slot: {key: _lazy(element) for key, element in found.items()}
        for slot, found in lazy.items()
    }
    read = {
        slot: anndata.io.read_elem(group[slot]) for slot in ("obs", "var", "uns") if slot in group
    }
    X = _lazy(group["X"]) if "X" in group else None
    return anndata.AnnData(X=X, **read, **lazy)


def _lazy(element: Any) -> Any:
    """Leave an array or a sparse matrix on disk; anything else is read."""
    import anndata
    import zarr

    if isinstance(element, zarr.Array):
        return element
    sparse = element.attrs.get("encoding-type") in ("csr_matrix", "csc_matrix")
    return anndata.io.sparse_dataset(element) if sparse else anndata.io.read_elem(element)


def as_list(names: Iterable[str]) -> list[str]:
    """List names, of which one may be given as it is."""
    return [names] if isinstance(names, str) else [str(name) for name in names]


def table_to_annotate(data: Any, table_key: str, copy: bool) -> "AnnData":
    """Return the table that a verb annotates: the user's own, or its copy."""
    adata = get_table(data, table_key)
    if adata.isbacked and copy:
        raise ValueError(
            "copy=True on a backed AnnData would read it all; call .to_memory() first and pass its result"
        )
    return adata.copy() if copy else adata


def require(adata: "AnnData", slot: str, key: str, made_by: str) -> Any:
    """Return `adata.<slot>[key]`, or raise a KeyError that names the call which makes it."""
    values = getattr(adata, slot)
    if key not in values:
        raise KeyError(f"adata.{slot}[{key!r}] is missing; run {made_by} first")
    return values[key]


def require_column(adata: "AnnData", key: str, argument: str) -> "pd.Series":
    """Return `adata.obs[key]`, or raise a KeyError that lists what the argument may name."""
    if key not in adata.obs:
        raise KeyError(f"adata.obs[{key!r}] is missing; pass {argument}= one of {list(adata.obs)}")
    return adata.obs[key]


def has_value(column: "pd.Series") -> np.ndarray:
    """Tell for each row (n,) of a column whether it has a value, neither missing nor ""."""
    return (column.notna() & (column.astype(str) != "")).to_numpy(dtype=bool)


def gene_names(adata: "AnnData", gene_ids_key: str | None = None) -> np.ndarray:
    """Return gene names: a column of `var`; by default `gene_ids` where it holds Ensembl ids, else `var_names`.

    Where the column has no value the gene keeps the name in `var_names`.
    """
    if gene_ids_key is not None:
        call = f"nothing else: pass gene_ids_key= one of {list(adata.var)} or it"
        column = require(adata, "var", gene_ids_key, call)
    else:
        column = adata.var.get("gene_ids")
        if column is None or column.astype(str).str.startswith("ENS").mean() <= 0.5:
            return adata.var_names.to_numpy().astype(object)
    return np.where(has_value(column), column.to_numpy(dtype=object), adata.var_names)


def record(adata: "AnnData", key: str, params: Mapping[str, Any], **entries: Any) -> None:
    """Write `uns[key]`: `params`, the `version` of stp and other entries, in types that h5ad and zarr keep."""
    entries = {"params": params, "version": __version__, **entries}
    adata.uns[key] = {name: _plain(value) for name, value in entries.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray) or hasattr(value, "iloc"):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
