"""Synthetic slides of tests: spots whose color follows their counts, as folders of other tools."""

import json
import math
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse
import tifffile

from stp import Vocabulary

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
PITCH_UM = 100.0
MARGIN_UM = 200.0
# What the metadata of HEST-1k say of a sample; they have missing values of both kinds.
HEST_FACTS = {
    "dataset_title": "Study of 2024",
    "organ": "Breast",
    "species": "Homo sapiens",
    "st_technology": "Visium",
    "patient": "Patient 1",
    "oncotree_code": None,
    "treatment_comment": math.nan,
    "inter_spot_dist": 100.0,
    "spot_diameter": 55.0,
    "pixel_size_um_embedded": 1.0,  # of the file that the slide was made from
    "pixel_size_um_estimated": 0.5,
}


def make_slide(
    seed: int = 0, n_rows: int = 10, n_cols: int = 10
) -> tuple[anndata.AnnData, np.ndarray]:
    """Make hexagonal spots with counts, and an image at 1 µm per pixel with the same gradient."""
    rng = np.random.default_rng(seed)
    row, col = np.divmod(np.arange(n_rows * n_cols), n_cols)
    array_col = 2 * col + row % 2
    xy = np.column_stack([array_col / 2, row * np.sqrt(3) / 2]) * PITCH_UM + MARGIN_UM
    width, height = (xy.max(axis=0) + MARGIN_UM).astype(int)
    y, x = np.mgrid[:height, :width]
    phase = rng.random(2) * 2 * np.pi
    field = np.stack([np.sin(x / 150 + phase[0]), np.cos(y / 130 + phase[1])], axis=-1)  # (y, x, 2)
    at_spots = field[xy[:, 1].astype(int), xy[:, 0].astype(int)]
    image = np.empty((height, width, 3), dtype=np.uint8)
    image[..., :2] = 150 + 80 * field
    image[..., 2] = 140 + rng.integers(-15, 15, size=(height, width))
    # Four genes follow the first gradient, four the second, and four follow none.
    program = np.repeat(np.eye(3, 2), 4, axis=0)
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


def gene_ids_of(symbols):
    """Return the Ensembl ids of symbols; a name without one stays as it is."""
    vocabulary = Vocabulary.default()
    index = vocabulary.encode(symbols)
    return np.where(index >= 0, vocabulary.gene_ids[index], symbols)


def write_counts(path, adata):
    """Write counts as Cell Ranger 3 and later versions do: genes x barcodes in CSC."""
    strings = {
        "id": gene_ids_of(adata.var_names),
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
    """Write a Space Ranger folder; its positions are in another order than its barcodes."""
    import PIL.Image

    (folder / "spatial").mkdir(parents=True)
    write_counts(folder / "filtered_feature_bc_matrix.h5", adata)
    positions = pd.DataFrame({"barcode": adata.obs_names, "in_tissue": 1})
    positions[["array_row", "array_col"]] = adata.obs[["array_row", "array_col"]].to_numpy()
    positions[["pxl_row_in_fullres", "pxl_col_in_fullres"]] = adata.obsm["spatial"][:, ::-1]
    shuffled = positions.sample(frac=1, random_state=0)
    shuffled.to_csv(folder / "spatial" / "tissue_positions.csv", index=False)
    factors = {"hires": 0.5, "lowres": 0.1}
    scalefactors = {
        "spot_diameter_fullres": 65.0 / um_per_px,
        "fiducial_diameter_fullres": 100.0 / um_per_px,
        "tissue_hires_scalef": factors["hires"],
        "tissue_lowres_scalef": factors["lowres"],
    }
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(scalefactors))
    for name, factor in factors.items():
        size = [int(n_pixels * factor) for n_pixels in image.shape[1::-1]]
        small = PIL.Image.fromarray(image).resize(size)
        small.save(folder / "spatial" / f"tissue_{name}_image.png")


def add_prediction(adata):
    """Add predicted values, which `pl.expression` draws."""
    adata.obsm["stp_expression"] = np.zeros((adata.n_obs, 1))
    adata.uns["stp_expression"] = {
        "genes": np.array(["EPCAM"], dtype=object),
        "params": {},
        "units": "log1p of counts per 10,000",
    }


def write_pyramid(path: Path, image: np.ndarray, um_per_px: float | None = None) -> None:
    """Write a tiled TIFF with three resolutions, and µm per pixel as a tag if it is known."""
    options = {"tile": (256, 256), "photometric": "rgb"}
    if um_per_px is not None:
        options["resolution"] = (1e4 / um_per_px, 1e4 / um_per_px)
        options["resolutionunit"] = "CENTIMETER"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(image, subifds=2, **options)
        for step in (2, 4):
            tiff.write(image[::step, ::step], subfiletype=1, **options)


def write_hest(
    root: Path,
    sample: str,
    adata: anndata.AnnData,
    image: np.ndarray,
    facts: dict,
    tagged_um: float | None = 0.5,
) -> None:
    """Write a sample of HEST-1k: st/<id>.h5ad with centers in pixels, wsis/, metadata/."""
    for folder in ("st", "wsis", "metadata"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    adata = adata.copy()
    adata.obs["in_tissue"] = 1
    adata.obs["pxl_col_in_fullres"] = adata.obsm["spatial"][:, 0]
    adata.obs["pxl_row_in_fullres"] = adata.obsm["spatial"][:, 1]
    adata.var["mito"] = adata.var_names.str.startswith("MT-")
    reduced = image[::4, ::4]
    scalefactors = {
        "spot_diameter_fullres": 110.0,  # of 55 µm, not of 65 as in files of 10x
        "tissue_downscaled_fullres_scalef": 0.25,
        "tissue_hires_scalef": 0.25,
    }
    images = {"downscaled_fullres": reduced, "hires": reduced}
    adata.uns["spatial"] = {"ST": {"images": images, "scalefactors": scalefactors}}
    adata.write_h5ad(root / "st" / f"{sample}.h5ad")
    write_pyramid(root / "wsis" / f"{sample}.tif", image, tagged_um)
    height, width = image.shape[:2]
    size = {"fullres_px_height": height, "fullres_px_width": width}
    text = json.dumps({"id": sample, "image_filename": f"{sample}.tif"} | size | facts)
    (root / "metadata" / f"{sample}.json").write_text(text)
