"""Embed many stores with one model, and keep a manifest of what was written."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stp import io, tl
from stp._log import logger
from stp.models import GeneEncoder, ImageEncoder, Stamp, load_backbone
from stp.models.published.backbones import BACKBONES
from stp.models.saved.pretrained import CONFIG
from stp.tables import keys
from stp.tables.table import get_table
from stp.train.engine.processes import distributed

Model = Stamp | GeneEncoder | ImageEncoder
MODEL_CLASSES: dict[str, type[Model]] = {
    "Stamp": Stamp,
    "GeneEncoder": GeneEncoder,
    "ImageEncoder": ImageEncoder,
}


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
    """

    batch_size: int
    device: str
    precision: str
    table_key: str


def open_model(name: str | Path) -> Model:
    """Load a model of any class from its folder, or a pathology encoder by its name.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    ValueError
        The folder holds a model that makes no embeddings.
    """
    if str(name) in BACKBONES:
        return load_backbone(str(name))
    file = Path(name) / CONFIG
    if not file.is_file():
        raise FileNotFoundError(
            f"{name} has no {CONFIG}; give a folder of stp.train, or one of {list(BACKBONES)}"
        )
    class_name = json.loads(file.read_text(encoding="utf-8")).get("class")
    if class_name not in MODEL_CLASSES:
        raise ValueError(
            f"{name} holds a {class_name}; embeddings are made by {list(MODEL_CLASSES)}"
        )
    return MODEL_CLASSES[class_name].from_pretrained(name)


def reads_genes(model: Model) -> bool:
    """Return whether a model embeds tokens; a Stamp aligned with pathways alone does not."""
    if isinstance(model, Stamp):
        return model.gene_encoder is not None
    return isinstance(model, GeneEncoder)


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
    """Embed the spots of every store by genes and images, if store and model have both.

    :func:`stp.io.write_results` adds the results to each store. Embeddings that this model made
    before are skipped, those of another model are replaced. Under torchrun, the processes divide
    the stores.

    Parameters
    ----------
    stores
        SpatialData zarr folders.
    model
        A Stamp, GeneEncoder or ImageEncoder.
    manifest
        JSON lines file. Each store adds a line: what was written, or why it failed.
    batch_size
        Number of spots per batch.
    device
        Torch device; by default a GPU if there is one.
    precision
        "auto" (bf16 on a GPU, fp32 on a CPU), "bf16" or "fp32".
    table_key
        Name of the table in a SpatialData.

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
    manifest = Path(manifest)
    if manifest.is_dir():
        raise ValueError(
            f"{manifest} is a folder; give a file for the manifest, which is JSON lines"
        )
    digest = model.digest
    paths = list(dict.fromkeys(Path(store).absolute() for store in stores))
    with distributed(device) as processes:
        options = EmbedOptions(batch_size, str(processes.device), precision, table_key)
        n_failed = 0
        for path in paths[processes.rank :: processes.size]:
            line = _try_to_embed(path, model, digest, options)
            line["model"] = {"name": model.name, "digest": digest}
            line["process"] = processes.rank
            _append_line(manifest, line)
            n_failed += line["status"] == "failed"
        # All processes return the same number: torchrun stops the others if one exits with 1.
        return int(processes.sum({"failed": n_failed})["failed"])


def _try_to_embed(path: Path, model: Model, digest: str, options: EmbedOptions) -> dict[str, Any]:
    """Embed one store, and return its line of the manifest."""
    start = time.time()
    line: dict[str, Any] = {
        "store": str(path),
        "status": "embedded",
        "written": [],
        "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }
    try:
        line["written"] = _embed_store(path, model, digest, options)
        if not line["written"]:
            line["status"] = "skipped"
    except Exception as error:
        logger.exception(f"{path} was not embedded")
        line["status"] = "failed"
        line["error"] = f"{type(error).__name__}: {error}"
    line["seconds"] = round(time.time() - start, 1)
    return line


def _embed_store(path: Path, model: Model, digest: str, options: EmbedOptions) -> list[str]:
    """Make the missing embeddings, write each one at once, and return their names."""
    import spatialdata

    missing = _missing_embeddings(path, model, digest, options.table_key)
    if not missing:
        return []
    sdata = spatialdata.read_zarr(path)
    table = get_table(sdata, options.table_key)
    old_columns = {*table.obsm, *table.obs}
    for key in missing:
        _embed(sdata, model, key, options)
        # A name that only an earlier model wrote is passed on, too, so that it leaves the store.
        columns = old_columns | {*table.obsm, *table.obs}
        results = [name for name in (key, keys.aligned(key), keys.inside(key)) if name in columns]
        io.write_results(sdata, table_key=options.table_key, keys=results)
        logger.info(f"{path.name}: {key} of {table.n_obs} spots")
    return missing


def _embed(sdata: Any, model: Model, key: str, options: EmbedOptions) -> None:
    """Annotate the table of a SpatialData with one embedding."""
    if key == keys.GENES and not isinstance(model, ImageEncoder):
        tl.tokenize(sdata, model, table_key=options.table_key)
        tl.embed_genes(
            sdata,
            model,
            batch_size=options.batch_size,
            device=options.device,
            precision=options.precision,
            table_key=options.table_key,
            progress=False,
        )
    elif not isinstance(model, GeneEncoder):
        tl.embed_images(
            sdata,
            model,
            batch_size=options.batch_size,
            device=options.device,
            precision=options.precision,
            table_key=options.table_key,
            progress=False,
        )


def _missing_embeddings(path: Path, model: Model, digest: str, table_key: str) -> list[str]:
    """List the embeddings that store and model allow and that this model has not made yet."""
    import zarr

    if not path.exists():
        raise FileNotFoundError(f"no store at {path}")
    group = zarr.open_group(path, mode="r", use_consolidated=False)
    has_image = bool(list(group["images"])) if "images" in group else False
    possible = [keys.GENES] if reads_genes(model) else []
    if not possible and not has_image:
        raise ValueError(
            f"{path} has no image, and {model.name} reads nothing else; write the store again "
            "with an image"
        )
    # Without an image, a Stamp still embeds genes.
    if isinstance(model, ImageEncoder) or (isinstance(model, Stamp) and has_image):
        possible.append(keys.IMAGES)
    return [key for key in possible if _stored_digest(group, table_key, key) != digest]


def _stored_digest(group: Any, table_key: str, key: str) -> str | None:
    """Return the digest of the model that made a stored embedding.

    The digest is written after the embedding, so an embedding with a digest is complete.
    """
    import anndata

    digest_path = f"tables/{table_key}/uns/{key}/model/digest"
    if digest_path not in group:
        return None
    return str(anndata.io.read_elem(group[digest_path]))


def _append_line(manifest: Path, line: dict[str, Any]) -> None:
    """Add a line in one write, so that lines of several processes do not mix."""
    manifest.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(manifest, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, (json.dumps(line) + "\n").encode())
    finally:
        os.close(file)
