"""Read slides and features of tiles, write stores, and add results to stores on disk."""

from stp.data.collection import Collection
from stp.io._embed_stores import embed_stores
from stp.io._features import read_features
from stp.io._features_katherlab import write_features
from stp.io._from_anndata import from_anndata
from stp.io._gene_sets import download_gene_sets, read_gene_sets
from stp.io._read_cohort import read_cohort
from stp.io._read_collection import read_collection
from stp.io._read_hest import read_hest
from stp.io._read_visium import read_visium
from stp.io._read_visium_hd import read_visium_hd
from stp.io._read_wsi import read_wsi
from stp.io._read_xenium import read_xenium
from stp.io._results import write_results
from stp.io._store import write_store
from stp.io._tile_slides import tile_slides
from stp.io._tiles import write_tiles
from stp.io._upload_store import upload_store
from stp.io._write_collection import write_collection
from stp.io._write_geojson import write_geojson

__all__ = [
    "Collection",
    "download_gene_sets",
    "embed_stores",
    "from_anndata",
    "read_cohort",
    "read_collection",
    "read_features",
    "read_gene_sets",
    "read_hest",
    "read_visium",
    "read_visium_hd",
    "read_wsi",
    "read_xenium",
    "tile_slides",
    "upload_store",
    "write_collection",
    "write_features",
    "write_geojson",
    "write_results",
    "write_store",
    "write_tiles",
]
