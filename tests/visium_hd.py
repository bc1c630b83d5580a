"""A Visium HD slide as Space Ranger writes it: synthetic tissue, its H&E image, bins of 8 µm."""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse
import tifffile
from PIL import Image
from tests.slides import write_counts

from stp.datasets._counts import draw_counts
from stp.datasets._nuclei import draw_nuclei
from stp.datasets._scan import scan_slide
from stp.datasets._tissue import CELL_UM, DOMAINS, draw_tissue, sample_map

BIN_UM = 8
MARGIN_UM = 60.0  # half a patch
SHARE_OF_SPOT = BIN_UM**2 / (np.pi * 27.5**2)  # of the counts of a spot of Visium
BLOCK_BINS = 10_000


def write_visium_hd(
    folder: Path, n_rows: int, n_cols: int, *, um_per_px: float = 0.5, seed: int = 0
) -> pd.DataFrame:
    """Write `outs` with the bins of 8 µm that are on tissue, and `slide.tif`; return the truth.

    The law of form and expression is that of `stp.datasets.synthetic_visium`.
    """
    layout_rng, nuclei_rng, scan_rng, counts_rng = np.random.default_rng(seed).spawn(4)
    row, col = (axis.ravel() for axis in np.mgrid[:n_rows, :n_cols])
    centers = (np.column_stack([col, row]) + 0.5) * BIN_UM + MARGIN_UM
    size_um = np.array([n_rows, n_cols]) * BIN_UM + 2 * MARGIN_UM
    tissue = draw_tissue(layout_rng, tuple(np.ceil(size_um / CELL_UM).astype(int)))
    bins = pd.DataFrame(sample_map(tissue.shares, centers).T, columns=DOMAINS)
    bins["domain"] = bins[DOMAINS].idxmax(axis=1)
    bins["activity"] = sample_map(tissue.activity, centers)
    bins[["array_row", "array_col"]] = np.column_stack([row, col])
    bins[["x", "y"]] = centers / um_per_px
    bins.index = [f"s_008um_{r:05}_{c:05}-1" for r, c in zip(row, col, strict=True)]
    bins = bins[sample_map(tissue.mask, centers) == 1]
    nuclei = draw_nuclei(nuclei_rng, tissue)
    shape = tuple(np.ceil(size_um / um_per_px).astype(int))
    image = scan_slide(scan_rng, tissue, nuclei, shape, um_per_px).transpose(1, 2, 0)
    outs = folder / "outs" / "binned_outputs" / "square_008um"
    (outs / "spatial").mkdir(parents=True)
    write_counts(outs / "filtered_feature_bc_matrix.h5", _draw_bins(counts_rng, bins))
    _write_places(outs / "spatial", bins, image, um_per_px)
    tifffile.imwrite(folder / "slide.tif", image, tile=(512, 512), photometric="rgb")
    return bins


def _draw_bins(rng: np.random.Generator, bins: pd.DataFrame) -> anndata.AnnData:
    """Draw the counts of bins: a spot of Visium holds the counts of 37 bins."""
    blocks = []
    for start in range(0, len(bins), BLOCK_BINS):
        block = draw_counts(rng, bins.iloc[start : start + BLOCK_BINS])
        # A binomial part of counts is that of a smaller area.
        block.X.data = rng.binomial(block.X.data.astype(int), SHARE_OF_SPOT).astype(np.float32)
        block.X.eliminate_zeros()
        blocks.append(block)
    counts = scipy.sparse.vstack([block.X for block in blocks], format="csr")
    spatial = bins[["x", "y"]].to_numpy()
    obs = pd.DataFrame(index=bins.index)
    return anndata.AnnData(counts, obs=obs, var=blocks[0].var, obsm={"spatial": spatial})


def _write_places(folder: Path, bins: pd.DataFrame, image: np.ndarray, um_per_px: float) -> None:
    positions = pd.DataFrame({"barcode": bins.index, "in_tissue": 1})
    positions[["array_row", "array_col"]] = bins[["array_row", "array_col"]].to_numpy()
    positions["pxl_row_in_fullres"] = bins["y"].to_numpy()
    positions["pxl_col_in_fullres"] = bins["x"].to_numpy()
    positions.to_parquet(folder / "tissue_positions.parquet", index=False)
    factors = {"spot_diameter_fullres": BIN_UM / um_per_px, "bin_size_um": float(BIN_UM)}
    factors |= {"microns_per_pixel": um_per_px, "regist_target_img_scalef": 0.5}
    factors |= {"tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.1}
    factors["fiducial_diameter_fullres"] = 100.0
    (folder / "scalefactors_json.json").write_text(json.dumps(factors))
    for name, step in (("hires", 2), ("lowres", 10)):
        picture = Image.fromarray(np.ascontiguousarray(image[::step, ::step]))
        picture.save(folder / f"tissue_{name}_image.png")
