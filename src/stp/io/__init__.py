"""Read slides, write training stores, and add results to stores on disk."""

from stp.io._embed_stores import embed_stores
from stp.io._from_anndata import from_anndata
from stp.io._read_hest import read_hest
from stp.io._read_visium import read_visium
from stp.io._read_visium_hd import read_visium_hd
from stp.io._read_wsi import read_wsi
from stp.io._read_xenium import read_xenium
from stp.io._results import write_results
from stp.io._store import write_store
from stp.io._write_collection import write_collection

__all__ = [
    "embed_stores",
    "from_anndata",
    "read_hest",
    "read_visium",
    "read_visium_hd",
    "read_wsi",
    "read_xenium",
    "write_collection",
    "write_results",
    "write_store",
]
