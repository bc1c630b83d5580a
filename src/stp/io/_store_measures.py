"""Measures of a training store for the table of its collection."""

from pathlib import Path

from stp.data.store import SpotStore

MEASURES = ("n_spots", "n_genes", "digest")  # names of the columns


def measure_store(path: str | Path) -> dict[str, object]:
    """Return the columns of a collection that are measured on a store.

    Parameters
    ----------
    path
        Path of a store that `stp.io.write_store` wrote.
    """
    store = SpotStore(path)
    return {"n_spots": len(store), "n_genes": len(store.gene_names), "digest": store.digest}
