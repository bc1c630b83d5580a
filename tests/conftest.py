"""What tests share: a synthetic slide, stores, a tiny untrained Stamp, the demo, and real data."""

import copy
import fcntl
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

# Two processes share the tests and two cores; see addopts in pyproject.toml.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Torch threads that wait must not spin: next to another process a step takes fifty times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import anndata
import matplotlib
import numpy as np
import pytest
import tifffile
from tests import r_tables
from tests.cohorts import write_cohort
from tests.servers import S3, Server
from tests.slides import (
    FILLERS,
    GENES,
    HEST_FACTS,
    make_slide,
    write_hest,
    write_space_ranger,
)
from tests.visium_hd import write_visium_hd

matplotlib.use("Agg")

# Real data are not part of the repository. Tests look for them in a folder next to the checkout.
SHARED = Path(__file__).parents[2] / "shared"
SOURCES = {
    "her2st": "HER2+ breast tumors: Andersson et al. 2021, zenodo.org/records/4751624",
    "dlpfc": "prefrontal cortex: Maynard et al. 2021, research.libd.org/spatialLIBD",
    "other_st": "breast: Ståhl et al. 2016; melanoma: Thrane et al. 2018; pancreas: GEO GSE111672",
    "xenium_lung": "human lung: NCBI858 of HEST-1k, huggingface.co/datasets/MahmoodLab/hest",
    "wsi": "small slides: openslide.cs.cmu.edu/download/openslide-testdata, portal.gdc.cancer.gov",
    "genes": "features.tsv.gz of the 10x references GRCh38 3.0.0 and 2020-A: 10xgenomics.com",
    "genesets": "gene sets: reactome.org and gsea-msigdb.org",
    "cohorts": "TCGA tables of SurvPath: github.com/mahmoodlab/SurvPath",
    "mob_st": "mouse olfactory bulb: Ståhl et al. 2016, github.com/tare/Splotch",
    "space_ranger": "folders in the tests of Seurat, scanpy, Spaniel, VisiumIO, SpatialExperiment "
    "and SpatialFeatureExperiment, on GitHub",
    "golden": "values of the authors' code and files of their release: github.com/Hanminghao/STAMP",
}
HELD_OUT = "demo/stores/held_out.zarr"
STORE_UM_PER_PX = 1.75  # of the stores of the demo
LONGEST = [
    "test_demo.py",
    "test_processes.py",
    "test_slide_processes.py",
    "test_golden.py",
    "test_pages.py",
    "test_benchmarks.py",
    "test_write_collection.py",
    "test_embed.py",
    "test_neighbors.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the demo, for which other tests wait, and with the files that take longest.

    Otherwise one process would end long before the other.
    """
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def slide_of():
    """Return the function that makes the slide of a seed: table and image."""
    return make_slide


@pytest.fixture(scope="session")
def _slide():
    return make_slide()


@pytest.fixture
def adata(_slide) -> anndata.AnnData:
    return _slide[0].copy()


@pytest.fixture
def image(_slide) -> np.ndarray:
    return _slide[1]


@pytest.fixture(scope="session")
def _sdata(_slide):
    from stp.io import from_anndata

    adata, image = _slide
    return from_anndata(adata.copy(), image, um_per_px=1.0)


@pytest.fixture
def sdata(_sdata):
    return copy_slide(_sdata)


def copy_slide(sdata):
    """Return a copy that a test may change. Pixels are shared; transformations are not."""
    import spatialdata

    return spatialdata.SpatialData(
        images={name: image.copy(deep=True) for name, image in sdata.images.items()},
        shapes={name: shapes.copy() for name, shapes in sdata.shapes.items()},
        tables={name: table.copy() for name, table in sdata.tables.items()},
        attrs=copy.deepcopy(sdata.attrs),
    )


@pytest.fixture(scope="session")
def stores(tmp_path_factory) -> list[Path]:
    """Write three stores at 4 µm per pixel: two to train on, one to validate."""
    from stp.io import from_anndata, write_store

    folder = tmp_path_factory.mktemp("stores")
    paths = [folder / f"slide{seed}.zarr" for seed in range(3)]
    for seed, path in enumerate(paths):
        adata, image = make_slide(seed)
        write_store(from_anndata(adata, image, um_per_px=1.0), path, patch_um_per_px=4.0)
    return paths


@pytest.fixture
def cache(tmp_path) -> Iterator[Path]:
    """Download into a folder of the test."""
    from stp import settings

    former = settings.cache_dir
    settings.cache_dir = tmp_path / "cache"
    yield settings.cache_dir
    settings.cache_dir = former


@pytest.fixture
def web(stores, tmp_path) -> Iterator[Server]:
    """A web server of the folder of the stores, which a test starts."""
    server = Server(tmp_path / "web.requests", stores[0].parent)
    yield server
    server.kill()


@pytest.fixture(scope="session")
def _s3(tmp_path_factory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("s3") / "requests")
    yield server.start()
    server.kill()


@pytest.fixture
def s3(_s3, monkeypatch) -> S3:
    """An empty bucket of an S3 server that all tests share."""
    _s3.forget()
    return S3(_s3, monkeypatch)


@pytest.fixture
def own_s3(tmp_path, monkeypatch) -> Iterator[S3]:
    """A bucket of an S3 server that only this test starts and kills."""
    server = Server(tmp_path / "s3.requests").start()
    yield S3(server, monkeypatch)
    server.kill()


@pytest.fixture(scope="session")
def vocabulary(stores):
    from stp import Vocabulary

    default = Vocabulary.default()
    index = default.encode(GENES + FILLERS)
    return Vocabulary.from_genes(default.gene_ids[index], default.symbols[index]).fit(stores)


@pytest.fixture
def ranked(tmp_path_factory, vocabulary):
    """Return a function that ranks the spots of opened stores into a new file."""
    from stp.data.ranking import rank_stores
    from stp.data.spot_file import SpotFile

    def rank(stores, context_length):
        path = tmp_path_factory.mktemp("tokens") / "tokens"
        file = SpotFile(path, [len(store) for store in stores], context_length)
        file.create()
        rank_stores(stores, vocabulary, file)
        return file

    return rank


@pytest.fixture(scope="session")
def tiny_config():
    """Return the smallest config with every part: 32 px patches at 4 µm per pixel, 8 px tokens."""
    from stp.models import GeneEncoderConfig, ImageEncoderConfig, StampConfig

    gene = GeneEncoderConfig(context_length=32, width=32, depth=2, n_heads=2, ffn_width=64)
    backbone = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    image = ImageEncoderConfig("vit_tiny_patch16_224", backbone, image_size=32, um_per_px=4.0)
    return StampConfig(gene, image, projection_width=32)


@pytest.fixture
def stamp(tiny_config, vocabulary):
    return make_stamp(tiny_config, vocabulary)


def make_stamp(tiny_config, vocabulary):
    import torch

    from stp.models import Stamp

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Stamp(tiny_config, vocabulary).eval()


@pytest.fixture(scope="session")
def real():
    """Return a function that finds a file of the real data, or skips the test."""

    def find(*parts: str) -> Path:
        return find_or_skip(SHARED.joinpath("data", *parts), SOURCES[parts[0]])

    return find


@pytest.fixture(scope="session")
def golden() -> Path:
    """Find the values computed with the authors' code, or skip the test."""
    return find_or_skip(SHARED / "reference" / "golden", SOURCES["golden"])


def find_or_skip(path: Path, source: str) -> Path:
    """Return a path, or skip the test with a message that says where the data come from."""
    if not path.exists():
        pytest.skip(f"needs {source}; looked for {path}")
    return path


@pytest.fixture
def record_model():
    """Return a function that records in a table which model made its embeddings.

    Tests use it if they draw embeddings at random.
    """

    def record(adata, *keys, name="model", digest="0" * 64):
        for key in keys:
            model = {"name": name, "class": "Stamp", "digest": digest, "vocabulary": None}
            adata.uns[key] = {"model": model}

    return record


@pytest.fixture(scope="session")
def _embedded(_sdata, tiny_config, vocabulary):
    from stp import tl

    sdata = copy_slide(_sdata)
    stamp = make_stamp(tiny_config, vocabulary)
    tl.tokenize(sdata, stamp, context_length=32)
    tl.embed_genes(sdata, stamp)
    tl.embed_images(sdata, stamp)
    return sdata


@pytest.fixture
def embedded(_embedded):
    """Return the slide with tokens and both embeddings of the tiny Stamp."""
    return copy_slide(_embedded)


@pytest.fixture
def space_ranger(adata, image, tmp_path) -> Path:
    """Write a Space Ranger folder, and the full-resolution slide next to it."""
    folder = tmp_path / "sample"
    write_space_ranger(folder, adata, image)
    tifffile.imwrite(tmp_path / "full.tif", image, tile=(256, 256), photometric="rgb")
    return folder


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """Run `stp demo`, or use the folder of an earlier run that STP_DEMO names."""
    if earlier_run := os.environ.get("STP_DEMO"):
        return Path(earlier_run)
    from stp.cli.main import main

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # this folder is the same for all processes
    folder = base / "demo"
    with (base / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "summary.json").exists():
            with warnings.catch_warnings():
                warnings.simplefilter("default")  # as for a user; in tests they are errors
                assert main(["demo", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def workplace(demo, tmp_path_factory) -> Path:
    """Make the folder in which pages, examples and tutorials run.

    It holds the demo, a slide at 1 µm per pixel, Space Ranger folders, also one of Visium HD, a
    sample of HEST, tables of R, and a cohort.
    """
    import spatialdata
    from PIL import Image

    folder = tmp_path_factory.mktemp("workplace")
    shutil.copytree(demo, folder / "demo", ignore=shutil.ignore_patterns("resume*"))
    held_out = spatialdata.read_zarr(demo / "stores" / "held_out.zarr")
    _write_r_tables(folder, held_out.tables["table"][::4].copy())
    image = held_out.images["image"]["scale0"].image
    picture = Image.fromarray(image.transpose("y", "x", "c").to_numpy())
    size = [round(STORE_UM_PER_PX * n_pixels) for n_pixels in picture.size]
    picture.resize(size).save(folder / "slide.tif")
    adata, image = make_slide()
    write_space_ranger(folder / "slide" / "outs", adata, image)
    write_cohort(folder / "features")
    Image.fromarray(image).save(folder / "slide" / "full_resolution.tif")
    # The same slide at 0.5 µm per pixel.
    fine_adata = adata.copy()
    fine_adata.obsm["spatial"] *= 2
    fine_image = image.repeat(2, axis=0).repeat(2, axis=1)
    for name in "abcd":
        write_space_ranger(folder / name / "outs", fine_adata, fine_image, um_per_px=0.5)
        Image.fromarray(fine_image).save(folder / name / "full_resolution.tif")
    write_hest(folder / "hest", "TENX95", fine_adata, fine_image, HEST_FACTS)
    write_visium_hd(folder / "visium_hd", 44, 44, um_per_px=1.0)
    r_tables.meta_data(adata).to_csv(folder / "meta_data.csv")
    # A folder as squidpy.datasets.visium leaves it.
    (folder / "public").mkdir()
    public = folder / "public" / "V1_Breast_Cancer_Block_A_Section_1"
    shutil.copytree(folder / "slide" / "outs", public)
    Image.fromarray(image).save(public / "image.tif")
    return folder


def _write_r_tables(folder: Path, adata: anndata.AnnData) -> None:
    """Write a table as converters of R objects write it, and the coordinates of Seurat."""
    r_tables.seurat_coordinates(adata).to_csv(folder / "coordinates.csv")
    for convert in (
        r_tables.seurat_disk,
        r_tables.sceasy,
        r_tables.spatial_experiment,
        r_tables.anndata_r,
    ):
        convert(adata).write_h5ad(folder / f"{convert.__name__}.h5ad")


@pytest.fixture(autouse=True)
def what_is_logged() -> Iterator[None]:
    """Log as much in each test, whatever the test before did to the logger."""
    logging.getLogger("stp").setLevel("INFO")
    yield


@pytest.fixture(scope="session")
def _page_data(workplace) -> dict:
    """Read what pages and examples start from: the demo's held-out slide, its Stamp, a cohort."""
    import spatialdata

    import stp

    sdata = spatialdata.read_zarr(workplace / HELD_OUT)
    sdata.tables["table"] = sdata.tables["table"][::4].copy()
    return {
        "sdata": sdata,
        "model": stp.models.Stamp.from_pretrained(workplace / "demo" / "stamp"),
        "cohort": stp.io.read_cohort(
            workplace / "features/slides.csv", root=workplace / "features"
        ),
    }


@pytest.fixture
def names(workplace, _page_data, monkeypatch) -> dict:
    """Return the variables of all pages: a quarter of the demo's held-out slide, its Stamp.

    Each test may change them.
    """
    import pandas
    import scanpy
    import spatialdata

    import stp

    monkeypatch.chdir(workplace)
    sdata = copy_slide(_page_data["sdata"])
    sdata.path = Path(HELD_OUT)
    model = copy.deepcopy(_page_data["model"])
    return {
        "stp": stp,
        "pd": pandas,
        "sc": scanpy,
        "spatialdata": spatialdata,
        "sdata": sdata,
        "adata": sdata.tables["table"].copy(),
        "model": model,
        "vocabulary": model.vocabulary,
        "cohort": _page_data["cohort"].copy(),
    }
