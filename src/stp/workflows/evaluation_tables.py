"""Embed the stores of an evaluation one by one, into small tables in a temporary folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp import tl
from stp._log import AUTOSHARDING, logger, silence
from stp._progress import track
from stp.data.store import SpotStore
from stp.images.color_texture import color_and_texture
from stp.images.patches import PatchWindow
from stp.images.slides import find_slides
from stp.io._embed_model import Model, reads_genes, reads_images
from stp.models import GeneEncoder, Stamp
from stp.models.patch_encoder import PatchEncoder
from stp.tables import keys
from stp.tables.table import get_table
from stp.workflows.evaluation_options import (
    TRAIN,
    EvaluationOptions,
    Sides,
    patients_of,
    read_labels,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

COLOR = "X_color_and_texture"
COMPONENTS = "X_components"
LABEL = "label"
MIN_SPOTS = 20  # smaller stores are not used
BATCH_PATCHES = 64


@dataclass(frozen=True)
class SpotTable:
    """The spots of a store that are used, with counts and embeddings, on disk.

    Parameters
    ----------
    name
        Name of the store.
    patient
        Its patient, "" if it is unknown.
    side
        Side of the split.
    path
        Where the table is.
    n_spots
        Number of spots that are used.
    n_left_out
        Number of further spots in tissue, which are not used.
    is_in_um
        Whether the coordinates are in µm.
    """

    name: str
    patient: str
    side: str
    path: Path
    n_spots: int
    n_left_out: int
    is_in_um: bool

    def open_table(self) -> "AnnData":
        """Return the table; counts and embeddings stay on disk."""
        return get_table(self.path)

    def read(self, reps: Sequence[str]) -> "AnnData":
        """Return the spots with these embeddings in memory, and without counts."""
        import anndata

        table = self.open_table()
        arrays = {rep: np.asarray(table.obsm[rep][:]) for rep in reps if rep in table.obsm}
        return anndata.AnnData(obs=table.obs, obsm=arrays, uns=table.uns)

    def row(self, method: str, n_spots: int) -> dict[str, Any]:
        """Return the first columns of a row of scores, of a method on some spots."""
        return {
            "slide": self.name,
            "patient": self.patient,
            "method": method,
            "n_spots": n_spots,
        }


def embeddings_of(model: Model) -> list[str]:
    """Return the names in `obsm` of the embeddings that a model makes, without aligned vectors."""
    names = [keys.GENES] if reads_genes(model) else []
    if reads_images(model):
        names.append(keys.IMAGES)
    return [*names, keys.FUSED] if len(names) == 2 else names


def can_retrieve(model: Model) -> bool:
    """Return whether images of a model find genes."""
    return isinstance(model, Stamp) and reads_genes(model)


def make_tables(
    sides: Sides, model: Model, options: EvaluationOptions, folder: Path
) -> tuple[list[SpotTable], list[str]]:
    """Write the table of each store, and return them with what was left out."""
    jobs: list[tuple[str, str, str, str | Path]] = []
    for side, stores in ((TRAIN, sides.train), (options.split, sides.scored)):
        patients = patients_of(stores, options.by)
        jobs += [
            (side, name, patient, path)
            for name, patient, path in zip(stores.table["name"], patients, stores, strict=True)
        ]
    digest = model.digest  # once, because it reads all weights
    tables: list[SpotTable] = []
    left_out = []
    for number, (side, name, patient, place) in enumerate(track(jobs, "embed stores", "store")):
        store = SpotStore(place, options.table_key)
        in_tissue = store.trainable(min_genes=0)
        if len(in_tissue) < MIN_SPOTS:
            left_out.append(f"{name}: it has fewer than {MIN_SPOTS} spots in tissue.")
            continue
        rng = np.random.default_rng([options.seed, number])
        rows = np.sort(rng.permutation(in_tissue)[: options.max_spots])
        path = folder / f"{number}.zarr"
        _write(path, _embed(store, rows, name, model, digest, options))
        n_left_out = len(in_tissue) - len(rows)
        tables.append(SpotTable(name, patient, side, path, len(rows), n_left_out, store.is_in_um))
    for side in (TRAIN, options.split):
        if not any(table.side == side for table in tables):
            raise ValueError(f"no store of {side!r} has {MIN_SPOTS} spots in tissue")
    return tables, left_out


def _embed(
    store: SpotStore,
    rows: np.ndarray,
    name: str,
    model: Model,
    digest: str,
    options: EvaluationOptions,
) -> "AnnData":
    """Return some spots of a store with all that is compared, and nothing else."""
    import anndata
    import pandas as pd
    import spatialdata

    sdata = spatialdata.read_zarr(store.path)
    table = sdata.tables[options.table_key][rows].copy()
    sdata.tables[options.table_key] = table
    _add_embeddings(sdata, table, model, digest, options)
    columns = embeddings_of(model)
    arrays = {key: np.asarray(table.obsm[key]) for key in columns}
    for key in columns:
        if keys.aligned(key) in table.obsm:
            arrays[keys.aligned(key)] = np.asarray(table.obsm[keys.aligned(key)])
    if isinstance(model, Stamp | PatchEncoder):
        arrays[COLOR] = _describe_patches(sdata, table, model)
    if store.coordinates is not None:
        arrays[keys.SPATIAL] = np.asarray(store.coordinates)[rows]
    labels = [""] * len(rows)
    if options.label is not None and options.label in table.obs:
        labels = read_labels(table.obs[options.label])
    obs = pd.DataFrame(
        {LABEL: np.array(labels, dtype=object)},
        index=[f"{name}/{spot}" for spot in table.obs_names],
    )
    uns = {key: {"model": table.uns[key]["model"]} for key in columns}
    return anndata.AnnData(table.X, obs=obs, var=table.var, obsm=arrays, uns=uns)


def _add_embeddings(
    sdata: "SpatialData",
    table: "AnnData",
    model: Model,
    digest: str,
    options: EvaluationOptions,
) -> None:
    """Annotate a table with the embeddings of a model that it does not have yet."""
    needs_genes = reads_genes(model) and not _is_made_by(table, keys.GENES, digest)
    needs_images = reads_images(model) and not _is_made_by(table, keys.IMAGES, digest)
    if isinstance(model, Stamp | GeneEncoder) and needs_genes:
        tl.tokenize(table, model)
        tl.embed_genes(
            table,
            model,
            batch_size=options.batch_size,
            device=options.device,
            precision=options.precision,
            progress=False,
        )
    if isinstance(model, Stamp | PatchEncoder) and needs_images:
        tl.embed_images(
            sdata,
            model,
            batch_size=options.batch_size,
            device=options.device,
            precision=options.precision,
            progress=False,
            table_key=options.table_key,
        )
    if keys.FUSED in embeddings_of(model):
        tl.fuse(table)


def _is_made_by(table: "AnnData", key: str, digest: str) -> bool:
    """Return whether a store has an embedding of this model."""
    record = table.uns.get(key, {}).get("model") or {}
    is_made = key in table.obsm and record.get("digest") == digest
    if is_made:
        logger.debug(f"obsm[{key!r}] is used as the store has it")
    return is_made


def _describe_patches(
    sdata: "SpatialData", table: "AnnData", model: Stamp | PatchEncoder
) -> np.ndarray:
    """Return color and texture (n, n_features) of the patches that the model reads."""
    config = (model.image_encoder if isinstance(model, Stamp) else model).config
    window = PatchWindow(config.image_size, config.um_per_px)
    values: np.ndarray | None = None
    for slide in find_slides(sdata, table):
        for batch, patches in slide.pyramid.stream(slide.centers, window, batch_size=BATCH_PATCHES):
            features = color_and_texture(patches)
            if values is None:
                values = np.full((table.n_obs, features.shape[1]), np.nan, np.float32)
            values[slide.rows[batch]] = features
    assert values is not None  # a table has spots
    return values


def _write(path: Path, table: "AnnData") -> None:
    """Write a table as `get_table` opens it."""
    import anndata
    import zarr

    group = zarr.open_group(path, mode="w").require_group("tables")
    with silence(AUTOSHARDING):
        anndata.io.write_elem(group, keys.TABLE, table)
