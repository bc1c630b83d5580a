"""Find the table in the user's data, read its slots and write results into them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from stp._text import readable
from stp._urls import as_url, url_name
from stp._version import __version__
from stp.remote.cache import local_copy
from stp.remote.store import RemoteStore

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


@runtime_checkable
class TrainingStores(Protocol):
    """A collection of stores that knows which of them training reads."""

    def training_stores(self, *, needs_image: bool = False) -> Iterable[str | Path]:
        """Return the paths of the stores to train on, after a check of the stores."""
        ...

    def record(self) -> dict[str, Any]:
        """Return what identifies the collection, as JSON values."""
        ...


def get_table(data: Any, table_key: str = "table") -> "AnnData":
    """Return the table of an AnnData (itself), a SpatialData, or the path or URL of a store.

    Counts and embeddings of a store stay on disk. A remote store is downloaded into the cache.
    """
    if isinstance(data, str | Path):
        url = as_url(data)
        path = Path(data) if url is None else local_copy(RemoteStore(url))
        return _open_table(path, table_key)
    if not hasattr(data, "tables"):
        if not (hasattr(data, "obs_names") and hasattr(data, "obsm")):
            raise TypeError(
                "expected an AnnData, a SpatialData or the path of a store, "
                f"got {type(data).__name__}"
            )
        return data
    if table_key not in data.tables:
        raise KeyError(
            f"no table {table_key!r} in the SpatialData; "
            f"pass table_key= one of {sorted(data.tables)}"
        )
    return data.tables[table_key]


def get_tables(data: Any, table_key: str = "table") -> Iterator[tuple[str, "AnnData"]]:
    """Yield the label and the table of one or several data, one at a time.

    The label is the name of the file, or else the shape of the table.
    """
    for item in as_iterable(data):
        adata = get_table(item, table_key)
        if isinstance(item, str | Path):
            path = item
        else:
            path = getattr(item, "path", None) or adata.filename
        url = as_url(path)
        if url is not None:
            yield url_name(url), adata
        elif path:
            yield Path(path).name, adata
        else:
            yield f"{adata.n_obs} spots x {adata.n_vars} genes", adata


def as_iterable(data: Any) -> Iterable[Any]:
    """Return several data unchanged, and one AnnData, SpatialData or path as a list of one."""
    is_single = (
        isinstance(data, str | Path) or hasattr(data, "obs_names") or hasattr(data, "tables")
    )
    return [data] if is_single else data


def as_training_data(data: Any, *, needs_image: bool = False) -> Iterable[Any]:
    """Return data as `as_iterable` does, and of a collection the stores that training reads."""
    if isinstance(data, TrainingStores):
        return data.training_stores(needs_image=needs_image)
    return as_iterable(data)


def _open_table(path: Path, table_key: str) -> "AnnData":
    """Open a table of a store: read names, obs and uns; leave counts and obsm on disk."""
    import anndata
    import zarr

    if not path.exists():
        raise ValueError(f"there is no store at {path}; check the path")
    try:
        group = zarr.open_group(path, mode="r")[f"tables/{table_key}"]
    except (FileNotFoundError, KeyError, zarr.errors.ContainsArrayError) as error:
        raise ValueError(
            f"{path} is not a SpatialData store with a table {table_key!r}; "
            "stp.io.write_store makes one"
        ) from error
    in_memory = {
        slot: anndata.io.read_elem(group[slot]) for slot in ("obs", "var", "uns") if slot in group
    }
    on_disk = {
        slot: {key: _open_element(element) for key, element in group[slot].members()}
        for slot in ("layers", "obsm")
        if slot in group
    }
    X = _open_element(group["X"]) if "X" in group else None
    return anndata.AnnData(X=X, **in_memory, **on_disk)


def _open_element(element: Any) -> Any:
    """Leave an array or a sparse matrix on disk, and read anything else."""
    import anndata
    import zarr

    if isinstance(element, zarr.Array):
        return element
    is_sparse = element.attrs.get("encoding-type") in ("csr_matrix", "csc_matrix")
    return anndata.io.sparse_dataset(element) if is_sparse else anndata.io.read_elem(element)


def as_list(names: Iterable[str]) -> list[str]:
    """Return names as a list; a single string is a list of one."""
    return [names] if isinstance(names, str) else [str(name) for name in names]


def table_to_annotate(data: Any, table_key: str, copy: bool) -> "AnnData":
    """Return the table that a verb annotates: the user's table, or a copy of it.

    Raises
    ------
    TypeError
        The data are a path: results in a table that nobody else has would be lost.
    """
    if isinstance(data, str | Path):
        raise TypeError(
            f"results are written to a table in memory, and {readable(data)} is a path; open it "
            "with spatialdata.read_zarr or anndata.read_h5ad, or use stp.io.embed_stores"
        )
    adata = get_table(data, table_key)
    if adata.isbacked and copy:
        raise ValueError(
            "copy=True on a backed AnnData would read all of it; "
            "call .to_memory() first and pass its result"
        )
    return adata.copy() if copy else adata


def require(adata: "AnnData", slot: str, key: str, call: str) -> Any:
    """Return `adata.<slot>[key]`, or raise a KeyError that names the call that makes it."""
    values = getattr(adata, slot)
    if key not in values:
        raise KeyError(f"adata.{slot}[{key!r}] is missing; run {call} first")
    return values[key]


def require_column(adata: "AnnData", key: str, argument: str) -> "pd.Series":
    """Return `adata.obs[key]`, or raise a KeyError that lists the columns for the argument."""
    if key not in adata.obs:
        raise KeyError(f"adata.obs[{key!r}] is missing; pass {argument}= one of {list(adata.obs)}")
    return adata.obs[key]


def has_value(column: "pd.Series") -> np.ndarray:
    """Return for each row (n,) whether a column has a value, neither missing nor ""."""
    return (column.notna() & (column.astype(str) != "")).to_numpy(dtype=bool)


def record(adata: "AnnData", key: str, params: Mapping[str, Any], **entries: Any) -> None:
    """Write `params`, the `version` of stp and other entries to `uns[key]`.

    Values become types that h5ad and zarr can store.
    """
    entries = {"params": params, "version": __version__, **entries}
    adata.uns[key] = {name: _storable(value) for name, value in entries.items()}


def _storable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _storable(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray) or hasattr(value, "iloc"):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_storable(inner) for inner in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
