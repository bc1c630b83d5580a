"""How ties, rounded means, pooling and channel order change the embeddings of the release."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from stp import metrics, tl
from stp.genes.special_tokens import N_SPECIAL
from stp.genes.vocabulary import Vocabulary
from stp.models.device import inference
from stp.models.published.release import load_release_files
from stp.models.stamp import Stamp
from stp.tables.keys import IMAGES, TOKENS, aligned
from stp.tables.table import get_table

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

N_NEIGHBORS = 15
BATCH_SIZE = 16
SEED = 0


class Embeddings(NamedTuple):
    """Embeddings of the same spots by genes or by images."""

    features: np.ndarray  # (n, width)
    aligned: np.ndarray  # (n, projection width), unit vectors


def print_comparison(
    checkpoint: Path,
    assets: Path,
    section: Path,
    *,
    n_spots: int,
    table_key: str = "table",
    allow_upsampling: bool = False,
) -> None:
    """Print how the embeddings of a section change if the release is changed.

    Parameters
    ----------
    checkpoint
        The authors' `pytorch_model.bin`.
    assets
        Folder with the authors' vocabulary, means and gene names.
    section
        SpatialData zarr folder, or an h5ad file without an image.
    n_spots
        Number of random spots.
    table_key
        Name of the table in a SpatialData.
    allow_upsampling
        Accept an image that is more than 1.25 times coarser than the patches.
    """
    data = read_section(section)
    stamp = load_release_files(checkpoint, assets)
    comparison = compare(
        stamp, data, n_spots=n_spots, table_key=table_key, allow_upsampling=allow_upsampling
    )
    n_used = min(n_spots, get_table(data, table_key).n_obs)
    print(f"{section.name}, {n_used} spots: one change at a time to the release")
    print(comparison.to_string(float_format="{:.3f}".format, na_rep=""))


def read_section(path: Path) -> "AnnData | SpatialData":
    """Read a section from an h5ad file or a SpatialData zarr folder.

    Raises
    ------
    ValueError
        The path is neither.
    """
    import anndata
    import spatialdata

    try:
        return anndata.read_h5ad(path) if path.suffix == ".h5ad" else spatialdata.read_zarr(path)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{path} is no h5ad file and no SpatialData zarr folder ({error})"
        ) from error


def compare(
    stamp: Stamp,
    data: "AnnData | SpatialData",
    *,
    n_spots: int,
    table_key: str = "table",
    allow_upsampling: bool = False,
) -> pd.DataFrame:
    """Compare embeddings of the release with those after one change at a time.

    Parameters
    ----------
    stamp
        The released model.
    data
        A section; channel orders are compared only if it has an image.
    n_spots
        Number of random spots.
    table_key
        Name of the table in a SpatialData.
    allow_upsampling
        Accept an image that is more than 1.25 times coarser than the patches.

    Returns
    -------
    A row for each change, with these columns:

    `other tokens`
        Share of token positions with another gene.
    `cosine`, `lowest`
        Mean and lowest cosine of a spot's features with those of the release.
    `neighbors kept`
        Share of the 15 nearest spots that stay the same.
    `recall@5`, `chance`
        Recall from image to genes and its chance, for each order of channels.
    """
    table = get_table(data, table_key)
    rows = np.random.default_rng(SEED).permutation(table.n_obs)[:n_spots]
    table = table[np.sort(rows)].copy()
    by_images: dict[str, Embeddings] = {}
    # Images come first: an image that is too coarse then raises before hours of gene embedding.
    if hasattr(data, "images") and data.images:
        data.tables[table_key] = table
        by_images = _embed_images_in_both_orders(stamp, data, table_key, allow_upsampling)
    by_genes, changes = _compare_genes(stamp, table)
    if by_images:
        released = by_images[stamp.image_encoder.config.channel_order]
        for order, embeddings in by_images.items():
            changes[f"channels {order}"] = {
                **_similarity(released, embeddings),
                "recall@5": metrics.recall_at_k(embeddings.aligned, by_genes.aligned)[5],
                "chance": 5 / table.n_obs,
            }
    return pd.DataFrame.from_dict(changes, orient="index")


def _compare_genes(
    stamp: Stamp, table: "AnnData"
) -> tuple[Embeddings, dict[str, dict[str, float]]]:
    """Return the released embeddings by genes, and a row for each change of the genes."""
    vocabulary = stamp.vocabulary
    other_rounding = dataclasses.replace(vocabulary, round_means=not vocabulary.round_means)
    tokens = _tokenize(table, vocabulary, stamp)
    released = _embed_genes(stamp, tokens)
    other_tokens = {
        "ties in another order": _tokenize_with_other_ties(table, stamp),
        "exact means": _tokenize(table, other_rounding, stamp),
    }
    changes = {}
    for change, changed_tokens in other_tokens.items():
        changes[change] = {
            "other tokens": float((changed_tokens != tokens).mean()),
            **_similarity(released, _embed_genes(stamp, changed_tokens)),
        }
    assert stamp.gene_encoder is not None  # the release has one
    with _changed_config(stamp.gene_encoder, pooling="mean"):
        changes["mean over real tokens"] = {
            "other tokens": 0.0,
            **_similarity(released, _embed_genes(stamp, tokens)),
        }
    return released, changes


def _embed_images_in_both_orders(
    stamp: Stamp, sdata: "SpatialData", table_key: str, allow_upsampling: bool
) -> dict[str, Embeddings]:
    """Embed the spots by images with both orders of channels."""
    by_order = {}
    for order in ("bgr", "rgb"):
        with _changed_config(stamp.image_encoder, channel_order=order):
            table = tl.embed_images(
                sdata,
                stamp,
                batch_size=BATCH_SIZE,
                table_key=table_key,
                allow_upsampling=allow_upsampling,
                copy=True,
            )
        assert table is not None  # because of copy=True
        by_order[order] = Embeddings(table.obsm[IMAGES], table.obsm[aligned(IMAGES)])
    return by_order


@contextmanager
def _changed_config(encoder: Any, **fields: str) -> Iterator[None]:
    """Change fields of an encoder's config for a while."""
    config = encoder.config
    encoder.config = dataclasses.replace(config, **fields)
    try:
        yield
    finally:
        encoder.config = config


