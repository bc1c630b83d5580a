"""What is wrong with a call of `tile_slides`, and which slides are finished."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import preview
from stp.images.files.content import describe_folder
from stp.images.source_slide import file_record
from stp.io._embed_model import reads_images, stored_digest
from stp.io._slide_record import TileSettings, is_same
from stp.io._store_path import check_free
from stp.tables import keys

if TYPE_CHECKING:
    from stp.io._embed_model import Model


@dataclass(frozen=True)
class SlideJob:
    """A slide, and the store of its tiles.

    Parameters
    ----------
    name
        Name of the slide.
    path
        Its file.
    store
        The store of its tiles.
    tissue
        GeoJSON file with its tissue; None for what is stained.
    """

    name: str
    path: Path
    store: Path
    tissue: Path | None


@dataclass(frozen=True)
class TileOptions:
    """How the tiles of every slide are laid and embedded.

    Parameters
    ----------
    tile_um
        Side of a tile in µm.
    min_tissue
        Share of a tile that must be tissue.
    tissue_class
        Classes of the annotations in a GeoJSON file that are tissue.
    um_per_px
        µm per pixel of all slides at full resolution; None if it is resolved from each.
    batch_size
        Number of tiles per batch.
    device
        Torch device.
    precision
        "auto" (bf16 on a GPU, fp32 on a CPU), "bf16" or "fp32".
    progress
        Show a progress bar, or lines of the log if there is no terminal.
    """

    tile_um: float
    min_tissue: float
    tissue_class: str | Sequence[str] | None
    um_per_px: float | None
    batch_size: int
    device: str
    precision: str
    progress: bool


def list_jobs(paths: Sequence[Any], out: Path, tissue: Any) -> list[SlideJob]:
    """Return the slides with their names and stores, in the order of their paths."""
    jobs = []
    for item in paths:
        path = Path(item)
        name = name_of_slide(path)
        polygons = None if tissue is None else Path(tissue) / f"{name}.geojson"
        jobs.append(SlideJob(name, path, out / f"{name}.zarr", polygons))
    return jobs


def name_of_slide(path: Path) -> str:
    """Return the name of the file of a slide without its ending; that of OME-TIFF is double."""
    name = path.stem if path.suffix else path.name
    return name.removesuffix(".ome")


def list_slide_faults(jobs: list[SlideJob], out: Path, tissue: Any) -> list[str]:
    """List why slides cannot be tiled, without opening them."""
    faults = []
    if not jobs:
        faults.append("there are no slides to tile")
    missing = [job.path for job in jobs if not job.path.exists()]
    if missing:
        faults.append(f"there are no slides at {preview(missing, len(missing))}; check the paths")
    faults += [describe_folder(job.path) for job in jobs if job.path.is_dir()]
    faults += _list_tissue_faults(jobs, tissue)
    by_name = defaultdict(list)
    for job in jobs:
        by_name[job.name.lower()].append(str(job.path))
    for same_name in by_name.values():
        if len(same_name) > 1:
            faults.append(
                f"{' and '.join(same_name)} would have one store, because they have one name; "
                "rename the files, or tile them into different folders"
            )
    if out.exists() and not out.is_dir():
        faults.append(f"{out} is a file; pass the folder of the tile stores as out=")
        return faults
    for job in jobs:
        faults += _list_store_faults(job)
    return faults


def _list_tissue_faults(jobs: list[SlideJob], tissue: Any) -> list[str]:
    if tissue is not None and not Path(tissue).is_dir():
        return [f"{tissue} is no folder; pass that of <name of the slide>.geojson as tissue="]
    files = [job.tissue for job in jobs if job.tissue is not None and not job.tissue.is_file()]
    if not files:
        return []
    return [
        f"there are no polygons of tissue at {preview(files, len(files))}; add the files, or leave "
        "out tissue= to find tissue by its stain"
    ]


def _list_store_faults(job: SlideJob) -> list[str]:
    """List why the store of a slide cannot be written: it is another thing."""
    import zarr

    if not job.store.exists():
        return []
    try:
        check_free(job.store, overwrite=True)
    except FileExistsError as error:
        return [str(error)]
    if keys.SLIDE in zarr.open_group(job.store, mode="r", use_consolidated=False).attrs:
        return []
    return [f"{job.store} is a store, but no tile store, so it is not replaced; pass another out="]


def list_setting_faults(
    model: "Model | None", tile_um: float, min_tissue: float, um_per_px: float | None
) -> list[str]:
    """List what is wrong with the model and the settings of the tiles."""
    faults = []
    if model is not None and not reads_images(model):
        faults.append(f"{model.name} reads no images, and tiles have nothing else; pass another")
    for name, value in (("tile_um", tile_um), ("um_per_px", um_per_px)):
        if value is not None and not 0 < value < np.inf:
            faults.append(f"{name} must be positive, not {value}")
    if not 0 < min_tissue <= 1:
        faults.append(f"min_tissue is a share of a tile, above 0 and up to 1, not {min_tissue}")
    return faults


def count_finished(job: SlideJob, digest: str, options: TileOptions) -> int | None:
    """Return the number of tiles in a finished store; None if the slide is still to be tiled.

    It is finished if the file of the slide, the polygons of tissue, the model and the settings are
    those of the store. The precision counts only if the caller names one.
    """
    import anndata
    import zarr

    if not job.store.exists():
        return None
    group = zarr.open_group(job.store, mode="r", use_consolidated=False)
    if stored_digest(group, keys.TABLE, keys.IMAGES) != digest:
        return None
    settings = TileSettings(
        options.tile_um, options.min_tissue, job.tissue, options.tissue_class
    ).describe()
    record = group.attrs[keys.SLIDE]
    if not is_same(record, file_record(job.path), settings, options.um_per_px):
        return None
    table = group[f"tables/{keys.TABLE}"]
    precision = anndata.io.read_elem(table[f"uns/{keys.IMAGES}/params/precision"])
    if options.precision not in ("auto", precision):
        return None
    return int(table[f"obsm/{keys.IMAGES}"].shape[0])
