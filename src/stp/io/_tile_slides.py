"""Tile and embed many slides, each into a store, and keep a manifest of what was written."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stp._lock import lock
from stp._log import count, logger, warn
from stp._progress import time_left
from stp._text import readable
from stp.io._embed_manifest import Manifest
from stp.io._read_wsi import read_wsi
from stp.io._store_folder import has_traces, remove_traces
from stp.io._store_path import local_path
from stp.io._tiles import write_tile_store
from stp.tables import keys
from stp.tables.table import as_iterable
from stp.tables.valid_names import unique_names

if TYPE_CHECKING:
    import pandas as pd

    from stp.io._embed_model import Model
    from stp.io._tile_slides_checks import SlideJob, TileOptions
    from stp.train.engine.processes import Processes

MANIFEST = "tiles.jsonl"
COLUMNS = ("name", "path", "store", "n_tiles", "status", "error")


def tile_slides(
    paths: "str | Path | Iterable[str | Path]",
    out: str | Path,
    *,
    model: "Model | str | Path",
    tile_um: float,
    tissue: str | Path | None = None,
    tissue_class: str | Sequence[str] | None = None,
    um_per_px: float | None = None,
    min_tissue: float = 0.5,
    batch_size: int = 64,
    device: str | None = None,
    precision: str = "auto",
    manifest: str | Path | None = None,
    progress: bool = True,
) -> "pd.DataFrame":
    """Lay tiles on the tissue of many slides, embed them, and write a tile store of each.

    First the model, the settings and the paths are checked. If anything is wrong, one error lists
    all of it, and nothing is written. After that, a slide that fails does not stop the others. A
    slide whose store is finished is skipped: its file, the polygons of its tissue, the model and
    the settings are the same. Otherwise its store is replaced. A killed call leaves only whole
    stores, and the next one goes on. Under torchrun, the processes divide the slides.

    Parameters
    ----------
    paths
        Files of slides, which :func:`stp.io.read_wsi` reads.
    out
        Folder of the tile stores, each of which has the name of its slide: `<name>.zarr`.
    model
        A Stamp or ImageEncoder, its folder, or the name of a pathology encoder; or a
        WrappedEncoder, which has no folder.
    tile_um
        Side of a tile in µm.
    tissue
        Folder with a GeoJSON file of the tissue of each slide, `<name>.geojson`, in pixels of level
        0. By default tissue is what is stained.
    tissue_class
        Class or classes of the annotations in a GeoJSON file that are tissue; needed if they have
        several classes.
    um_per_px
        µm per pixel of all slides at full resolution; by default it is resolved from each file.
    min_tissue
        Share of a tile that must be tissue, above 0 and up to 1.
    batch_size
        Number of tiles per batch.
    device
        Torch device; by default that of `stp.settings`, or a GPU if there is one.
    precision
        "auto" (bf16 on a GPU, fp32 on a CPU), "bf16" or "fp32".
    manifest
        JSON lines file. Each slide adds a line: what was written, or why it failed. By default it
        is `tiles.jsonl` in `out`.
    progress
        Show a progress bar, or lines of the log if there is no terminal.

    Returns
    -------
    DataFrame with a row per slide, in the order of `paths`: `name`, `path`, `store`, `n_tiles`,
    `status` ("written", "skipped" or "failed") and `error`, which is empty if it did not fail.

    Raises
    ------
    ValueError
        The model, an option, the manifest or a path cannot be used: slides or polygons are missing,
        two slides have one name, or something else is where a store would be.
    OSError
        Lines of the manifest could not be written. The stores are written nevertheless.

    Examples
    --------
    >>> encoder = model.image_encoder
    >>> table = stp.io.tile_slides("slide.tif", "tiles", model=encoder, tile_um=112, um_per_px=1.0)
    >>> list(table["status"])
    ['written']
    """
    from stp.io._embed_checks import (
        list_manifest_faults,
        list_option_faults,
        raise_faults,
    )
    from stp.io._embed_model import open_model
    from stp.io._tile_slides_checks import (
        TileOptions,
        list_jobs,
        list_setting_faults,
        list_slide_faults,
    )
    from stp.train.engine.processes import distributed

    folder = local_path(out).absolute()
    manifest = folder / MANIFEST if manifest is None else local_path(manifest)
    jobs = list_jobs([local_path(path) for path in as_iterable(paths)], folder, tissue)
    with distributed(device) as processes:
        options = TileOptions(
            tile_um,
            min_tissue,
            tissue_class,
            um_per_px,
            batch_size,
            str(processes.device),
            precision,
            progress and processes.is_main,
        )
        faults = []
        opened = None
        try:
            opened = open_model(model)
        except (OSError, TypeError, ValueError) as error:
            faults.append(str(error))
        if processes.is_main:
            faults += list_setting_faults(opened, tile_um, min_tissue, um_per_px)
            faults += list_option_faults(processes.device, precision, batch_size)
            faults += list_slide_faults(jobs, folder, tissue)
            faults = faults or list_manifest_faults(manifest)  # which makes its folder
        raise_faults(faults, processes, "nothing was tiled")
        rows, n_lost = _tile_on_all(jobs, opened, manifest, options, processes)
    return _report(rows, n_lost, manifest, is_main=processes.is_main)


def _tile_on_all(
    jobs: "list[SlideJob]",
    model: Any,
    manifest: Path,
    options: "TileOptions",
    processes: "Processes",
) -> tuple[list[dict[str, Any]], int]:
    """Tile the slides of this process; return the rows of all, and how many lines were lost."""
    lines = Manifest(manifest, model, processes.rank)
    own_jobs = list(enumerate(jobs))[processes.rank :: processes.size]
    own_rows = []
    n_tiled = 0
    seconds = 0.0
    for number, (position, job) in enumerate(own_jobs):
        left = time_left(len(own_jobs) - number, n_tiled, seconds)
        line = f"Slide {number + 1} of {len(own_jobs)}: {job.path.name}"
        logger.info(f"{line} ({left})" if left else line)
        row = _try_to_tile(job, model, lines.digest, options)
        lines.add(row)
        own_rows.append((position, row))
        if row["status"] == "skipped":
            logger.info(f"{job.store} is finished and skipped")
        else:
            n_tiled += 1
            seconds += row["seconds"]
    rows = [row for _, row in sorted(processes.collect(own_rows), key=lambda pair: pair[0])]
    return rows, int(processes.sum({"lost": lines.n_lost})["lost"])


def _try_to_tile(
    job: "SlideJob", model: "Model", digest: str, options: "TileOptions"
) -> dict[str, Any]:
    """Tile one slide, and return its line of the manifest."""
    start = time.time()
    line: dict[str, Any] = {
        "name": readable(job.name),
        "path": readable(job.path),
        "store": readable(job.store),
        "n_tiles": 0,
        "status": "written",
        "error": "",
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    try:
        line["status"], line["n_tiles"] = _tile(job, model, digest, options)
    except Exception as error:
        logger.exception(f"{job.path} was not tiled")
        line["status"] = "failed"
        line["error"] = f"{type(error).__name__}: {error}"
    line["seconds"] = round(time.time() - start, 1)
    return line


def _tile(job: "SlideJob", model: "Model", digest: str, options: "TileOptions") -> tuple[str, int]:
    """Write the tile store of a slide, unless it is finished; return what was done."""
    from stp.io._tile_slides_checks import count_finished

    n_finished = count_finished(job, digest, options)
    if n_finished is not None and not has_traces(job.store):
        return "skipped", n_finished  # such a store may be read-only
    with lock(job.store, "writing to", wait=True):
        remove_traces(job.store)
        n_finished = count_finished(job, digest, options)  # another process may have been faster
        if n_finished is not None:
            return "skipped", n_finished
        return "written", _write(job, model, options)


def _write(job: "SlideJob", model: Any, options: "TileOptions") -> int:
    """Write the tile store of a slide, and return the number of its tiles."""
    from stp import tl

    (name,) = unique_names([job.name], reserved=[keys.TABLE])
    sdata = read_wsi(
        job.path,
        um_per_px=options.um_per_px,
        tile_um=options.tile_um,
        tissue=job.tissue,
        tissue_class=options.tissue_class,
        min_tissue=options.min_tissue,
        name=name,
    )
    tl.embed_images(
        sdata,
        model,
        batch_size=options.batch_size,
        device=options.device,
        precision=options.precision,
        progress=options.progress,
    )
    write_tile_store(sdata, job.store)
    return sdata.tables[keys.TABLE].n_obs


def _report(
    rows: list[dict[str, Any]], n_lost: int, manifest: Path, *, is_main: bool
) -> "pd.DataFrame":
    """Return the table of the slides, and warn of those that failed."""
    import pandas as pd

    n_failed = sum(row["status"] == "failed" for row in rows)
    if n_lost:
        raise OSError(
            f"{n_lost} lines of the manifest {manifest} could not be written; they are in the log. "
            f"{n_failed} of {count(len(rows), 'slide')} failed, the others are written"
        )
    if n_failed and is_main:
        warn(
            f"{n_failed} of {count(len(rows), 'slide')} failed; {manifest} and the column `error` "
            "of the result say why"
        )
    return pd.DataFrame([{key: row[key] for key in COLUMNS} for row in rows])
