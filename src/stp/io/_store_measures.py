"""Measures of a training store for the table of its collection."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stp.data.store import SpotStore
from stp.data.store_source import STORE
from stp.genes.species import is_compatible
from stp.genes.vocabulary import Vocabulary
from stp.images.measures import pixels_digest, sharpness
from stp.images.placement import share_on_image
from stp.images.spots_on_tissue import share_on_tissue
from stp.metrics._row_hashes import hash_names, hash_rows
from stp.tables.counts import BLOCK_ROWS

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SOURCE = "stp_source"  # attribute: what a store was made from
CONTEXT_LENGTH = 1500  # default of `stp.models.GeneEncoderConfig`
MIN_GENES = 100  # default of training: spots with fewer genes are left out
PATCH_PIXELS = 224  # side of the patches whose sharpness is measured
N_PATCHES = 64  # that are read for sharpness
N_PLACES = 256  # spots that are looked at to see whether they lie on tissue

# Columns of a collection that are measured on its stores, in their order.
MEASURES = {
    "n_spots": "number of spots",
    "n_genes": "number of genes in the table",
    "n_trainable": "number of spots in tissue that detect at least 100 genes",
    "umis_per_spot": "median number of UMIs of the spots in tissue",
    "genes_per_spot": "median number of genes that a spot in tissue detects",
    "share_of_umis_recognized": "share of UMIs in genes of the vocabulary",
    "tokens_per_spot": "median number of tokens of the spots in tissue, at most 1,500",
    "species": "species of the genes",
    "um_per_px": "µm per pixel of the image that the store was made from",
    "scale_source": "where this scale was taken from",
    "patch_um_per_px": "µm per pixel of the store's finer level, from which patches are cut",
    "image_height_px": "height of the finer level in pixels",
    "image_width_px": "width of the finer level in pixels",
    "share_on_image": "share of the spots in tissue whose center lies on the image",
    "share_on_tissue": "share of the spots in tissue that show stained tissue; up to 256 are read",
    "sharpness": "median variance of the Laplacian of up to 64 patches on tissue",
    "counts_digest": "SHA-256 of the counts in any order of genes and spots",
    "image_digest": "SHA-256 of the pixels of the coarser level",
    "digest": "SHA-256 of the whole store, by which training recognizes it",
    "n_bytes": "size of the store on disk in bytes",
}


def measure_store(
    path: str | Path, *, vocabulary: Vocabulary | None = None, block_rows: int = BLOCK_ROWS
) -> dict[str, object]:
    """Return the columns of a collection that are measured on a store.

    Parameters
    ----------
    path
        Path of a store that `stp.io.write_store` wrote.
    vocabulary
        Genes of the species, by which columns are named; by default the human vocabulary.
    block_rows
        Number of spots that are in memory at a time.

    Returns
    -------
    A value for each name of `MEASURES`. It is None if it is unknown: without an image, without
    any spot in tissue, or if the genes are of another species than the vocabulary.

    Raises
    ------
    ValueError
        The path is no training store, or its counts are damaged.
    """
    store = SpotStore(path)
    in_tissue = store.trainable(0)
    counts = _measure_counts(store, in_tissue, _vocabulary_of(store, vocabulary), block_rows)
    source = store.attributes.get(SOURCE, {})
    record = store.attributes[STORE]
    image = _measure_image(store, in_tissue)
    measures = {
        "n_spots": len(store),
        "n_genes": counts.n_genes,
        "n_trainable": len(store.trainable(MIN_GENES)),
        "umis_per_spot": _median(counts.umis[in_tissue]),
        "genes_per_spot": _median(counts.genes[in_tissue]),
        "share_of_umis_recognized": counts.share_recognized,
        "tokens_per_spot": None if counts.tokens is None else _median(counts.tokens[in_tissue]),
        "species": store.species,
        "um_per_px": source.get("um_per_px"),
        "scale_source": source.get("scale_source", record.get("scale_source")),
        "patch_um_per_px": record.get("patch_um_per_px"),
        "image_height_px": image.height,
        "image_width_px": image.width,
        "share_on_image": image.share_on_image,
        "share_on_tissue": image.share_on_tissue,
        "sharpness": image.sharpness,
        "counts_digest": counts.digest,
        "image_digest": image.digest,
        "digest": store.digest,
        "n_bytes": _count_bytes(Path(path)),
    }
    return {name: measures[name] for name in MEASURES}


@dataclass(frozen=True)
class CountMeasures:
    """Measures of the counts of a store."""

    n_genes: int
    umis: np.ndarray  # (n,) UMIs of each spot
    genes: np.ndarray  # (n,) genes that each spot detects
    tokens: np.ndarray | None  # (n,) tokens of each spot
    share_recognized: float | None
    digest: str


@dataclass(frozen=True)
class ImageMeasures:
    """Measures of the image of a store; None without an image."""

    height: int | None = None
    width: int | None = None
    share_on_image: float | None = None
    share_on_tissue: float | None = None
    sharpness: float | None = None
    digest: str | None = None


def _vocabulary_of(store: SpotStore, vocabulary: Vocabulary | None) -> Vocabulary | None:
    """Return the vocabulary, by default that of human genes, or None for another species."""
    vocabulary = vocabulary or Vocabulary.default()
    return vocabulary if is_compatible(store.species, vocabulary.species) else None


def _measure_counts(
    store: SpotStore, in_tissue: np.ndarray, vocabulary: Vocabulary | None, block_rows: int
) -> CountMeasures:
    names = store.gene_names
    is_known = None if vocabulary is None else vocabulary.recognize(names).index >= 0
    gene_hashes = hash_names(names)
    umis = np.zeros(len(store))
    known_umis = np.zeros(len(store))
    genes = np.zeros(len(store), int)
    known_genes = np.zeros(len(store), int)
    hashes = np.zeros(len(store), np.uint64)
    for start, block in store.counts(block_rows):
        rows = slice(start, start + block.shape[0])
        hashes[rows] = hash_rows(block, gene_hashes)
        umis[rows] = _sum_rows(block, block.data)
        genes[rows] = np.diff(block.indptr)
        if is_known is not None:
            is_token = is_known[block.indices]
            known_umis[rows] = _sum_rows(block, block.data * is_token)
            known_genes[rows] = _sum_rows(block, is_token)
    total = umis[in_tissue].sum()
    has_share = vocabulary is not None and total > 0
    return CountMeasures(
        n_genes=len(names),
        umis=umis,
        genes=genes,
        tokens=None if vocabulary is None else np.minimum(known_genes, CONTEXT_LENGTH),
        share_recognized=float(known_umis[in_tissue].sum() / total) if has_share else None,
        digest=hashlib.sha256(np.sort(hashes).astype("<u8").tobytes()).hexdigest(),
    )


def _sum_rows(block: "csr_matrix", values: np.ndarray) -> np.ndarray:
    """Return the sums over each row of values that belong to the entries of a block."""
    sums = np.concatenate([[0], np.cumsum(values, dtype=np.float64)])
    return sums[block.indptr[1:]] - sums[block.indptr[:-1]]


def _measure_image(store: SpotStore, in_tissue: np.ndarray) -> ImageMeasures:
    image = store.pyramid
    if image is None:
        return ImageMeasures()
    height, width = image.levels[0].shape
    digest = pixels_digest(image.levels[-1])
    if store.coordinates is None or not len(in_tissue):
        return ImageMeasures(height, width, digest=digest)
    centers = store.coordinates[in_tissue]
    return ImageMeasures(
        height=height,
        width=width,
        share_on_image=share_on_image(image.to_pixels(centers), (height, width)),
        share_on_tissue=share_on_tissue(image, _take_evenly(centers, N_PLACES)),
        sharpness=sharpness(
            image,
            _take_evenly(centers, N_PATCHES),
            size=PATCH_PIXELS,
            um_per_px=image.um_per_px,
        ),
        digest=digest,
    )


def _take_evenly(rows: np.ndarray, n: int) -> np.ndarray:
    """Return at most `n` rows at equal distances."""
    return rows[:: -(-len(rows) // n)]


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None


def _count_bytes(path: Path) -> int | None:
    """Return the bytes of a folder, or None if it is not on this computer."""
    if not path.is_dir():
        return None
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
