"""One synthetic slide whose color follows expression, its store, and a tiny Stamp trained on nothing."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of each of the processes that share the tests

import anndata
import matplotlib
import numpy as np
import pytest
import tifffile
from tests.slides import FILLERS, GENES, make_slide, write_space_ranger

matplotlib.use("Agg")

SHARED = Path(__file__).parents[2] / "shared"
# Where the folders of real data come from.
SOURCES = {
    "cohorts": "github.com/mahmoodlab/SurvPath",
    "dlpfc": "Maynard et al. 2021",
    "genes": "features.tsv.gz of the 10x references GRCh38 3.0.0 and 2020-A",
    "genesets": "MSigDB and Reactome",
    "her2st": "github.com/almaan/her2st (Andersson et al. 2021)",
    "mob_st": "github.com/tare/Splotch (Ståhl et al. 2016)",
    "other_st": "Ståhl et al. 2016, Thrane et al. 2018 and Moncada et al. 2020",
    "xenium_lung": "10x Xenium, human lung",
}
LONGEST = [
    "test_demo.py",
    "test_processes.py",
    "test_golden.py",
    "test_benchmarks.py",
    "test_embed.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that take longest, so that no process ends alone, and the demo, which others wait for."""
    items.sort(
        key=lambda item: (
            LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST)
        )
    )


def needs(*parts: str) -> pytest.MarkDecorator:
    """Skip where real data are absent."""
    path = SHARED.joinpath(*parts)
    return pytest.mark.skipif(not path.exists(), reason=f"{path} is absent")


@pytest.fixture(scope="session")
def slide_of():
    """Make the slide of another seed: table and image."""
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


@pytest.fixture
def sdata(adata, image):
    from stp.io import from_anndata

    return from_anndata(adata, image, um_per_px=1.0)


@pytest.fixture(scope="session")
def stores(tmp_path_factory) -> list[Path]:
    """Three stores at 4 um per pixel: two to train on, one to validate."""
    from stp.io import from_anndata, write_store

    folder = tmp_path_factory.mktemp("stores")
    paths = [folder / f"slide{seed}.zarr" for seed in range(3)]
    for seed, path in enumerate(paths):
        adata, image = make_slide(seed)
        write_store(from_anndata(adata, image, um_per_px=1.0), path, patch_um_per_px=4.0)
    return paths


@pytest.fixture(scope="session")
def vocabulary(stores):
    from stp import Vocabulary

    default = Vocabulary.default()
    index = default.encode(GENES + FILLERS)
    return Vocabulary.from_genes(default.gene_ids[index], default.symbols[index]).fit(stores)


@pytest.fixture
def ranked(tmp_path_factory, vocabulary):
    """Rank the spots of opened stores into a file of their own."""
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
    """The smallest Stamp that still has every part: 32 px patches of 8 px tokens at 4 um per pixel."""
    from stp.models import GeneEncoderConfig, ImageEncoderConfig, StampConfig

    gene = GeneEncoderConfig(context_length=32, width=32, depth=2, n_heads=2, ffn_width=64)
    backbone = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    image = ImageEncoderConfig("vit_tiny_patch16_224", backbone, image_size=32, um_per_px=4.0)
    return StampConfig(gene, image, projection_width=32)


@pytest.fixture
def stamp(tiny_config, vocabulary):
    import torch

    from stp.models import Stamp

    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Stamp(tiny_config, vocabulary).eval()


@pytest.fixture(scope="session")
def real():
    """Find a file of the real data; skip where it is absent."""

    def find(*parts: str) -> Path:
        path = SHARED.joinpath("data", *parts)
        if not path.exists():
            source = SOURCES.get(parts[0], "public repositories")
            pytest.skip(f"{path} is absent; the data come from {source}")
        return path

    return find


@pytest.fixture(scope="session")
def golden() -> Path:
    """Find the values computed with the authors' code; skip where they are absent."""
    path = SHARED / "reference" / "golden"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


@pytest.fixture
def made_by():
    """Say in a table which model made its embeddings, where a test draws them at random."""

    def say(adata, *keys, name="model", digest="0" * 64):
        for key in keys:
            adata.uns[key] = {
                "model": {"name": name, "class": "Stamp", "digest": digest, "vocabulary": None}
            }

    return say


@pytest.fixture
def embedded(sdata, stamp):
    """Annotate the slide with tokens and both embeddings of the tiny Stamp."""
    from stp import tl

    tl.tokenize(sdata, stamp, context_length=32)
    tl.embed_genes(sdata, stamp)
    tl.embed_images(sdata, stamp)
    return sdata


@pytest.fixture
def space_ranger(adata, image, tmp_path) -> Path:
    """Make a Space Ranger folder, and its full-resolution slide beside it."""
    folder = tmp_path / "sample"
    write_space_ranger(folder, adata, image)
    tifffile.imwrite(tmp_path / "full.tif", image, tile=(256, 256), photometric="rgb")
    return folder


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    """Run `stp demo` as a user does; STP_DEMO names a folder where it has run, and saves three minutes."""
    if done := os.environ.get("STP_DEMO"):
        return Path(done)
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # which all processes have
    folder = base / "demo"
    with (base / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "summary.json").exists():
            command = [Path(sys.executable).with_name("stp"), "demo", "--out", folder]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            assert run.returncode == 0, run.stdout + run.stderr
    return folder


@pytest.fixture(scope="session")
def workplace(demo, tmp_path_factory) -> Path:
    """Lay out the folder in which pages, examples and tutorials run: the demo, a slide, Space Ranger folders."""
    import spatialdata
    from PIL import Image

    folder = tmp_path_factory.mktemp("workplace")
    shutil.copytree(demo, folder / "demo", ignore=shutil.ignore_patterns("resume*"))
    image = spatialdata.read_zarr(demo / "stores" / "held_out.zarr").images["image"]["scale0"].image
    picture = Image.fromarray(image.transpose("y", "x", "c").to_numpy())
    picture.resize([round(1.75 * n) for n in picture.size]).save(
        folder / "slide.tif"
    )  # 1 um per pixel
    adata, image = make_slide()
    write_space_ranger(folder / "slide" / "outs", adata, image)
    Image.fromarray(image).save(folder / "slide" / "full_resolution.tif")
    finer, twice = adata.copy(), image.repeat(2, 0).repeat(2, 1)  # 0.5 um per pixel
    finer.obsm["spatial"] *= 2
    for name in "abcd":
        write_space_ranger(folder / name / "outs", finer, twice, um_per_px=0.5)
        Image.fromarray(twice).save(folder / name / "full_resolution.tif")
    (folder / "public").mkdir()  # as squidpy leaves what it fetched
    public = folder / "public" / "V1_Breast_Cancer_Block_A_Section_1"
    shutil.copytree(folder / "slide" / "outs", public)
    Image.fromarray(image).save(public / "image.tif")
    return folder


@pytest.fixture
def names(workplace, monkeypatch) -> dict:
    """Name what all pages take as given: the demo's held-out slide, a part of its spots, and the demo's Stamp."""
    import scanpy
    import spatialdata

    import stp

    monkeypatch.chdir(workplace)
    sdata = spatialdata.read_zarr("demo/stores/held_out.zarr")
    sdata.tables["table"] = sdata.tables["table"][::4].copy()
    model = stp.models.Stamp.from_pretrained("demo/stamp")
    given = {"stp": stp, "sc": scanpy, "spatialdata": spatialdata, "sdata": sdata, "model": model}
    return given | {"adata": sdata.tables["table"].copy(), "vocabulary": model.vocabulary}


# Threads of torch that wait must not spin: beside other processes on the same cores a step takes fifty times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
