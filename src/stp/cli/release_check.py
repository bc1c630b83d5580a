"""How tie order, rounding of means, pooling and channel order move the embeddings of the authors' release."""

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
from stp.models.published.release import load_reference
from stp.models.stamp import Stamp
from stp.tables.keys import IMAGES, aligned
from stp.tables.table import get_table

if TYPE_CHECKING:
    from anndata import AnnData

NEIGHBORS, BATCH, SEED = 15, 16, 0


class Side(NamedTuple):
    """Embeddings of some spots by genes or by images."""

    features: np.ndarray  # (n, width)
    aligned: np.ndarray  # (n, projection width), unit vectors


def run(
    checkpoint: Path,
    assets: Path,
    section: Path,
    *,
    n_spots: int,
    table_key: str = "table",
    allow_upsampling: bool = False,
) -> int:
    """Print the comparison for a section: a SpatialData zarr folder or, without images, an h5ad file."""
    data, stamp = read_section(section), load_reference(checkpoint, assets)
    table = compare(
        stamp, data, n_spots=n_spots, table_key=table_key, allow_upsampling=allow_upsampling
    )
    print(
        f"{section.name}, {min(n_spots, get_table(data, table_key).n_obs)} spots: one change at a time to the release"
    )
    print(table.to_string(float_format="{:.3f}".format, na_rep=""))
    return 0


def read_section(path: Path) -> Any:
    """Read a section; ValueError where it is none."""
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
    data: Any,
    *,
    n_spots: int,
    table_key: str = "table",
    allow_upsampling: bool = False,
) -> pd.DataFrame:
    """Embed spots drawn from a section as released, and with one thing changed at a time.

    Returns
    -------
    A row per change: `other tokens`, the share of places that hold another gene; `cosine` and `lowest`, of the features
    with those of the release, mean and worst spot; `neighbors kept`, of the 15 nearest spots; and for each order of
    channels `recall@5` from image to genes, with `chance`.
    """
    whole = get_table(data, table_key)
    part = whole[np.sort(np.random.default_rng(SEED).permutation(whole.n_obs)[:n_spots])].copy()
    images = {}  # first, since an image that does not do is refused before hours of genes
    if getattr(data, "images", None):
        data.tables[table_key] = part
        images = _by_images(stamp, data, table_key=table_key, allow_upsampling=allow_upsampling)
    tokens = _tokens(part, stamp.vocabulary, stamp)
    released = _by_genes(stamp, tokens)
    exact = dataclasses.replace(stamp.vocabulary, round_means=not stamp.vocabulary.round_means)
    rows = {}
    for change, other in {
        "ties in another order": _other_ties(part, stamp),
        "exact means": _tokens(part, exact, stamp),
    }.items():
        rows[change] = {
            "other tokens": (other != tokens).mean(),
            **_moved(released, _by_genes(stamp, other)),
        }
    with _changed(stamp.gene_encoder, pooling="mean"):
        rows["mean over real tokens"] = {
            "other tokens": 0.0,
            **_moved(released, _by_genes(stamp, tokens)),
        }
    for order, side in images.items():
        moved = _moved(images[stamp.image_encoder.config.channel_order], side)
        recall = metrics.recall_at_k(side.aligned, released.aligned)[5]
        rows[f"channels {order}"] = {**moved, "recall@5": recall, "chance": 5 / part.n_obs}
    return pd.DataFrame.from_dict(rows, orient="index")


def _by_images(stamp: Stamp, data: Any, **where: Any) -> dict[str, Side]:
    """Embed by images, with channels in either order."""
    sides = {}
    for order in ("bgr", "rgb"):
        with _changed(stamp.image_encoder, channel_order=order):
            found: Any = tl.embed_images(data, stamp, batch_size=BATCH, copy=True, **where)
        sides[order] = Side(found.obsm[IMAGES], found.obsm[aligned(IMAGES)])
    return sides


@contextmanager
def _changed(encoder: Any, **fields: str) -> Iterator[None]:
    """Let an encoder compute with another config for a while."""
    before = encoder.config
    encoder.config = dataclasses.replace(before, **fields)
    try:
        yield
    finally:
        encoder.config = before


def _tokens(part: "AnnData", vocabulary: Vocabulary, stamp: Stamp) -> np.ndarray:
    assert stamp.config.gene is not None  # the release has a gene encoder
    length = stamp.config.gene.context_length
    found: Any = tl.tokenize(part, vocabulary, context_length=length, copy=True)
    return found.obsm["stp_tokens"].astype(np.int64)


def _other_ties(part: "AnnData", stamp: Stamp) -> np.ndarray:
    """Rank with ties broken by another order of the genes, drawn at random."""
    genes = stamp.vocabulary
    order = np.random.default_rng(SEED).permutation(len(genes))
    means = None if genes.means is None else genes.means[order]
    kept = dataclasses.replace(genes, n_detected=None, corpus=())
    shuffled = dataclasses.replace(
        kept, gene_ids=genes.gene_ids[order], symbols=genes.symbols[order], means=means
    )
    tokens = _tokens(part, shuffled, stamp)
    return np.where(tokens > 0, order[tokens - N_SPECIAL] + N_SPECIAL, 0)


def _by_genes(stamp: Stamp, tokens: np.ndarray) -> Side:
    with inference(stamp, None, "auto") as device:
        parts = [
            [
                out.float().cpu()
                for out in stamp.encode_genes(
                    torch.from_numpy(tokens[start : start + BATCH]).to(device)
                )
            ]
            for start in range(0, len(tokens), BATCH)
        ]
    return Side(*(torch.cat(one).numpy() for one in zip(*parts, strict=True)))


def _moved(before: Side, after: Side) -> dict[str, float]:
    one, two = (
        side.features / np.linalg.norm(side.features, axis=1, keepdims=True)
        for side in (before, after)
    )
    cosine = (one * two).sum(axis=1)
    kept = [len(set(a) & set(b)) for a, b in zip(_nearest(one), _nearest(two), strict=True)]
    n_neighbors = min(NEIGHBORS, len(one) - 1)
    return {
        "cosine": cosine.mean(),
        "lowest": cosine.min(),
        "neighbors kept": np.mean(kept) / n_neighbors,
    }


def _nearest(features: np.ndarray) -> np.ndarray:
    similarity = features @ features.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBORS][:, : len(features) - 1]
