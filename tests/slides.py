"""Slides that tests make: spots whose color follows their counts, and the folder that Space Ranger leaves of them."""

import json
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse

GENES = [
    "EPCAM",
    "KRT8",
    "KRT18",
    "ERBB2",
    "COL1A1",
    "COL1A2",
    "DCN",
    "LUM",
    "PTPRC",
    "CD3D",
    "CD3E",
    "MS4A1",
]
FILLERS = [
    f"RPL{i}" for i in (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 18, 19, 21, 22, 23, 24, 26)
]
PITCH, MARGIN = 100.0, 200.0  # um


def make_slide(
    seed: int = 0, n_rows: int = 10, n_cols: int = 10
) -> tuple[anndata.AnnData, np.ndarray]:
    """Make hexagonal spots with counts, and an image at 1 um per pixel whose color follows the same gradient."""
    rng = np.random.default_rng(seed)
    row, col = (x.ravel() for x in np.meshgrid(np.arange(n_rows), np.arange(n_cols), indexing="ij"))
    array_col = 2 * col + row % 2
    xy = np.column_stack([array_col * PITCH / 2, row * PITCH * np.sqrt(3) / 2]) + MARGIN
    height, width = (int(v) for v in xy.max(axis=0)[::-1] + MARGIN)
    y, x = np.mgrid[:height, :width]
    phase = rng.random(2) * 2 * np.pi
    field = np.stack([np.sin(x / 150 + phase[0]), np.cos(y / 130 + phase[1])], axis=-1)  # (y, x, 2)
    at_spots = field[xy[:, 1].astype(int), xy[:, 0].astype(int)]
    image = np.empty((height, width, 3), dtype=np.uint8)
    image[..., :2] = 150 + 80 * field
    image[..., 2] = 140 + rng.integers(-15, 15, size=(height, width))
    program = np.repeat(np.eye(3, 2), 4, axis=0)  # the third program follows nothing
    rate = np.exp(1.5 + at_spots @ program.T * 1.2)
    counts = np.hstack([rng.poisson(rate), rng.poisson(4.0, size=(len(xy), len(FILLERS)))])
    obs = pd.DataFrame(
        {"array_row": row, "array_col": array_col}, index=[f"spot{i}" for i in range(len(xy))]
    )
    X = scipy.sparse.csr_matrix(counts.astype(np.float32))
    adata = anndata.AnnData(
        X, obs=obs, var=pd.DataFrame(index=GENES + FILLERS), obsm={"spatial": xy}
    )
    return adata, image


def write_counts(path, adata):
    """Write counts as Cell Ranger 3 and later do: genes x barcodes in CSC."""
    strings = {
        "id": [f"ENSG{index:011d}" for index in range(adata.n_vars)],
        "name": adata.var_names,
        "feature_type": ["Gene Expression"] * adata.n_vars,
        "genome": ["GRCh38"] * adata.n_vars,
        "_all_tag_keys": ["genome"],
    }
    with h5py.File(path, "w") as file:
        matrix = file.create_group("matrix")
        matrix["barcodes"] = np.array(adata.obs_names, "S")
        matrix["data"] = adata.X.data.astype(np.int32)
        matrix["indices"] = adata.X.indices.astype(np.int64)
        matrix["indptr"] = adata.X.indptr.astype(np.int64)
        matrix["shape"] = np.array(adata.shape[::-1], np.int32)
        features = matrix.create_group("features")
        for key, values in strings.items():
            features[key] = np.array(values, "S")
        file.attrs.update(
            {"chemistry_description": "Spatial 3' v1", "filetype": "matrix", "version": 2}
        )


def write_space_ranger(
    folder: Path, adata: anndata.AnnData, image: np.ndarray, um_per_px: float = 1.0
) -> None:
    """Write a Space Ranger folder with rows of positions in another order than barcodes."""
    import PIL.Image

    (folder / "spatial").mkdir(parents=True)
    write_counts(folder / "filtered_feature_bc_matrix.h5", adata)
    positions = pd.DataFrame({"barcode": adata.obs_names, "in_tissue": 1})
    positions[["array_row", "array_col"]] = adata.obs[["array_row", "array_col"]].to_numpy()
    positions[["pxl_row_in_fullres", "pxl_col_in_fullres"]] = adata.obsm["spatial"][:, ::-1]
    positions.sample(frac=1, random_state=0).to_csv(
        folder / "spatial" / "tissue_positions.csv", index=False
    )
    scales = {"tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.1}
    factors = {
        "spot_diameter_fullres": 65.0 / um_per_px,
        "fiducial_diameter_fullres": 100.0 / um_per_px,
        **scales,
    }
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    for name, factor in (("hires", 0.5), ("lowres", 0.1)):
        small = PIL.Image.fromarray(image).resize([int(n * factor) for n in image.shape[1::-1]])
        small.save(folder / "spatial" / f"tissue_{name}_image.png")