def _tokenize(table: "AnnData", vocabulary: Vocabulary, stamp: Stamp) -> np.ndarray:
    """Return the tokens of the spots (n, context length), as many as the model reads."""
    assert stamp.config.gene is not None  # the release has a gene encoder
    context_length = stamp.config.gene.context_length
    tokenized = tl.tokenize(table, vocabulary, context_length=context_length, copy=True)
    assert tokenized is not None  # because of copy=True
    return tokenized.obsm[TOKENS].astype(np.int64)


def _tokenize_with_other_ties(table: "AnnData", stamp: Stamp) -> np.ndarray:
    """Return the tokens if genes of equal rank come in another, random order."""
    vocabulary = stamp.vocabulary
    order = np.random.default_rng(SEED).permutation(len(vocabulary))
    shuffled = dataclasses.replace(
        vocabulary,
        gene_ids=vocabulary.gene_ids[order],
        symbols=vocabulary.symbols[order],
        means=None if vocabulary.means is None else vocabulary.means[order],
        n_detected=None,
        corpus=(),
    )
    tokens = _tokenize(table, shuffled, stamp)
    return np.where(tokens > 0, order[tokens - N_SPECIAL] + N_SPECIAL, 0)


def _embed_genes(stamp: Stamp, tokens: np.ndarray) -> Embeddings:
    """Embed tokens (n, context length) in batches."""
    features = []
    vectors = []
    with inference(stamp, None, "auto") as device:
        for start in range(0, len(tokens), BATCH_SIZE):
            batch = torch.from_numpy(tokens[start : start + BATCH_SIZE]).to(device)
            batch_features, batch_vectors = stamp.encode_genes(batch)
            features.append(batch_features.float().cpu())
            vectors.append(batch_vectors.float().cpu())
    return Embeddings(torch.cat(features).numpy(), torch.cat(vectors).numpy())


def _similarity(before: Embeddings, after: Embeddings) -> dict[str, float]:
    """Compare features of the same spots: their cosines, and how many neighbors stay the same."""
    unit_before = before.features / np.linalg.norm(before.features, axis=1, keepdims=True)
    unit_after = after.features / np.linalg.norm(after.features, axis=1, keepdims=True)
    cosine = (unit_before * unit_after).sum(axis=1)
    n_neighbors = min(N_NEIGHBORS, len(cosine) - 1)
    n_same = [
        len(set(old) & set(new))
        for old, new in zip(
            _nearest(unit_before, n_neighbors), _nearest(unit_after, n_neighbors), strict=True
        )
    ]
    return {
        "cosine": cosine.mean(),
        "lowest": cosine.min(),
        "neighbors kept": np.mean(n_same) / n_neighbors,
    }


def _nearest(features: np.ndarray, n_neighbors: int) -> np.ndarray:
    """Return the rows (n, n_neighbors) of the spots most similar to each spot."""
    similarity = features @ features.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :n_neighbors]
