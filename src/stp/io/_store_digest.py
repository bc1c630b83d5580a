"""The digest of a store, by which training runs recognize it wherever it lies."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stp.data.store_source import STORE
from stp.io._store_image import StoreLevels

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from spatialdata import SpatialData

SETTINGS = ("version", "species", "unit", "patch_um_per_px")  # of the attributes of a store
BLOCK_ROWS = 4096  # spots that are sorted by gene at a time


def store_digest(
    store: "SpatialData", levels: StoreLevels | None, shard_digests: Sequence[str]
) -> str:
    """Return the digest (SHA-256, hexadecimal) of all that training reads from a store.

    Names, paths, times and what was computed from the slide do not count.

    Parameters
    ----------
    store
        Store in memory, with its attributes.
    levels
        Scales of the image, or None for a store without an image.
    shard_digests
        Digests of the pixels of each shard of the image, by rows.
    """
    table = store.tables["table"]
    settings = {name: store.attrs[STORE][name] for name in SETTINGS}
    if levels is not None:
        settings["region_scale"] = levels.region_scale
    sha256 = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    sha256.update(store.attrs[STORE]["spots_digest"].encode())
    for block in _sorted_blocks(table.X):
        sha256.update(np.ascontiguousarray(block.indices, "<i8").data)
        sha256.update(np.ascontiguousarray(block.data, "<f4").data)
    if "in_tissue" in table.obs:
        sha256.update("\n".join(table.obs["in_tissue"].astype(str)).encode())
    for digest in shard_digests:
        sha256.update(digest.encode())
    return sha256.hexdigest()


def _sorted_blocks(counts: "csr_matrix") -> Iterator["csr_matrix"]:
    """Yield blocks of rows with genes in ascending order; the counts stay as they are."""
    for start in range(0, counts.shape[0], BLOCK_ROWS):
        yield counts[start : start + BLOCK_ROWS].sorted_indices()
