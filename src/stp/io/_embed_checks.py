"""What is wrong with a call of `embed_stores`, before the first store is embedded."""

import os
import stat
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._text import readable
from stp._urls import as_url
from stp.data.collection import Collection
from stp.genes.table_genes import recognize_table
from stp.images.slides import find_slides
from stp.io._embed_model import Model, list_missing
from stp.io._embed_remote import check_remote, list_clashes
from stp.io._store_path import local_path, require_writable
from stp.models import Stamp
from stp.models.device import choose_precision
from stp.tables import keys
from stp.tables.counts import check_counts
from stp.tables.table import get_table

if TYPE_CHECKING:
    import torch
    from anndata import AnnData

    from stp.train.engine.processes import Processes

PROBE_BYTES = 4096  # a disk quota counts blocks of this size


def raise_faults(faults: list[str], processes: "Processes", outcome: str) -> None:
    """Raise ValueError in all processes if one of them finds a fault; the error lists all.

    Parameters
    ----------
    faults
        What this process found.
    processes
        The processes that work together.
    outcome
        What did not happen, in words.
    """
    is_faulty = processes.any(bool(faults))
    if len(faults) == 1:
        raise ValueError(faults[0])
    if faults:
        listed = "\n".join(f"- {fault}" for fault in faults)
        raise ValueError(f"{outcome}, because of {len(faults)} faults:\n{listed}")
    if is_faulty:
        raise ValueError(f"{outcome}; another process lists what is wrong")


def list_option_faults(device: "torch.device", precision: str, batch_size: int) -> list[str]:
    """List what is wrong with the options."""
    faults = []
    if batch_size < 1:
        faults.append(f"batch_size must be positive, not {batch_size}")
    try:
        choose_precision(device, precision)
    except ValueError as error:
        faults.append(str(error))
    return faults


def list_manifest_faults(manifest: Any) -> list[str]:
    """List why lines cannot be added to a manifest; nothing is left in it."""
    try:
        path = local_path(manifest)
        if path.is_dir():
            return [f"{path} is a folder; give a file for the manifest, which is JSON lines"]
        _probe(path)
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        name = readable(manifest)
        return [f"the manifest {name} cannot be written: {reason}; give another file"]
    return []


def list_store_faults(
    stores: Collection | Sequence[Any],
    model: Model | None,
    table_key: str,
    output_dir: Path | None,
) -> list[str]:
    """List why stores cannot be embedded; without a model, only what all models need is checked.

    Of remote stores the metadata are checked, and whether results can be written.
    """
    faults = list_clashes(stores, output_dir)
    digest = model.digest if model else ""  # once, because it reads all weights
    for store in stores:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the embedding itself warns
                url = as_url(store)
                if url is None:
                    _check_store(store, model, digest, table_key)
                else:
                    check_remote(url, output_dir, table_key)
        except Exception as error:  # noqa: BLE001 - the other stores are checked, too
            message = error.args[0] if isinstance(error, KeyError) else str(error)
            name = readable(store)
            faults.append(message if name in str(message) else f"{name}: {message}")
    return faults


def _probe(manifest: Path) -> None:
    """Raise OSError if a file cannot be written to, without a change of its lines."""
    manifest.parent.mkdir(parents=True, exist_ok=True)
    if manifest.exists() and not stat.S_ISREG(manifest.stat().st_mode):
        # Of a device only writing shows whether it works. JSON may begin with a space.
        _append(manifest, b" ")
        return
    if manifest.exists():
        os.close(os.open(manifest, os.O_WRONLY | os.O_APPEND))
    neighbor = manifest.with_name(f".{manifest.name}.{uuid.uuid4().hex}")
    try:
        _append(neighbor, bytes(PROBE_BYTES))
    finally:
        neighbor.unlink(missing_ok=True)


def _append(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, content)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_store(store: Any, model: Model | None, digest: str, table_key: str) -> None:
    """Raise an error if a store cannot be embedded, or the results cannot be added to it."""
    path = local_path(store)
    if not path.exists():
        raise FileNotFoundError(f"there is no store at {path}; check the path")
    table = get_table(path, table_key)
    if model is None:
        return
    missing = list_missing(path, model, digest, table_key)
    if not missing:
        return
    require_writable(path, table_key)
    if keys.GENES in missing:
        _check_genes(path, table, model, table_key)
    if keys.IMAGES in missing:
        _check_image(path, table, model)


def _check_genes(path: Path, table: "AnnData", model: Any, table_key: str) -> None:
    """Raise ValueError if a table has no counts of genes that the model reads."""
    if not (path / "tables" / table_key / "X").exists():
        raise ValueError(f"{path} has no counts in the table {table_key!r}; write the store again")
    model.vocabulary.divisors()
    recognize_table(model.vocabulary, table)
    check_counts(table)


def _check_image(path: Path, table: "AnnData", model: Any) -> None:
    """Raise an error if no image lies under the spots, or it is too coarse for the model."""
    import anndata
    import spatialdata

    sdata = spatialdata.read_zarr(path, selection=("images", "labels", "shapes"))
    in_memory = anndata.AnnData(obs=table.obs, var=table.var, uns=table.uns)
    if keys.SPATIAL in table.obsm:
        in_memory.obsm[keys.SPATIAL] = np.asarray(table.obsm[keys.SPATIAL][:])
    encoder = model.image_encoder if isinstance(model, Stamp) else model
    for slide in find_slides(sdata, in_memory):
        slide.pyramid.check_scale(encoder.config.um_per_px)
