"""Slides whose genes and class follow programs, and slide models whose contributions are known."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import spatialdata
import torch
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_matrix
from spatialdata.models import TableModel

from stp import io, models
from stp.models.slide_config import SlideTarget

WIDTH = 4
DIGEST = "5" * 64
MODEL = {"name": "planted", "class": "Stamp", "digest": DIGEST, "vocabulary": None}
GENES = [f"PLANTED{n}" for n in range(3)] + [f"OTHER{n}" for n in range(5)]
CLASSES = (SlideTarget("classes", "label", ("high", "low"), "high"),)
NEW = ("3" * 32, ("0" * 64,))  # salt and hash of a patient that is not in the cohort


def draw_slide(seed: int, *, shift: float = 0.0, size: int = 8) -> anndata.AnnData:
    """Make tiles on a grid: the first feature is the program that planted genes follow."""
    rng = np.random.default_rng(seed)
    is_tissue = rng.random((size, size)) < 0.9
    fields = np.stack(
        [gaussian_filter(rng.normal(size=(size, size)), 1.0)[is_tissue] for _ in range(WIDTH)],
        axis=1,
    )
    programs = fields / fields.std(axis=0)
    programs[:, 0] += shift
    cells = np.argwhere(is_tissue)
    names = pd.Index([f"tile{n}" for n in range(len(cells))])
    table = anndata.AnnData(obs=pd.DataFrame(index=names))
    table.obsm["spatial"] = cells[:, ::-1] * 224.0
    table.obsm["X_stp_images_aligned"] = programs.astype(np.float32)
    table.uns["X_stp_images"] = {"params": {"tile_um": 112.0, "um_per_px": 0.5}, "model": MODEL}
    noise = rng.normal(size=(len(cells), len(GENES)))
    follows = np.r_[np.ones(3), np.zeros(5)]
    values = 2 + programs[:, :1] * follows + 0.5 * noise
    table.obsm["stp_expression"] = values.astype(np.float32)
    table.obs["stp_expression_far"] = np.arange(len(cells)) < 3
    table.uns["stp_expression"] = {
        "genes": np.array(GENES, object),
        "gene_ids": np.array([""] * len(GENES), object),
        "units": "log1p of counts per 10,000",
        "model": MODEL,
    }
    return table


def write_slide(path: Path, table: anndata.AnnData) -> None:
    """Write tiles as a store."""
    tables = {"table": TableModel.parse(table.copy())}
    spatialdata.SpatialData(tables=tables).write(path, overwrite=True)


def write_cohort(folder: Path, tables: dict[str, anndata.AnnData], labels) -> anndata.AnnData:
    """Write tiles of slides `<patient>_<number>`, and return their cohort."""
    rows = []
    for name, table in tables.items():
        write_slide(folder / f"{name}.zarr", table)
        patient = name.split("_")[0]
        path = str(folder / f"{name}.zarr")
        rows.append({"patient": patient, "slide": name, "path": path, "label": labels[patient]})
    return io.read_cohort(pd.DataFrame(rows), use_rep="X_stp_images_aligned")


def make_model(targets=CLASSES, *, patients=NEW, pooling="mean", digest=DIGEST, column=0):
    """Return a model whose first output rises with one feature of a tile, and sums over tiles."""
    features = models.SlideFeatures(WIDTH, "planted", "Stamp", digest, tile_um=112.0, um_per_px=0.5)
    salt, hashes = patients
    config = models.SlideModelConfig(
        features, targets, hidden=8, attention=4, pooling=pooling, salt=salt, patient_hashes=hashes
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = models.SlideModel(config).eval()
    if pooling != "mean":
        return model
    with torch.no_grad():
        model.tiles[0].weight.zero_()
        model.tiles[0].bias.zero_()
        model.tiles[0].weight[0, column] = 1.0  # two units, for positive and negative values
        model.tiles[0].weight[1, column] = -1.0
        for head in model.heads:
            head.weight.zero_()
            head.bias.zero_()
            head.weight[0, :2] = torch.tensor([1.0, -1.0])
    return model


def make_spots(n_slides: int = 2, *, agreement: float = 0.8) -> anndata.AnnData:
    """Make measured spots whose image vectors follow their gene vectors up to noise."""
    tables = []
    for number in range(n_slides):
        rng = np.random.default_rng((1, number))
        slide = draw_slide(100 + number, size=9)
        programs = slide.obsm["X_stp_images_aligned"]
        follows = np.r_[np.ones(3), np.zeros(5)]
        counts = rng.poisson(20 * np.exp(0.5 * programs[:, :1] * follows))
        table = anndata.AnnData(csr_matrix(counts, dtype=np.float32))
        table.var_names = GENES
        table.obs_names = [f"{number}_{n}" for n in range(len(counts))]
        table.obs["section"] = f"section{number}"
        table.obsm["spatial"] = slide.obsm["spatial"]
        table.obsm["X_stp_genes_aligned"] = programs
        noise = rng.normal(size=programs.shape)
        images = agreement * programs + np.sqrt(1 - agreement**2) * noise
        table.obsm["X_stp_images_aligned"] = images.astype(np.float32)
        tables.append(table)
    adata = anndata.concat(tables)
    adata.uns["X_stp_images"] = {
        "params": {"tile_um": 112.0, "um_per_px": 0.5},
        "model": MODEL,
    }
    adata.uns["X_stp_genes"] = {"params": {"tokens_key": "stp_tokens"}, "model": MODEL}
    return adata
