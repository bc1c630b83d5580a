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
from stp.models.device import choose_precision, inference
from stp.models.image import ImageEncoder
from stp.models.stamp import Stamp
from stp.tables import keys
from stp.tables.table import record, table_to_annotate
from stp.tl._embed_shared import EmbeddingBuffer, model_record, progress_of

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


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
    max_bytes: int | None = None,
    device: str | None = None,
    precision: str = "auto",
    progress: bool = True,
    table_key: str = "table",
    key_added: str = keys.IMAGES,
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
        Patches at a time; halved, with a warning, where the device's memory does not hold so many.
    max_bytes
        Limit on pixels that are kept or decoded, patches not counted; by default 256 MiB, or what it takes
        to decode one chunk where that is more.
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
        `params`, with the precision used, and the image and the source of the scale of each region; `model`: its
        name, class, digest and the digest of its vocabulary; `version` of stp.

    Raises
    ------
    KeyError
        There is no image, or a named element is missing.
    TypeError
        An AnnData was given; :func:`stp.io.from_anndata` adds its image.
    ValueError
        Several readings are possible, the scale is unknown or contradicted, or the image is too coarse.

    Examples
    --------
    >>> stp.tl.embed_images(sdata, model)
    >>> sdata.tables["table"].obsm["X_stp_images"].shape[1]
    128
    """
    table = table_to_annotate(sdata, table_key, copy)
    slides = find_slides(
        sdata, table, SlideQuery(image_key, shapes_key, coordinate_system, um_per_px)
    )
    config = (model.image_encoder if isinstance(model, Stamp) else model).config
    window = PatchWindow(config.image_size, config.um_per_px)
    results, inside, made_by = (
        EmbeddingBuffer(table.n_obs),
        np.zeros(table.n_obs, dtype=bool),
        model_record(model),
    )
    batches = (
        (slide.rows[rows], patches)
        for slide in slides
        for rows, patches in slide.pyramid.stream(
            slide.centers,
            window,
            batch_size=batch_size,
            allow_upsampling=allow_upsampling,
            max_bytes=max_bytes,
        )
    )
    with inference(model, device, precision) as chosen, closing(_prefetch(batches, chosen)) as read:
        encode = _Encoder(model, chosen, batch_size)
        for rows, patches in progress_of(read, table.n_obs, "embed_images", progress):
            results.add(rows, encode(patches))
    for slide in slides:
        inside[slide.rows] = slide.pyramid.inside(
            slide.centers, size=window.size, um_per_px=window.um_per_px
        )
    results.write(table, key_added)
    table.obs[keys.inside(key_added)] = inside
    params = {
        "allow_upsampling": allow_upsampling,
        "precision": choose_precision(chosen, precision),
        "size": window.size,
        "um_per_px": window.um_per_px,
        "regions": {slide.region: _origin(slide) for slide in slides},
    }
    record(table, key_added, params, model=made_by)
    return table if copy else None


class _Encoder:
    """Encode patches in batches that the device can hold: halved when it runs out of memory."""

    def __init__(self, model: Stamp | ImageEncoder, device: torch.device, batch_size: int) -> None:
        self.model, self.device, self.batch_size = model, device, batch_size

    def __call__(self, patches: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Return features (n, width), and with a Stamp the aligned vectors."""
        outputs, start = [], 0
        while start < len(patches):
            part = patches[start : start + self.batch_size]
            try:
                outputs.append(self._encode(torch.from_numpy(part).to(self.device)))
                start += len(part)
            except torch.cuda.OutOfMemoryError:
                if len(part) == 1:
                    raise
                self._shrink(len(part) // 2)
        return tuple(torch.cat(one) for one in zip(*outputs, strict=True))

    def _shrink(self, batch_size: int) -> None:
        self.batch_size = batch_size
        logger.warning(
            f"the device has too little memory: going on with batches of {batch_size} patches"
        )
        torch.cuda.empty_cache()

    def _encode(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            self.model.encode_images(batch)
            if isinstance(self.model, Stamp)
            else (self.model(batch),)
        )


def _prefetch(batches: Iterator[Any], device: torch.device) -> Generator[Any, None, None]:
    """Pass batches on while the next one is read in a thread, unless the model computes on the CPU.

    There, a thread that reads takes a core from those that compute, and all of these wait for the one that lost it.
    """
    if device.type == "cpu":
        yield from batches
        return
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch


def _origin(slide: Slide) -> dict[str, Any]:
    """Tell where the patches of a region came from."""
    pyramid = slide.pyramid
    scale = {"um_per_px": pyramid.um_per_px, "scale_source": pyramid.scale_source}
    return {"image_key": slide.image_key, "coordinate_system": slide.coordinate_system, **scale}
