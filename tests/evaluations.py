"""A collection with a split, whose stores have labels, and a Stamp that saw its training side."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tests.slides import FILLERS, GENES, make_slide

import stp
from stp.data.store import SpotStore
from stp.models import GeneEncoderConfig, ImageEncoderConfig, Stamp, StampConfig

SIDES = {"a0": "train", "b0": "train", "c0": "test", "d0": "test", "e0": "validation"}
LABEL = "region"


def write_case(folder: Path) -> Path:
    """Write stores of five patients, their collection with a split, and an untrained Stamp."""
    paths = []
    for seed, name in enumerate(SIDES):
        adata, image = make_slide(seed + 20)
        share = np.asarray(adata[:, GENES[:4]].X.sum(axis=1)).ravel()
        adata.obs[LABEL] = np.where(share > np.median(share), "tumor", "stroma")
        adata.obs.loc["spot3", LABEL] = ""
        adata.obs["tissue"] = "breast"
        path = folder / f"{name}.zarr"
        sdata = stp.io.from_anndata(adata, image, um_per_px=1.0, name=name)
        stp.io.write_store(sdata, path, patch_um_per_px=4.0)
        paths.append(path)
    table = pd.DataFrame(
        {
            "name": list(SIDES),
            "path": [path.name for path in paths],
            "digest": [SpotStore(path).digest for path in paths],
            "patient": [name[0].upper() for name in SIDES],
            "split": list(SIDES.values()),
        }
    )
    stp.io.Collection(table, folder).write(folder / "collection.parquet")
    make_stamp(paths[:2]).save_pretrained(folder / "stamp")
    return folder / "collection.parquet"


def make_stamp(train: list[Path]) -> Stamp:
    """Return an untrained Stamp whose gene means are those of the training side."""
    default = stp.Vocabulary.default()
    index = default.encode(GENES + FILLERS)
    genes = stp.Vocabulary.from_genes(default.gene_ids[index], default.symbols[index]).fit(train)
    gene = GeneEncoderConfig(context_length=32, width=32, depth=1, n_heads=2, ffn_width=64)
    backbone = {"patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    image = ImageEncoderConfig("vit_tiny_patch16_224", backbone, image_size=32, um_per_px=4.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Stamp(StampConfig(gene, image, projection_width=32), genes).eval()


def edit_collection(file: Path, new: Path, **columns: object) -> Path:
    """Write a copy of a collection with other columns into the same folder."""
    collection = stp.io.read_collection(file)
    table = collection.table.assign(**columns)
    table = table.drop(columns=[name for name, values in columns.items() if values is None])
    stp.io.Collection(table, collection.folder).write(new)
    return new
