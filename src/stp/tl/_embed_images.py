"""Embed spots by the H&E patches around them."""

from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stp._log import logger
from stp.images.pyramid import PatchWindow
from stp.images.slides import Slide, SlideQuery, find_slides
from stp.images.spots_on_tissue import warn_if_on_glass
from stp.models.device import choose_precision, inference
from stp.models.patch_encoder import PatchEncoder
from stp.models.stamp import Stamp
from stp.tables import keys
from stp.tables.table import record, table_to_annotate
from stp.tl._embed_shared import EmbeddingBuffer, PatchBatch, model_record, show_progress

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def embed_images(
    sdata: "SpatialData",
    model: Stamp | PatchEncoder,
    *,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | None = None,
    coordinate_system: str | None = None,
    um_per_px: float | None = None,
    allow_upsampling: bool = False,
    batch_size: int = 64,
    max_bytes: int | None = None,
    device: str | None = None,
    precision: str = "auto",
    progress: bool = True,
    table_key: str = "table",
    key_added: str = keys.IMAGES,
    copy: bool = False,
) -> "AnnData | None":
    """Embed spots by the H&E patch around them (paper, section 3.3).

    If the device runs out of memory, the batches are halved and a warning is logged. With
    `copy=True` only the table is copied, not the image.

    Parameters
    ----------
    sdata
        SpatialData with an H&E image and a table that annotates spots on it.
    model
        A Stamp; or an ImageEncoder or a WrappedEncoder, which return features only.
    image_key
        Name of the image, or a mapping from region to image; by default it is resolved from the
        table.
    shapes_key
        Name of the shapes or labels of the spots; by default the region that the table annotates.
    coordinate_system
        Coordinate system that spots and image share; by default it is resolved from the data.
    um_per_px
        µm per pixel of the image at full resolution; by default it is resolved from the data, and
        sources that differ by more than 5 % are an error.
    allow_upsampling
        Accept an image that is more than 1.25 times coarser than the patches.
    batch_size
        Number of spots per batch.
    max_bytes
        Memory limit for pixels that are read ahead, without the patches; by default 256 MiB, or as
        much as decoding one chunk takes.
    device
        Torch device; by default that of `stp.settings`, or a GPU if there is one.
    precision
        "auto" (bf16 on a GPU, fp32 on a CPU), "bf16" or "fp32".
    progress
        Show a progress bar, or lines of the log if there is no terminal.
    table_key
        Name of the table in a SpatialData.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `table.obsm['X_stp_images' | key_added]` : (n, width) float32
        Features before projection, for probes, clustering and regression.
    `table.obsm['X_stp_images_aligned' | key_added + '_aligned']` : (n, projection width) float32
        Unit vectors after projection, for retrieval. Only with a Stamp.
    `table.obs['X_stp_images_inside' | key_added + '_inside']` : bool
        Whether the patch lies completely inside the image. Outside the image a patch is white.
    `table.uns['X_stp_images' | key_added]` : dict
        `params`, with the precision used, and the image and the source of the scale of each region;
        its `other_scales` are the sources that `um_per_px` overruled. `model`: its name, class,
        digest and the digest of its vocabulary; `version` of stp.

    Raises
    ------
    KeyError
        There is no image, or a named element is missing.
    TypeError
        The data are an AnnData; :func:`stp.io.from_anndata` adds its image. Or the model is
        neither a Stamp nor an image encoder.
    ValueError
        Several images fit, most spots lie outside the image, the scale is unknown or its sources
        contradict each other, the image is too coarse, or features are NaN or infinite.

    Examples
    --------
    >>> stp.tl.embed_images(sdata, model)
    >>> sdata.tables["table"].obsm["X_stp_images"].shape[1]
    128
    """
    if not isinstance(model, Stamp | PatchEncoder):
        raise TypeError(
            f"expected a Stamp or an image encoder, got {type(model).__name__}; wrap another torch "
            "module in stp.models.WrappedEncoder"
        )
    table = table_to_annotate(sdata, table_key, copy)
    query = SlideQuery(image_key, shapes_key, coordinate_system, um_per_px)
    slides = find_slides(sdata, table, query)
    for slide in slides:
        warn_if_on_glass(table, slide)
    encoder = model.image_encoder if isinstance(model, Stamp) else model
    window = PatchWindow(encoder.config.image_size, encoder.config.um_per_px)
    patch_batches = _read_patches(
        slides,
        window,
        batch_size=batch_size,
        allow_upsampling=allow_upsampling,
        max_bytes=max_bytes,
    )
    with inference(model, device, precision) as torch_device:
        used_precision = choose_precision(torch_device, precision)
        embeddings = EmbeddingBuffer(table.n_obs, model, used_precision)
        encode = _PatchEncoder(model, torch_device, batch_size)
        with closing(_prefetch(patch_batches, torch_device)) as batches:
            for rows, patches in show_progress(batches, table.n_obs, "embed images", progress):
                embeddings.add(rows, encode(patches))
    inside = _find_inside(slides, window, table.n_obs)
    embeddings.write(table, key_added)
    table.obs[keys.inside(key_added)] = inside
    params = {
        "allow_upsampling": allow_upsampling,
        "precision": used_precision,
        "size": window.size,
        "um_per_px": window.um_per_px,
        "regions": {slide.region: _origin(slide) for slide in slides},
    }
    record(table, key_added, params, model=model_record(model))
    return table if copy else None


