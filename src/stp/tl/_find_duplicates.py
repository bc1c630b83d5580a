"""Find stores that share counts or images, before they are split into training and test."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stp._progress import track
from stp.data.collection import Collection
from stp.data.store import SpotStore
from stp.tl._duplicate_counts import Duplicate, compare_counts, count_candidates
from stp.tl._duplicate_images import compare_images, image_candidates
from stp.tl._store_signatures import sign_stores

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["first", "second", "kind", "share", "note"]


def find_duplicates(
    collection: Collection | Sequence[str | Path], *, table_key: str = "table"
) -> "pd.DataFrame":
    """Find pairs of stores that share counts or images, in any order, orientation and part.

    Public collections contain many slides twice: from two sources, with other genes or spots left
    out, or with an image that was rotated, mirrored, cropped or saved again. If one copy is in
    training and the other in the test, scores are too good.

    Parameters
    ----------
    collection
        The collection, of :func:`stp.io.read_collection`.
    table_key
        Name of the table in a SpatialData.

    Returns
    -------
    One row per pair and kind, in the order of the stores:

    `first`, `second` : str
        Names of the stores in a collection, else their paths.
    `kind` : str
        "equal counts": spots with the same counts, on the genes that both stores have.
        "nearly equal spots": spots whose expression correlates by more than 0.99, as after
        another alignment of the reads. "equal image": the same pixels. "rotated or cropped copy":
        the same details after the image was rotated by any angle, mirrored, cropped, rescaled or
        compressed again.
    `share` : float
        Share of the spots, or of the image, of the smaller store that is in the other one.
    `note` : str
        How many spots and genes are equal, or how the image was changed.

    Raises
    ------
    ValueError
        A path is no training store, or `collection` is a single path.

    Notes
    -----
    A list of paths of stores is accepted in place of a collection.

    Each store is read once, for a signature: hashes of the counts of its spots on a few groups of
    genes, its total counts, and 200 points of its image at 16 µm per pixel with features that do
    not depend on the angle. Only pairs whose signatures have something in common are compared on
    disk. Signatures take about 0.3 MB per store, and comparing those of 1,982 stores takes about
    four minutes of one core and 1.5 GB. Reading a slide takes 0.2 s and more, as its size demands.

    Serial sections of one patient are no copies and are not reported; keep patients on one side.
    Not found: copies of less than 1 % of the spots; spots with fewer than 12 detected genes; a
    small part of the genes (such as 2,000 variable ones) together with less than half of the spots;
    nearly equal spots of less than half of a slide; and images whose scales differ by more than
    15 %.

    Examples
    --------
    >>> slide = stp.datasets.synthetic_visium(n_rows=8, n_cols=8)
    >>> for name in ("one.zarr", "other.zarr"):
    ...     stp.io.write_store(slide, name, patch_um_per_px=2.0, overwrite=True)
    >>> pairs = stp.tl.find_duplicates(["one.zarr", "other.zarr"])
    >>> pairs[["kind", "share"]].values.tolist()
    [['equal counts', 1.0], ['equal image', 1.0]]
    """
    import pandas as pd

    if isinstance(collection, str | Path):
        raise ValueError(
            f"collection= is one path, {collection}; pass a list of paths, or the collection that "
            "stp.io.read_collection(path) returns"
        )
    names = _name_stores(collection)
    signatures = sign_stores([SpotStore(path, table_key) for path in collection])
    duplicates: list[tuple[int, int, Duplicate]] = []
    for first, second in track(count_candidates(signatures), "compare counts", "pair"):
        duplicate = compare_counts(signatures[first], signatures[second])
        if duplicate is not None:
            duplicates.append((first, second, duplicate))
    for first, second in track(image_candidates(signatures), "compare images", "pair"):
        duplicate = compare_images(signatures[first], signatures[second])
        if duplicate is not None:
            duplicates.append((first, second, duplicate))
    rows = [
        (names[first], names[second], duplicate.kind, duplicate.share, duplicate.note)
        for first, second, duplicate in sorted(duplicates)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _name_stores(collection: Collection | Sequence[str | Path]) -> list[str]:
    """Return the names of the stores in a collection, or their paths."""
    if isinstance(collection, Collection):
        return [str(name) for name in collection.table["name"]]
    return [str(path) for path in collection]
