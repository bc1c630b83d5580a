"""Embed the table of one store by genes or by images, part by part."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stp.images.slides import SlideQuery
from stp.io._embed_parts import PartFolder
from stp.tables import keys
from stp.tables.table import get_table


@dataclass(frozen=True)
class EmbedOptions:
    """How the spots of every store are embedded.

    Parameters
    ----------
    batch_size
        Number of spots per batch.
    device
        Torch device.
    precision
        "auto" (bf16 on a GPU, fp32 on a CPU), "bf16" or "fp32".
    table_key
        Name of the table in a SpatialData.
    progress
        Show a progress bar, or lines of the log if there is no terminal.
    output_dir
        Folder of the copies of remote stores; None to upload results.
    """

    batch_size: int
    device: str
    precision: str
    table_key: str
    progress: bool
    output_dir: Path | None


def describe_settings(key: str, digest: str, options: EmbedOptions) -> dict[str, Any]:
    """Return what decides the values of an embedding, apart from the store."""
    import torch

    from stp.models.device import choose_precision

    device = torch.device(options.device)
    return {
        "embedding": key,
        "model": digest,
        "table_key": options.table_key,
        "batch_size": options.batch_size,
        "device": device.type,
        "precision": choose_precision(device, options.precision),
        "torch": torch.__version__,
    }


def embed_table(
    sdata: Any, model: Any, key: str, options: EmbedOptions, parts: PartFolder | None
) -> None:
    """Annotate the table of a SpatialData with one embedding, part by part."""
    from stp import tl
    from stp.tl._embed_genes import annotate_by_genes
    from stp.tl._embed_patches import PatchReading, annotate_by_images
    from stp.tl._embed_shared import Computing
    from stp.tl._spots_to_embed import SpotChoice

    table = get_table(sdata, options.table_key)
    computing = Computing(options.batch_size, options.device, options.precision, options.progress)
    if key == keys.GENES:
        tl.tokenize(sdata, model, table_key=options.table_key)
        annotate_by_genes(
            table,
            model,
            tokens_key=keys.TOKENS,
            key_added=key,
            computing=computing,
            parts=parts,
        )
    else:
        annotate_by_images(
            sdata,
            table,
            model,
            query=SlideQuery(),
            choice=SpotChoice(),
            reading=PatchReading(),
            key_added=key,
            computing=computing,
            parts=parts,
        )
