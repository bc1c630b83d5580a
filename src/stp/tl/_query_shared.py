"""What the queries share: the search through all references, and recall on measured slides."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stp import metrics
from stp.retrieval.nearest import Neighbors, nearest
from stp.tables.embeddings import read_embedding
from stp.tables.provenance import model_of
from stp.tables.references import blocks, name_slides

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


class Search(NamedTuple):
    """The nearest references of each query, and which references have a vector."""

    neighbors: Neighbors
    is_usable: np.ndarray  # (n_references,) bool


def search_all(
    queries: np.ndarray, vectors: Mapping[str, Any], n_neighbors: int, remedy: str
) -> Search:
    """Find the nearest references of each query, reading the references in blocks.

    Parameters
    ----------
    queries
        Vectors (n_queries, d), all finite.
    vectors
        Embeddings of the references, which may lie on disk, by their labels.
    n_neighbors
        Number of references per query.
    remedy
        What the user can do if fewer references have a vector.

    Raises
    ------
    ValueError
        Fewer references have a vector.
    """
    n_references = sum(array.shape[0] for array in vectors.values())
    is_usable = np.zeros(n_references, dtype=bool)

    def watch() -> Iterator[np.ndarray]:
        first = 0
        for block in blocks(vectors):
            is_usable[first : first + len(block)] = np.isfinite(block).all(axis=1) & block.any(1)
            first += len(block)
            yield block
        n_usable = int(is_usable.sum())
        if n_usable < n_neighbors:
            raise ValueError(
                f"{n_usable} of {n_references} reference spots have a vector, and {n_neighbors} "
                f"are searched for; {remedy}"
            )

    neighbors = nearest(queries, watch(), n_neighbors, n_references=n_references)
    return Search(neighbors, is_usable)


def read_rows(vectors: Mapping[str, Any], rows: np.ndarray) -> np.ndarray:
    """Return the vectors (n, d) of some references; `rows` are ascending, through all tables."""
    parts = []
    first = 0
    for block in blocks(vectors):
        start, stop = np.searchsorted(rows, (first, first + len(block)))
        parts.append(block[rows[start:stop] - first])
        first += len(block)
    return np.concatenate(parts)


def number_slides(tables: Mapping[str, "AnnData"], slide_key: str | None) -> np.ndarray:
    """Return the number of the slide of each reference spot (n_references,), from 0."""
    names = np.concatenate(list(name_slides(tables, slide_key).values()))
    return np.unique(names.astype(str), return_inverse=True)[1]


def require_vectors(values: np.ndarray, use_rep: str) -> np.ndarray:
    """Return which spots (n_obs,) have a vector, or raise ValueError if none has."""
    has_embedding = np.isfinite(values).all(axis=1)
    if not has_embedding.any():
        raise ValueError(f"no spot has an embedding in obsm[{use_rep!r}], all are NaN")
    return has_embedding


def recall_by_slide(
    adata: "AnnData", use_rep: str, reference_rep: str, slide_key: str | None
) -> "pd.DataFrame":
    """Return how often the image of a spot finds its own genes on its slide, a row per slide.

    There is no row unless the searched spots have gene vectors of the same model.
    """
    import pandas as pd

    rows: dict[str, dict[str, float]] = {}
    if reference_rep in adata.obsm and _have_one_model(adata, use_rep, reference_rep):
        images = read_embedding(adata, use_rep)
        genes = read_embedding(adata, reference_rep)
        has_both = np.isfinite(images).all(axis=1) & np.isfinite(genes).all(axis=1)
        key = slide_key if slide_key in adata.obs else None
        slides = name_slides({"slide": adata}, key)["slide"].astype(str)
        for slide in np.unique(slides[has_both]):
            own = has_both & (slides == slide)
            recall = metrics.recall_at_k(images[own], genes[own])
            row: dict[str, float] = {"n_spots": int(own.sum())}
            row |= {f"recall@{k}": value for k, value in recall.items()}
            row |= {f"chance@{k}": min(1, k / own.sum()) for k in recall}
            rows[str(slide)] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _have_one_model(adata: "AnnData", use_rep: str, reference_rep: str) -> bool:
    """Return whether one model made both embeddings."""
    models = [model_of(adata, rep) for rep in (use_rep, reference_rep)]
    digests = {model and model["digest"] for model in models}
    return len(digests) == 1
