"""Files with features as other tools write them."""

from pathlib import Path

import anndata
import geopandas
import h5py
import numpy as np
import pandas as pd
import shapely
import spatialdata
import tifffile
import torch
from spatialdata.models import ShapesModel, TableModel

from stp.models import ImageEncoder, ImageEncoderConfig

# Top left corners of six tiles, as threads finish them: in no order.
CORNERS = np.array([[2, 1], [0, 0], [1, 1], [1, 0], [0, 1], [0, 3]])
SORTED = [1, 3, 4, 2, 0, 5]  # the rows by y, then x


def example_features(n_tiles: int = len(CORNERS), width: int = 8) -> np.ndarray:
    """Return features (n_tiles, width), each row of which is different."""
    return np.random.default_rng(0).normal(size=(n_tiles, width)).astype(np.float32)


def write_katherlab(
    path: Path,
    features: np.ndarray,
    corners: np.ndarray | None = None,
    key: str = "feats",
    **attributes,
) -> Path:
    """Write a file of KatherLab's STAMP."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[key] = features
        if corners is not None:
            file["coords"] = np.asarray(corners, dtype=np.float32)
        file.attrs.update(attributes)
    return path


def katherlab_25(tile_um: float = 256.0, tile_px: int = 224) -> dict:
    """Return the attributes of version 2.5."""
    return {
        "stamp_version": "2.5.0",
        "extractor": "uni",
        "unit": "um",
        "tile_size_um": tile_um,
        "tile_size_px": tile_px,
        "code_hash": "8e1f",
        "feat_type": "tile",
    }


def write_trident(
    path: Path,
    features: np.ndarray,
    corners: np.ndarray,
    magnification: float = 40,
    patch_size: int = 256,
    target: float = 20,
    encoder: str = "uni_v1",
) -> Path:
    """Write a file of TRIDENT: a chunk for each row, corners in pixels of level 0, and no µm."""
    with h5py.File(path, "w") as file:
        chunks = (1, features.shape[1]) if features.ndim == 2 else None
        maxshape = (None, features.shape[1]) if features.ndim == 2 else None
        data = file.create_dataset("features", data=features, chunks=chunks, maxshape=maxshape)
        data.attrs.update({"name": path.stem, "savetodir": "None", "encoder": encoder})
        coords = file.create_dataset("coords", data=np.asarray(corners, dtype=np.int64))
        coords.attrs.update(
            {
                "patch_size": patch_size,
                "patch_size_level0": int(patch_size * magnification // target),
                "level0_magnification": magnification,
                "target_magnification": target,
                "overlap": 0,
                "name": path.stem,
                "savetodir": "None",
                "level0_width": 100_000,
                "level0_height": 80_000,
            }
        )
    return path


def write_clam(path: Path, features: np.ndarray, corners: np.ndarray | None = None) -> Path:
    """Write an HDF5 file of CLAM, which records nothing."""
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=features, chunks=(32, 8), maxshape=(None, 8))
        if corners is not None:
            file["coords"] = np.asarray(corners, dtype=np.int32)
    return path


def write_clam_tensor(path: Path, features: np.ndarray) -> Path:
    """Write a tensor as CLAM saves it."""
    torch.save(torch.from_numpy(features), path)
    return path


def write_lazyslide(
    path: Path,
    features: np.ndarray,
    corners: np.ndarray,
    side: int = 512,
    mpp: float = 0.25,
    models: tuple[str, ...] = ("uni",),
) -> Path:
    """Write a store of LazySlide: features in X, tiles of 256 px at 0.5 µm as polygons."""
    tiles = geopandas.GeoDataFrame(
        {
            "tile_id": np.arange(len(corners)),
            "x": corners[:, 0],
            "y": corners[:, 1],
            "tissue_id": 0,
            "geometry": [shapely.box(x, y, x + side, y + side) for x, y in corners],
        }
    )
    tables = {}
    for model in models:
        obs = pd.DataFrame({"tile_id": np.arange(len(corners))})
        obs["library_id"] = pd.Categorical(["tiles"] * len(corners))
        obs.index = obs.index.astype(str)
        adata = anndata.AnnData(features, obs=obs)
        tables[f"{model}_tiles"] = TableModel.parse(
            adata, region="tiles", region_key="library_id", instance_key="tile_id"
        )
    sdata = spatialdata.SpatialData(shapes={"tiles": ShapesModel.parse(tiles)}, tables=tables)
    seen_mpp = side * mpp / 256
    spec = {"height": 256, "width": 256, "stride_height": 256, "stride_width": 256}
    spec |= {"mpp": seen_mpp, "base_height": side, "base_width": side}
    sdata.attrs["tile_spec"] = {"tiles": spec}
    sdata.attrs["slide_properties"] = {"mpp": mpp}
    sdata.write(path)
    return path


def write_wsi(path: Path, seed: int = 0, side: int = 560, um_per_px: float = 1.0) -> Path:
    """Write a slide of glass with a piece of H&E: pink, with dark nuclei, in its middle."""
    rng = np.random.default_rng(seed)
    pixels = 243 + rng.normal(0, 1.5, (side, side, 3))
    low, high = side // 5, side - side // 5
    is_nucleus = rng.random(((high - low) // 4,) * 2) < 0.35
    is_nucleus = is_nucleus.repeat(4, axis=0).repeat(4, axis=1)[..., None]
    tissue = np.where(is_nucleus, (80, 50, 120), (215, 130, 175))
    pixels[low:high, low:high] = tissue + rng.normal(0, 6, tissue.shape)
    per_cm = 10_000 / um_per_px
    tifffile.imwrite(
        path,
        np.clip(pixels, 0, 255).round().astype(np.uint8),
        photometric="rgb",
        tile=(128, 128),
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
    )
    return path


def tiny_encoder(seed: int = 0) -> ImageEncoder:
    """Return an untrained encoder of patches of 32 px at 3.5 µm, as wide as a tile of 112 µm."""
    size = {"depth": 1, "embed_dim": 32, "num_heads": 2, "patch_size": 16}
    config = ImageEncoderConfig("vit_tiny_patch16_224", size, image_size=32, um_per_px=3.5)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ImageEncoder(config).eval()
