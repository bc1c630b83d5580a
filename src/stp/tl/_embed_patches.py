"""Write the embeddings of spots by their patches into a table, and go on after a stop."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
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
from stp.tables.table import record
from stp.tl._embed_shared import (
    Computing,
    EmbeddingBuffer,
    EmbeddingParts,
    PatchBatch,
    model_record,
    show_progress,
)
from stp.tl._spots_to_embed import SpotChoice, choose_spots, warn_if_patches_overlap

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@dataclass(frozen=True)
class PatchReading:
    """How patches are read.

    Parameters
    ----------
    allow_upsampling
        Accept an image that is more than 1.25 times coarser than the patches.
    max_bytes
        Memory limit for pixels that are read ahead, without the patches; by default 256 MiB, or as
        much as decoding one chunk takes.
    """

    allow_upsampling: bool = False
    max_bytes: int | None = None


def annotate_by_images(
    sdata: "SpatialData",
    table: "AnnData",
    model: Stamp | PatchEncoder,
    *,
    query: SlideQuery,
    choice: SpotChoice,
    reading: PatchReading,
    key_added: str,
    computing: Computing,
    parts: EmbeddingParts | None = None,
) -> None:
    """Write the embeddings of spots by the patches around them into a table; see `embed_images`.

    Parameters
    ----------
    sdata
        SpatialData with an H&E image and a table that annotates spots on it.
    table
        The table, which is changed.
    model
        A Stamp; or an ImageEncoder or a WrappedEncoder, which return features only.
    query
        Names and scale by which the slides of the table are chosen.
    choice
        Which spots are embedded.
    reading
        How patches are read.
    key_added
        Name under which the results are stored.
    computing
        How the embeddings are computed.
    parts
        What was embedded before, and where batches are saved; None saves nothing.
    """
    all_slides = find_slides(sdata, table, query)
    for slide in all_slides:
        warn_if_on_glass(table, slide)
    is_chosen = choose_spots(table, choice)
    slides = [_keep_spots(slide, is_chosen) for slide in all_slides]
    encoder = model.image_encoder if isinstance(model, Stamp) else model
    window = PatchWindow(encoder.config.image_size, encoder.config.um_per_px)
    for slide in slides:
        warn_if_patches_overlap(table, slide, window)
    with inference(model, computing.device, computing.precision) as torch_device:
        used_precision = choose_precision(torch_device, computing.precision)
        embeddings = EmbeddingBuffer(table.n_obs, model, used_precision, parts)
        n_restored = embeddings.restore()
        patch_batches = _read_patches(slides, window, reading, computing.batch_size, n_restored)
        encode = _PatchEncoder(model, torch_device, computing.batch_size)
        n_spots = int(np.count_nonzero(is_chosen))
        with closing(_prefetch(patch_batches, torch_device)) as batches:
            for rows, patches in show_progress(
                batches, n_spots, "embed images", computing.progress, n_restored
            ):
                embeddings.add(rows, encode(patches))
    inside = _find_inside(all_slides, window, table.n_obs)
    embeddings.write(table, key_added)
    table.obs[keys.inside(key_added)] = inside
    params = {
        "allow_upsampling": reading.allow_upsampling,
        "min_counts": choice.min_counts,
        "in_tissue_key": choice.in_tissue_key,
        "n_embedded": n_spots,
        "precision": used_precision,
        "size": window.size,
        "um_per_px": window.um_per_px,
        "regions": {slide.region: _origin(slide) for slide in slides},
    }
    record(table, key_added, params, model=model_record(model))


def _keep_spots(slide: Slide, is_chosen: np.ndarray) -> Slide:
    """Return a slide with those of its spots that are embedded."""
    is_chosen_here = is_chosen[slide.rows]
    return replace(slide, rows=slide.rows[is_chosen_here], centers=slide.centers[is_chosen_here])


def _read_patches(
    slides: list[Slide],
    window: PatchWindow,
    reading: PatchReading,
    batch_size: int,
    n_restored: int,
) -> Iterator[PatchBatch]:
    """Yield rows of the table (n,) and their patches (n, size, size, 3), slide by slide.

    The first `n_restored` spots were embedded before; the batches after them are the same as ever.
    """
    for slide in slides:
        first = min(n_restored, len(slide.rows))
        n_restored -= first
        if first == len(slide.rows):
            continue
        stream = slide.pyramid.stream(
            slide.centers,
            window,
            batch_size=batch_size,
            allow_upsampling=reading.allow_upsampling,
            max_bytes=reading.max_bytes,
            first=first,
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
