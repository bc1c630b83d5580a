"""Embed spots by the H&E patches around them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stp.images.slides import SlideQuery
from stp.models.patch_encoder import PatchEncoder
from stp.models.stamp import Stamp
from stp.tables import keys
from stp.tables.table import table_to_annotate
from stp.tl._embed_patches import PatchReading, annotate_by_images
from stp.tl._embed_shared import Computing
from stp.tl._spots_to_embed import SpotChoice

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
    min_counts: int = 0,
    in_tissue_key: str | None = None,
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
    min_counts
        Number of counts in genes that a spot must have to be embedded; others get NaN.
    in_tissue_key
        Column of `obs` with 0 or 1, such as "in_tissue"; spots with 0 get NaN. By default all spots
        are embedded.
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
        Features before projection, for probes, clustering and regression. NaN for spots that are
        left out.
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
        There is no image, or a named element or column is missing.
    TypeError
        The data are an AnnData; :func:`stp.io.from_anndata` adds its image. Or the model is
        neither a Stamp nor an image encoder.
    ValueError
        Several images fit, most spots lie outside the image, the scale is unknown or its sources
        contradict each other, the image is too coarse, no spot is left, or features are NaN or
        infinite.

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
    annotate_by_images(
        sdata,
        table,
        model,
        query=query,
        choice=SpotChoice(min_counts, in_tissue_key),
        reading=PatchReading(allow_upsampling, max_bytes),
        key_added=key_added,
        computing=Computing(batch_size, device, precision, progress),
    )
    return table if copy else None