def _read_patches(
    slides: list[Slide],
    window: PatchWindow,
    *,
    batch_size: int,
    allow_upsampling: bool,
    max_bytes: int | None,
) -> Iterator[PatchBatch]:
    """Yield rows of the table (n,) and their patches (n, size, size, 3), slide by slide."""
    for slide in slides:
        stream = slide.pyramid.stream(
            slide.centers,
            window,
            batch_size=batch_size,
            allow_upsampling=allow_upsampling,
            max_bytes=max_bytes,
        )
        for rows, patches in stream:
            yield slide.rows[rows], patches


def _prefetch(
    batches: Iterator[PatchBatch], device: torch.device
) -> Generator[PatchBatch, None, None]:
    """Yield batches while a thread reads the next one, unless the model computes on the CPU.

    On a CPU, a reading thread takes a core from the computing threads. All of them then wait for
    the one that lost its core.
    """
    if device.type == "cpu":
        yield from batches
        return
    with ThreadPoolExecutor(1) as reader:
        next_batch = reader.submit(next, batches, None)
        while (batch := next_batch.result()) is not None:
            next_batch = reader.submit(next, batches, None)
            yield batch


class _PatchEncoder:
    """Encode patches in batches, which are halved when the device runs out of memory."""

    def __init__(self, model: Stamp | PatchEncoder, device: torch.device, batch_size: int) -> None:
        self.model = model
        self.device = device
        self.batch_size = batch_size

    def __call__(self, patches: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Return features (n, width), and with a Stamp the aligned vectors too."""
        outputs = []
        start = 0
        while start < len(patches):
            batch = patches[start : start + self.batch_size]
            try:
                outputs.append(self._encode(torch.from_numpy(batch).to(self.device)))
                start += len(batch)
            except torch.cuda.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                self._shrink(len(batch) // 2)
        return tuple(torch.cat(tensors) for tensors in zip(*outputs, strict=True))

    def _encode(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if isinstance(self.model, Stamp):
            return self.model.encode_images(batch)
        return (self.model(batch),)

    def _shrink(self, batch_size: int) -> None:
        self.batch_size = batch_size
        logger.warning(
            f"The device has too little memory: going on with batches of {batch_size} patches. "
            f"Pass batch_size={batch_size} to start with them."
        )
        torch.cuda.empty_cache()


def _find_inside(slides: list[Slide], window: PatchWindow, n_obs: int) -> np.ndarray:
    """Return for each row (n_obs,) whether its patch lies completely inside the image."""
    inside = np.zeros(n_obs, dtype=bool)
    for slide in slides:
        inside[slide.rows] = slide.pyramid.inside(
            slide.centers, size=window.size, um_per_px=window.um_per_px
        )
    return inside


def _origin(slide: Slide) -> dict[str, Any]:
    """Return which image the patches of a region come from, and its scale."""
    return {
        "image_key": slide.image_key,
        "coordinate_system": slide.coordinate_system,
        "um_per_px": slide.pyramid.um_per_px,
        "scale_source": slide.pyramid.scale_source,
        "other_scales": dict(slide.other_scales),
    }
