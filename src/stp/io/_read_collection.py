"""Read the table of a collection of training stores."""

from pathlib import Path

from stp.data.collection import Collection


def read_collection(path: str | Path) -> Collection:
    """Read the table that describes training stores, to train on all or some of them.

    The result can be passed wherever a list of stores can: to `stp.train`, to `Vocabulary.fit` and
    to :func:`stp.io.embed_stores`. `Collection.select` chooses rows by their values.

    Parameters
    ----------
    path
        A table with the ending .parquet or .csv, or the folder with collection.parquet or
        collection.csv.

    Returns
    -------
    The collection. Its `table` has one row per store:

    ============ ===========================================================================
    column       content
    ============ ===========================================================================
    `name`       Name of the store, unique.
    `path`       Path of the store, relative to the folder of the table; or a URL.
    `digest`     Digest of the whole content of the store, by `stp.io.write_store`.
    `n_spots`    Number of spots.
    `n_genes`    Number of genes.
    `patient`    Patient, as in the manifest.
    `organ`      Organ, as in the manifest.
    `platform`   Platform, as in the manifest.
    `problem`    Why the store cannot be trained on; "" if it can.
    `split`      "train", "validation" or "test", of :func:`stp.tl.assign_split`.
    ============ ===========================================================================

    Only the first three are required. A table may have any further columns.

    Raises
    ------
    FileNotFoundError
        There is no table.
    ValueError
        A required column or value is missing, a name or a path repeats, or stores do not exist. The
        error lists all faults.

    Notes
    -----
    In a CSV file, a text that begins with =, +, - or @ stands after a single quote, so that no
    spreadsheet runs it; the quote is removed. Columns of numbers become numbers, except for names
    and those whose name ends in "id".

    Examples
    --------
    >>> import pandas as pd
    >>> from stp.data.store import SpotStore
    >>> names = ["train_0", "train_1"]
    >>> paths = [f"demo/stores/{name}.zarr" for name in names]
    >>> digests = [SpotStore(path).digest for path in paths]
    >>> table = pd.DataFrame({"name": names, "path": paths, "digest": digests})
    >>> table.assign(organ=["breast", "lung"]).to_csv("collection.csv", index=False)
    >>> collection = stp.io.read_collection("collection.csv")
    >>> len(collection.select({"organ": "lung"}))
    1
    """
    return Collection.read(path)
