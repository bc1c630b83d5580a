"""Embed spots by their genes, by their images, and by both."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from stp import _keys
from stp._table import begin, record, require
from stp.data.slides import Slide, find_slides
from stp.models.device import inference
from stp.models.gene import GeneEncoder
from stp.models.image import ImageEncoder
from stp.models.stamp import Stamp

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

READ_AHEAD = 512  # patches read at once, in the order of the image


def embed_genes(
    adata: "AnnData | SpatialData",
    model: Stamp | GeneEncoder,
    *,
    tokens_key: str = _keys.TOKENS,
    batch_size: int = 64,
    device: str | None = None,
    precision: str = "auto",
    progress: bool = True,
    table_key: str = "table",
    key_added: str = _keys.GENES,
    copy: bool = False,
) -> "AnnData | None":
    """Embed spots by their genes (paper, section 3.2).

    Parameters
    ----------
    adata
        Table with tokens of the model's vocabulary.
    model
        A Stamp, or a GeneEncoder: then features only.
    tokens_key
        Tokens in `obsm`, made by :func:`stp.tl.tokenize`.
    batch_size
        Spots at a time.
    device
        A torch device; by default a GPU if there is one.
    precision
        "auto" (bf16 on a GPU, fp32 on a CPU), "bf16" or "fp32".
    progress
        Show a progress bar on a terminal.
    table_key
        Table of a SpatialData.
    key_added
        Name of the results.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.obsm['X_stp_genes' | key_added]` : (n_obs, width) float32
        Features before projection: for probes, clustering, regression. NaN for spots without tokens.
    `adata.obsm['X_stp_genes_aligned' | key_added + '_aligned']` : (n_obs, projection width) float32
        Unit vectors after projection: for retrieval. Only with a Stamp.
    `adata.uns['X_stp_genes' | key_added]` : dict
        `params`.

    Raises
    ------
    KeyError
        There are no tokens.
    ValueError
        The tokens were made with another vocabulary.
    """
    adata = begin(adata, table_key, copy)
    tokens = np.asarray(require(adata, "obsm", tokens_key, "stp.tl.tokenize(adata, model)"))
    _check_vocabulary(adata, tokens_key, model)
    lengths = (tokens > 0).sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    results = _Results(adata.n_obs)
    with inference(model, device, precision) as chosen:
        for rows in _progress(_cut(order, batch_size), len(order), "embed_genes", progress):
            batch = torch.from_numpy(tokens[rows].astype(np.int64)).to(chosen)
            results.add(rows, model.encode_genes(batch) if isinstance(model, Stamp) else (model(batch),))
    results.write(adata, key_added)
    record(adata, key_added, {"tokens_key": tokens_key, "precision": precision, **_name(model)})
    return adata if copy else None


def embed_images(
    sdata: "SpatialData",
    model: Stamp | ImageEncoder,
    *,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | None = None,
    coordinate_system: str | None = None,
    um_per_px: float | None = None,
    allow_upsampling: bool = False,
    batch_size: int = 64,
    device: str | None = None,
    precision: str = "auto",
    progress: bool = True,
    table_key: str = "table",
    key_added: str = _keys.IMAGES,
    copy: bool = False,
) -> "AnnData | None":
    """Embed spots by the H&E patch around them (paper, section 3.3).

    Parameters
    ----------
    sdata
        SpatialData whose table annotates spots on an image.
    model
        A Stamp, or an ImageEncoder: then features only.
    image_key, shapes_key, coordinate_system
        Image (or a mapping from region to image), spots, and the coordinate system that they share. Left out,
        they are resolved from the table; several readings are an error that lists them.
    um_per_px
        um per pixel of the image's finest level. Left out, it is resolved from the coordinate system `um`, the
        scale factors or the spot lattice; sources that differ by more than 5 % are an error.
    allow_upsampling
        Accept an image coarser than 1.25 times the model's um per pixel.
    batch_size
        Patches at a time.
    device
        A torch device; by default a GPU if there is one.
    precision
        "auto" (bf16 on a GPU, fp32 on a CPU), "bf16" or "fp32".
    progress
        Show a progress bar on a terminal.
    table_key
        Table of the SpatialData.
    key_added
        Name of the results.
    copy
        Return an annotated copy of the table instead of annotating it; pixels are never copied.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `table.obsm['X_stp_images' | key_added]` : (n_obs, width) float32
        Features before projection: for probes, clustering, regression.
    `table.obsm['X_stp_images_aligned' | key_added + '_aligned']` : (n_obs, projection width) float32
        Unit vectors after projection: for retrieval. Only with a Stamp.
    `table.obs['X_stp_images_inside' | key_added + '_inside']` : bool
        Whether the patch lies wholly inside the image; outside it is white.
    `table.uns['X_stp_images' | key_added]` : dict
        `params`, with the image and the source of the scale of each region.

    Raises
    ------
    KeyError
        There is no image, or a named element is missing.
    TypeError
        An AnnData was given; :func:`stp.io.from_anndata` adds its image.
    ValueError
        Several readings are possible, the scale is unknown or contradicted, or the image is too coarse.
    """
    table = begin(sdata, table_key, copy)
    where = {"image_key": image_key, "shapes_key": shapes_key, "coordinate_system": coordinate_system}
    slides = find_slides(sdata, table, um_per_px=um_per_px, **where)
    config = (model.image_encoder if isinstance(model, Stamp) else model).config
    window = {"size": config.image_size, "um_per_px": config.um_per_px}
    results, inside = _Results(table.n_obs), np.zeros(table.n_obs, dtype=bool)
    with inference(model, device, precision) as chosen:
        batches = (one for slide in slides for one in _patches(slide, batch_size, allow_upsampling, window))
        for rows, patches in _progress(batches, table.n_obs, "embed_images", progress):
            batch = torch.from_numpy(patches).to(chosen)
            results.add(rows, model.encode_images(batch) if isinstance(model, Stamp) else (model(batch),))
    for slide in slides:
        inside[slide.rows] = slide.pyramid.inside(slide.centers, **window)
    results.write(table, key_added)
    table.obs[_keys.inside(key_added)] = inside
    params = {"allow_upsampling": allow_upsampling, "precision": precision, **window, **_name(model)}
    record(table, key_added, {**params, "regions": {slide.region: _origin(slide) for slide in slides}})
    return table if copy else None


def fuse(
    adata: "AnnData | SpatialData",
    *,
    use_reps: Sequence[str] = (_keys.GENES, _keys.IMAGES),
    scale: bool = False,
    table_key: str = "table",
    key_added: str = _keys.FUSED,
    copy: bool = False,
) -> "AnnData | None":
    """Concatenate embeddings of genes and images (paper, STAMP_F).

    Parameters
    ----------
    adata
        Table with the embeddings.
    use_reps
        Their names in `obsm`.
    scale
        Divide each embedding by its mean norm first, so that none outweighs the others.
    table_key
        Table of a SpatialData.
    key_added
        Name of the result.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.obsm['X_stp_fused' | key_added]` : (n_obs, sum of widths) float32
        The embeddings side by side.
    `adata.uns['X_stp_fused' | key_added]` : dict
        `params`.

    Raises
    ------
    KeyError
        An embedding is missing.
    """
    adata = begin(adata, table_key, copy)
    made_by = {_keys.GENES: "stp.tl.embed_genes(adata, model)", _keys.IMAGES: "stp.tl.embed_images(sdata, model)"}
    blocks = [np.asarray(require(adata, "obsm", rep, made_by.get(rep, "what makes it"))) for rep in use_reps]
    if scale:
        blocks = [block / np.nanmean(np.linalg.norm(block, axis=1)) for block in blocks]
    adata.obsm[key_added] = np.concatenate(blocks, axis=1).astype(np.float32)
    record(adata, key_added, {"use_reps": list(use_reps), "scale": scale})
    return adata if copy else None


class _Results:
    """Features and aligned vectors by row, NaN where nothing was embedded."""

    def __init__(self, n_obs: int) -> None:
        self.n_obs, self.arrays = n_obs, []

    def add(self, rows: np.ndarray, outputs: tuple[torch.Tensor, ...]) -> None:
        if not self.arrays:
            self.arrays = [np.full((self.n_obs, out.shape[1]), np.nan, dtype=np.float32) for out in outputs]
        for array, out in zip(self.arrays, outputs, strict=True):
            array[rows] = out.float().cpu().numpy()

    def write(self, adata: "AnnData", key: str) -> None:
        if not self.arrays:
            raise ValueError("there is no spot to embed: the table is empty, or no spot has tokens")
        for name, array in zip((key, _keys.aligned(key)), self.arrays, strict=False):
            adata.obsm[name] = array


def _check_vocabulary(adata: "AnnData", tokens_key: str, model: Stamp | GeneEncoder) -> None:
    made_with = adata.uns.get(tokens_key, {}).get("params", {}).get("vocabulary")
    if made_with != model.vocabulary.digest:
        raise ValueError(
            f"the tokens in obsm[{tokens_key!r}] were made with another vocabulary than the model's; "
            "run stp.tl.tokenize(adata, model) again"
        )


def _cut(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _patches(
    slide: Slide, batch_size: int, allow_upsampling: bool, window: dict[str, Any]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows and patches in batches, read from the image in the order of its rows."""
    for part in _cut(np.argsort(slide.centers[:, 1], kind="stable"), max(READ_AHEAD, batch_size)):
        patches = slide.pyramid.read(slide.centers[part], allow_upsampling=allow_upsampling, **window)
        for batch in _cut(np.arange(len(part)), batch_size):
            yield slide.rows[part[batch]], patches[batch]


def _progress(batches: Iterator[Any], total: int, name: str, shown: bool) -> Iterator[Any]:
    """Pass batches on, with a bar on a terminal."""
    with tqdm(total=total, desc=name, unit="spot", disable=None if shown else True) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch[0] if isinstance(batch, tuple) else batch))


def _name(model: torch.nn.Module) -> dict[str, str]:
    return {"model": type(model).__name__}


def _origin(slide: Slide) -> dict[str, Any]:
    """Tell where the patches of a region came from."""
    pyramid = slide.pyramid
    scale = {"um_per_px": pyramid.um_per_px, "scale_source": pyramid.scale_source}
    return {"image_key": slide.image_key, "coordinate_system": slide.coordinate_system, **scale}
