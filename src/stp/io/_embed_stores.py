"""Embed many stores with one model, and keep a manifest of what was written."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stp._lock import lock
from stp._log import count, logger
from stp._text import readable
from stp._urls import as_url, url_name
from stp.data.collection import Collection
from stp.io._embed_manifest import Manifest
from stp.io._embed_parts import open_parts, remove_parts
from stp.io._embed_remote import copy_into, working_copy
from stp.io._embed_table import EmbedOptions, describe_settings, embed_table
from stp.io._results import repair_store, write_results
from stp.io._store_path import local_path
from stp.io._table_entries import scratch_folder
from stp.remote.store import RemoteStore
from stp.tables import keys
from stp.tables.table import as_iterable, get_table

if TYPE_CHECKING:
    from stp.io._embed_model import Model
    from stp.train.engine.processes import Processes


def embed_stores(
    stores: "str | Path | Iterable[str | Path]",
    model: "Model | str | Path",
    *,
    manifest: str | Path,
    batch_size: int = 64,
    device: str | None = None,
    precision: str = "auto",
    table_key: str = keys.TABLE,
    output_dir: str | Path | None = None,
) -> int:
    """Embed the spots of every store by genes and images, if store and model have both.

    First the manifest, the model and all stores are checked. If anything is wrong, one error lists
    all of it, and nothing is embedded. After that, a store that fails does not stop the others.
    :func:`stp.io.write_results` adds the results to each store. Embeddings that this model made
    before are skipped, those of another model are replaced. Under torchrun, the processes divide
    the stores.

    Every minute, or every 64 batches, the part that is done is saved in a hidden folder next to the
    store. If the process is killed, the next call with the same model, settings and store goes on
    from there, to the same values.

    A remote store is embedded in a local copy. Its results are uploaded, or stay in `output_dir`.
    Of remote stores only the metadata are checked first. Two machines must not embed the same
    remote store at the same time.

    Parameters
    ----------
    stores
        SpatialData zarr folders, URLs of stores that :func:`stp.io.write_store` wrote, or a
        collection of :func:`stp.io.read_collection`.
    model
        A Stamp, GeneEncoder or ImageEncoder, its folder, or the name of a pathology encoder; or a
        WrappedEncoder, which has no folder.
    manifest
        JSON lines file. Each store adds a line: what was written, or why it failed.
    batch_size
        Number of spots per batch.
    device
        Torch device; by default that of `stp.settings`, or a GPU if there is one.
    precision
        "auto" (bf16 on a GPU, fp32 on a CPU), "bf16" or "fp32".
    table_key
        Name of the table in a SpatialData.
    output_dir
        Local folder for copies of the remote stores with their results; by default the results are
        uploaded, which web servers do not allow.

    Returns
    -------
    The number of stores that failed, over all processes.

    Raises
    ------
    ValueError
        The model, an option, the manifest or a store cannot be used: a store is missing,
        read-only or out of reach, has no such table, has no genes or image that the model reads,
        or was written anew after its collection was made.
    OSError
        Lines of the manifest could not be written. The stores are embedded nevertheless.

    Examples
    --------
    >>> slide = stp.datasets.synthetic_visium(n_rows=8, n_cols=8)
    >>> stp.io.write_store(slide, "slide.zarr", patch_um_per_px=2.0, overwrite=True)
    >>> stp.io.embed_stores(["slide.zarr"], model, manifest="embedded.jsonl")
    0
    """
    from stp.train.engine.processes import distributed

    items = stores if isinstance(stores, Collection) else list(as_iterable(stores))
    with distributed(device) as processes:
        options = EmbedOptions(
            batch_size,
            str(processes.device),
            precision,
            table_key,
            progress=processes.is_main,
            output_dir=None if output_dir is None else local_path(output_dir).absolute(),
        )
        opened = _check(items, model, manifest, options, processes)
        lines = Manifest(local_path(manifest), opened, processes.rank)
        places = list(dict.fromkeys(as_url(item) or local_path(item).absolute() for item in items))
        own_places = places[processes.rank :: processes.size]
        for number, place in enumerate(own_places, 1):
            name = place.name if isinstance(place, Path) else url_name(place)
            logger.info(f"Store {number} of {len(own_places)}: {name}")
            lines.add(_try_to_embed(place, opened, lines.digest, options))
        # All processes return the same number: torchrun stops the others if one exits with 1.
        sums = processes.sum({"failed": lines.n_failed, "lost": lines.n_lost})
    if sums["lost"]:
        raise OSError(
            f"{int(sums['lost'])} lines of the manifest {readable(manifest)} could not be written; "
            f"they are in the log. {int(sums['failed'])} stores failed, the others are embedded"
        )
    return int(sums["failed"])


def _check(
    stores: Collection | list[Any],
    model: Any,
    manifest: Any,
    options: EmbedOptions,
    processes: "Processes",
) -> "Model":
    """Return the model; raise ValueError in all processes if one of them finds a fault."""
    import torch

    from stp.io._embed_checks import (
        list_manifest_faults,
        list_option_faults,
        list_store_faults,
        raise_faults,
    )
    from stp.io._embed_model import open_model

    faults = []
    opened = None
    try:
        opened = open_model(model)
    except (OSError, TypeError, ValueError) as error:
        faults.append(str(error))
    if processes.is_main:
        device = torch.device(options.device)
        faults += list_option_faults(device, options.precision, options.batch_size)
        faults += list_manifest_faults(manifest)
        if isinstance(stores, Collection):
            faults += stores.list_changes()
        faults += list_store_faults(stores, opened, options.table_key, options.output_dir)
        if not stores:
            faults.append("there are no stores to embed")
    raise_faults(faults, processes, "nothing was embedded")
    if opened is None:
        raise AssertionError("a model that cannot be opened is a fault")
    return opened


def _try_to_embed(
    place: Path | str, model: "Model", digest: str, options: EmbedOptions
) -> dict[str, Any]:
    """Embed one store, a folder or a URL, and return its line of the manifest."""
    start = time.time()
    name = readable(place)
    line: dict[str, Any] = {
        "store": name,
        "status": "embedded",
        "written": [],
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    try:
        if isinstance(place, Path):
            for key in _embed_store(place, model, digest, options):
                line["written"].append(key)
        else:
            line["written"] += _embed_remote(place, model, digest, options)
        if not line["written"]:
            line["status"] = "skipped"
    except Exception as error:
        logger.exception(f"{name} was not embedded")
        line["status"] = "failed"
        line["error"] = f"{type(error).__name__}: {error}"
    line["seconds"] = round(time.time() - start, 1)
    return line


def _embed_remote(url: str, model: "Model", digest: str, options: EmbedOptions) -> list[str]:
    """Embed a remote store, and return the names of the embeddings that were written."""
    from stp.io._embed_model import list_missing

    if options.output_dir is not None:
        path = copy_into(RemoteStore(url), options.output_dir)
        return list(_embed_store(path, model, digest, options))
    table_key = options.table_key
    with working_copy(
        url, table_key, lambda path: list_missing(path, model, digest, table_key)
    ) as copy:
        if copy.path is not None:
            list(_embed_store(copy.path, model, digest, options))
    return copy.missing


def _embed_store(path: Path, model: "Model", digest: str, options: EmbedOptions) -> Iterator[str]:
    """Make the missing embeddings, write each one at once, and yield its name."""
    import spatialdata

    from stp.io._embed_model import list_missing

    if not list_missing(path, model, digest, options.table_key):
        remove_parts(path)
        if not scratch_folder(path).exists():
            return  # a finished store may be read-only
    with lock(path, "reading", wait=True):
        repair_store(path)
        missing = list_missing(path, model, digest, options.table_key)
        sdata = spatialdata.read_zarr(path)
    table = get_table(sdata, options.table_key)
    old_columns = {*table.obsm, *table.obs}
    for key in missing:
        with open_parts(path, table, describe_settings(key, digest, options)) as parts:
            embed_table(sdata, model, key, options, parts)
            # A name that only an earlier model wrote is passed on, too, so it leaves the store.
            columns = old_columns | {*table.obsm, *table.obs}
            names = (key, keys.aligned(key), keys.inside(key))
            results = [name for name in names if name in columns]
            write_results(sdata, table_key=options.table_key, keys=results)
        logger.info(f"Embedded {count(table.n_obs, 'spot')} of {path.name} as {key}.")
        yield key
