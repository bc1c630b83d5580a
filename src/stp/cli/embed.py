"""Embed many stores with one model: what is finished is skipped, and a store that fails does not stop the rest."""

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stp import io, tl
from stp._log import logger
from stp.models import GeneEncoder, ImageEncoder, Stamp, load_backbone
from stp.models.published.backbones import BACKBONES
from stp.models.saved.pretrained import CONFIG
from stp.tables import keys
from stp.tables.table import get_table
from stp.train.engine.processes import Processes, distributed

Model = Stamp | GeneEncoder | ImageEncoder


def open_model(name: str | Path) -> Model:
    """Load a model of any class from its folder, or a pathology encoder by its name.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    ValueError
        The folder holds something else.
    """
    if str(name) in BACKBONES:
        return load_backbone(str(name))
    file = Path(name) / CONFIG
    if not file.is_file():
        raise FileNotFoundError(
            f"{name} has no {CONFIG}; give a folder of stp.train, or one of {list(BACKBONES)}"
        )
    kind = json.loads(file.read_text()).get("class")
    classes = {one.__name__: one for one in (Stamp, GeneEncoder, ImageEncoder)}
    if kind not in classes:
        raise ValueError(f"{name} holds a {kind}; embeddings are made by {list(classes)}")
    return classes[kind].from_pretrained(name)


def reads_genes(model: Model) -> bool:
    """Tell whether a model embeds tokens; a Stamp that was aligned with pathways alone does not."""
    return model.reads_genes and getattr(model, "gene_encoder", model) is not None


def embed_stores(
    stores: Sequence[str | Path],
    model: Model,
    *,
    manifest: str | Path,
    batch_size: int = 64,
    device: str | None = None,
    precision: str = "auto",
    table_key: str = keys.TABLE,
) -> int:
    """Embed the spots of every store by genes and images, as far as store and model have both.

    Results are added to each store by :func:`stp.io.write_results`. Embeddings that this model has made before are
    skipped, those of another model replaced. Under torchrun, processes divide the stores.

    Parameters
    ----------
    stores
        SpatialData zarr folders.
    model
        A Stamp, GeneEncoder or ImageEncoder.
    manifest
        A file of JSON lines, to which one is added for each store: what was written, or why it was not.
    batch_size, device, precision
        As in :func:`stp.tl.embed_images`.
    table_key
        Table of the stores.

    Returns
    -------
    The number of stores that failed, over all processes.

    Raises
    ------
    ValueError
        `batch_size` is not positive, `manifest` is a folder, or there is no such device.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, not {batch_size}")
    if Path(manifest).is_dir():
        raise ValueError(
            f"{manifest} is a folder; give a file for the manifest, which is JSON lines"
        )
    how = {
        "batch_size": batch_size,
        "precision": precision,
        "table_key": table_key,
        "progress": False,
    }
    digest, paths = model.digest, list(dict.fromkeys(Path(store).absolute() for store in stores))
    with distributed(device) as world:
        failed = 0
        for path in paths[world.rank :: world.size]:
            line = _attempt(path, model, digest, {**how, "device": str(world.device)})
            failed += line["status"] == "failed"
            _add(
                Path(manifest),
                {**line, "model": {"name": model.name, "digest": digest}, "process": world.rank},
            )
        return _total(world, failed)


def _total(world: Processes, failed: int) -> int:
    # All processes end together and with one status: torchrun stops the others when one ends in failure.
    return int(world.sum({"failed": failed})["failed"])


def _attempt(path: Path, model: Model, digest: str, how: dict[str, Any]) -> dict[str, Any]:
    """Embed one store, and tell what came of it."""
    start = time.time()
    line = {
        "store": str(path),
        "status": "embedded",
        "written": [],
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    try:
        line["written"] = _embed(path, model, digest, how)
        if not line["written"]:
            line["status"] = "skipped"
    except Exception as error:
        logger.exception(f"{path} was not embedded")
        line |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    return {**line, "seconds": round(time.time() - start, 1)}


def _embed(path: Path, model: Model, digest: str, how: dict[str, Any]) -> list[str]:
    """Make the embeddings that are missing, and write each as soon as it is there; returns their names."""
    import spatialdata

    missing = _missing(path, model, digest, how["table_key"])
    if not missing:
        return []
    sdata = spatialdata.read_zarr(path)
    table = get_table(sdata, how["table_key"])
    before = {*table.obsm, *table.obs}
    for key in missing:
        if key == keys.GENES and not isinstance(model, ImageEncoder):
            tl.tokenize(table, model)
            tl.embed_genes(table, model, **how)
        elif not isinstance(model, GeneEncoder):
            tl.embed_images(sdata, model, **how)
        # Vectors that a model before made and this one does not are taken from the store, too.
        names, there = (
            (key, keys.aligned(key), keys.inside(key)),
            before | {*table.obsm, *table.obs},
        )
        io.write_results(
            sdata, table_key=how["table_key"], keys=[name for name in names if name in there]
        )
        logger.info(f"{path.name}: {key} of {table.n_obs} spots")
    return missing


def _missing(path: Path, model: Model, digest: str, table_key: str) -> list[str]:
    """List the embeddings that store and model allow and that this model has not made yet."""
    import zarr

    if not path.exists():
        raise FileNotFoundError(f"no store at {path}")
    group = zarr.open_group(path, mode="r", use_consolidated=False)
    has_image = bool(list(group["images"])) if "images" in group else False
    wanted = [keys.GENES] if reads_genes(model) else []
    if not wanted and not has_image:
        raise ValueError(
            f"{path} has no image, and {model.name} reads nothing else; write it again with one"
        )
    # Without an image a Stamp still embeds genes; an image encoder has nothing to do, and says so.
    if isinstance(model, ImageEncoder) or (isinstance(model, Stamp) and has_image):
        wanted.append(keys.IMAGES)
    return [key for key in wanted if _made_by(group, table_key, key) != digest]


def _made_by(group: Any, table_key: str, key: str) -> str | None:
    """Return the digest of the model that made an embedding on disk; it is written after the embedding itself."""
    import anndata

    place = f"tables/{table_key}/uns/{key}/model/digest"
    return str(anndata.io.read_elem(group[place])) if place in group else None


def _add(manifest: Path, line: dict[str, Any]) -> None:
    """Add a line in one write, so that lines of several processes do not mix."""
    manifest.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(manifest, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, (json.dumps(line) + "\n").encode())
    finally:
        os.close(file)
