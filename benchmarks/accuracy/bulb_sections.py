"""Three sections of the mouse olfactory bulb: reading, stores, and a vocabulary of the mouse."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import spatialdata

import stp

SECTIONS = ("rep04", "rep09", "rep11")
NAMED_IN = "rep04"  # whose table has Ensembl ids and symbols of the most genes
LABEL = "layer"
PITCH_UM = 200.0
SPOT_UM = 100.0
UM_PER_PX = 2.75  # of the images, from the corners of the array


def read_table(data: Path, section: str) -> anndata.AnnData:
    """Return counts, places and layers of a section."""
    return anndata.read_h5ad(data / f"mob_{section}.h5ad")


def read_section(data: Path, section: str) -> spatialdata.SpatialData:
    """Return a section with its H&E image."""
    return stp.io.from_anndata(
        read_table(data, section),
        data / f"mob_{section}.jpg",
        um_per_px=UM_PER_PX,
        spot_diameter_um=SPOT_UM,
        name=section,
    )


def mouse_genes(data: Path) -> stp.Vocabulary:
    """Return the genes with an Ensembl id that the tables name."""
    var = read_table(data, NAMED_IN).var
    ids = var["ensembl"].astype(str)
    has_id = ids.str.startswith("ENSMUSG").to_numpy()
    return stp.Vocabulary.from_genes(ids[has_id].to_numpy(), var.index[has_id].to_numpy())


def write_stores(data: Path, folder: Path) -> dict[str, Path]:
    """Write each section as a store, unless it is there; return the paths by name."""
    stores = {section: folder / "stores" / f"{section}.zarr" for section in SECTIONS}
    genes = mouse_genes(data)
    for section, path in stores.items():
        if not path.exists():
            slide = read_section(data, section)
            stp.io.write_store(slide, path, patch_um_per_px=UM_PER_PX, vocabulary=genes)
    return stores


def has_layer(table: anndata.AnnData) -> np.ndarray:
    """Return which spots an expert assigned to a layer."""
    return ~table.obs[LABEL].astype(str).isin(["", "nan"]).to_numpy()


def layers_of(table: anndata.AnnData) -> np.ndarray:
    """Return the layer of each spot; it is empty for spots without one."""
    return pd.Series(table.obs[LABEL]).astype(str).replace("nan", "").to_numpy()
