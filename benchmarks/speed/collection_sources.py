"""Sources of a collection: small sections, each with other counts, another crop and another stain.

Sections of HER2+ tumors are used, or synthetic slides without `data`. Images are tiled TIFF files.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import scipy.sparse
import tifffile
from PIL import Image

import stp

SECTIONS = ("C2", "C3", "C4", "C5", "C6")
PATCH_UM_PER_PX = 1.4  # a store then has at most 20 MB
SIDE = 6400  # pixels of a crop, which holds the tissue of each section
MAX_OFFSET = 200  # pixels
KEPT = 0.9  # share of the UMIs
STAIN = 0.08  # largest relative change of a color
TILE = 512
COLUMNS = ("name", "path", "image", "um_per_px", "patch_um_per_px", "patient", "organ", "source")


class Section(NamedTuple):
    """A slide that is repeated."""

    name: str
    table: anndata.AnnData  # `obsm["spatial"]` are pixels of the image
    image: np.ndarray
    um_per_px: float
    patch_um_per_px: float


def write_sources(data: Path | None, folder: Path, n_stores: int) -> Path:
    """Write the sources that are missing, and return the manifest of all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"s{number:04d}" for number in range(n_stores)]
    n_sections = len(SECTIONS)
    rows = []
    for start in range(min(n_sections, n_stores)):
        missing = [name for name in names[start::n_sections] if not _is_written(folder, name)]
        section = _read_section(data, start)
        for name in missing:
            _write_source(section, folder, name)
        for name in names[start::n_sections]:
            scales = (section.um_per_px, section.patch_um_per_px)
            patient = f"{section.name}-{name}"
            rows.append((name, f"{name}.h5ad", f"{name}.tif", *scales, patient, "breast", "jitter"))
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *sorted(rows)])
    return manifest


def list_sources(manifest: Path) -> Iterator[tuple[str, Path, Path]]:
    """Yield name, counts and image of each source."""
    with manifest.open(newline="") as file:
        for row in csv.DictReader(file):
            yield row["name"], manifest.parent / row["path"], manifest.parent / row["image"]


def _is_written(folder: Path, name: str) -> bool:
    return (folder / f"{name}.h5ad").exists()  # it is written last


def _read_section(data: Path | None, number: int) -> Section:
    """Return a section with the part of its image that holds the tissue."""
    name = SECTIONS[number]
    if data is None:
        sdata = stp.datasets.synthetic_visium(seed=number, n_rows=8, n_cols=8)
        image = np.asarray(sdata.images["slide_full_image"]).transpose(1, 2, 0)
        return Section(name, sdata.tables["table"], np.ascontiguousarray(image), 1.0, 1.75)
    table = anndata.read_h5ad(data / f"{name}.h5ad")
    image = np.asarray(Image.open(data / f"{name}.jpg").convert("RGB"))
    return Section(name, table, image, float(table.uns["um_per_px"]), PATCH_UM_PER_PX)


def _write_source(section: Section, folder: Path, name: str) -> None:
    """Write counts and image of a section after some jitter, which depends on the name alone."""
    rng = np.random.default_rng(int(name[1:]))
    corner, image = _crop(section, rng)
    stain = rng.uniform(1 - STAIN, 1 + STAIN, 3).astype(np.float32)
    image = np.clip(image * stain, 0, 255).astype(np.uint8)
    options = {"compression": "jpeg", "photometric": "rgb", "tile": (TILE, TILE)}
    tifffile.imwrite(folder / f"{name}.tif", image, **options)
    counts = scipy.sparse.csr_matrix(section.table.X)
    counts.data = rng.binomial(counts.data.astype(np.int64), KEPT).astype(np.float32)
    counts.eliminate_zeros()
    table = anndata.AnnData(counts, section.table.obs[[]].copy(), section.table.var[[]].copy())
    table.obsm["spatial"] = section.table.obsm["spatial"] - corner
    table.write_h5ad(folder / f"{name}.h5ad", compression="gzip")


def _crop(section: Section, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the corner (x, y) of a crop that has all spots, and its pixels."""
    xy = section.table.obsm["spatial"]
    center = (xy.min(axis=0) + xy.max(axis=0)) / 2 + rng.integers(-MAX_OFFSET, MAX_OFFSET, 2)
    height, width = section.image.shape[:2]
    side = np.minimum(SIDE, (width, height))
    corner = np.clip(center - side / 2, 0, (width, height) - side).astype(int)
    x, y = corner
    return corner, section.image[y : y + side[1], x : x + side[0]]
