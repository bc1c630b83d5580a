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
        collection.csv. Both may be a URL.

    Returns
    -------
    The collection. Its `table` has one row per store. These columns are required:

    - `name`: name of the store, unique.
    - `path`: path of the store, relative to the folder of the table; or a URL.
    - `digest`: SHA-256 of the whole store, by which training recognizes it.

    `stp.io.write_collection` adds `patient`, `organ`, `species`, `platform`, `disease`, `source`,
    `license` and all further columns of its manifest, and measures the store:

    - `n_spots`, `n_genes`: number of spots, and of genes in the table.
    - `n_trainable`: number of spots in tissue that detect at least 100 genes.
    - `umis_per_spot`, `genes_per_spot`, `tokens_per_spot`: medians over the spots in tissue.
    - `share_of_umis_recognized`: share of UMIs in genes of the vocabulary.
    - `um_per_px`, `scale_source`: µm per pixel of the image that the store was made from, and
      where this scale was taken from.
    - `patch_um_per_px`: µm per pixel of the finer level of the store.
    - `image_height_px`, `image_width_px`: size of this level in pixels.
    - `share_on_image`, `share_on_tissue`: share of the spots in tissue that lie on the image, and
      that show stained tissue.
    - `sharpness`: median variance of the Laplacian of patches on tissue.
    - `counts_digest`, `image_digest`: SHA-256 of the counts, and of the pixels.
    - `n_bytes`: size of the store on disk.
    - `problem`: why the store cannot be trained on; "" if it can.

    :func:`stp.tl.assign_split` adds `split`: "train", "validation" or "test".

    Raises
    ------
    FileNotFoundError
        There is no table.
    ValueError
        A required column or value is missing, a name or a path repeats, or stores do not exist. The
        error lists all faults.
    ConnectionError
        The server of a URL cannot be reached.

    Notes
    -----
    In a CSV file, a text that a spreadsheet would run as a formula stands after a single quote. The
    quote is removed. Columns of numbers become numbers, except for names, patients and columns
    whose name ends in "id": there, 007 stays 007.

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
