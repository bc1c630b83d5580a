"""Many slides, each into a tile store: skipped, done again, killed, and divided."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
import spatialdata
import torch
from tests.features import tiny_encoder, write_wsi

from stp import tl
from stp.data.feature_files import open_features
from stp.io import read_wsi, tile_slides
from stp.models import GeneEncoder

TORCHRUN = Path(sys.executable).with_name("torchrun")
TILE_UM = 112
N_KILLS = 4


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


@pytest.fixture
def slides(tmp_path):
    return [write_wsi(tmp_path / f"slide{number}.tif", seed=number) for number in range(2)]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "tiles"


def tile(paths, out, model, **options):
    return tile_slides(paths, out, model=model, tile_um=TILE_UM, progress=False, **options)


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def write_tissue(folder, name, shape):
    folder.mkdir(exist_ok=True)
    feature = {"type": "Feature", "geometry": shapely.geometry.mapping(shape)}
    (folder / f"{name}.geojson").write_text(json.dumps(feature))


def test_each_slide_becomes_a_store_of_its_embedded_tiles(slides, out, encoder):
    table = tile(slides, out, encoder)
    assert list(table["name"]) == ["slide0", "slide1"]
    assert list(table["status"]) == ["written", "written"]
    assert list(table["error"]) == ["", ""]
    for path, row in zip(slides, table.itertuples(), strict=True):
        expected = read_wsi(path, tile_um=TILE_UM)
        tl.embed_images(expected, encoder, progress=False)
        file = open_features(row.store)
        assert row.path == str(path)
        assert file.n_tiles == row.n_tiles == expected["table"].n_obs > 0
        np.testing.assert_array_equal(file.read(), expected["table"].obsm["X_stp_images"])
        assert file.model["digest"] == encoder.digest
        assert spatialdata.read_zarr(row.store).attrs["stp_slide"]["path"] == str(path)
    written = lines(out / "tiles.jsonl")
    assert [line["name"] for line in written] == ["slide0", "slide1"]
    assert [line["n_tiles"] for line in written] == list(table["n_tiles"])
    assert written[0]["model"]["digest"] == encoder.digest


def test_a_finished_slide_is_skipped_until_something_changes(slides, out, encoder):
    path = slides[0]
    tissue = out.with_name("tissue")
    write_tissue(tissue, "slide0", shapely.box(112, 112, 448, 448))

    def status(model=encoder, **options):
        (row,) = tile(path, out, model, **options).to_dict("records")
        return row["status"], row["n_tiles"]

    assert status() == ("written", 9)
    assert status() == ("skipped", 9)
    assert status(precision="fp32") == ("skipped", 9)
    assert status(precision="bf16") == ("written", 9)
    assert status() == ("skipped", 9)
    assert status(min_tissue=0.9) == ("written", 9)
    assert status(min_tissue=0.9, um_per_px=1.0) == ("written", 9)
    assert status(min_tissue=0.9, um_per_px=1.0) == ("skipped", 9)
    assert status(tissue=tissue) == ("written", 9)
    assert status(tissue=tissue) == ("skipped", 9)
    write_tissue(tissue, "slide0", shapely.box(112, 112, 336, 448))
    assert status(tissue=tissue) == ("written", 6)
    assert status(tiny_encoder(seed=1), tissue=tissue) == ("written", 6)
    os.utime(path, ns=(0, 0))
    assert status(tiny_encoder(seed=1), tissue=tissue) == ("written", 6)
    moved = path.rename(path.parent / "moved.tif").rename(path)
    assert moved == path
    assert status(tiny_encoder(seed=1), tissue=tissue) == ("skipped", 6)


def test_a_slide_that_fails_does_not_stop_the_others(slides, out, encoder):
    glass = write_wsi(slides[0].with_name("glass.tif"), side=80)
    damaged = slides[0].with_name("damaged.tif")
    damaged.write_bytes(slides[0].read_bytes()[:1000])
    with pytest.warns(UserWarning, match=r"2 of 3 slides failed; .*tiles\.jsonl and the column"):
        table = tile([glass, damaged, slides[1]], out, encoder)
    assert list(table["status"]) == ["failed", "failed", "written"]
    assert table["error"][0].startswith("ValueError: no tile of 112 µm")
    assert "damaged.tif" in table["error"][1]
    assert [line["error"] for line in lines(out / "tiles.jsonl")] == list(table["error"])
    assert {file.name for file in out.iterdir()} == {"slide1.zarr", "tiles.jsonl"}


def test_everything_that_is_wrong_is_listed_before_work(slides, out, encoder, tmp_path):
    (tmp_path / "other").mkdir()
    same_name = write_wsi(tmp_path / "other" / "SLIDE0.tiff")
    tissue = out.with_name("tissue")
    write_tissue(tissue, "slide0", shapely.box(0, 0, 1, 1))
    with pytest.raises(ValueError, match="because of 5 faults") as caught:
        tile(
            [*slides, same_name, tmp_path / "a.svs", tmp_path / "b.svs"],
            out,
            encoder,
            tissue=tissue,
            min_tissue=0,
            batch_size=0,
        )
    message = str(caught.value)
    assert f"no slides at {tmp_path / 'a.svs'}, {tmp_path / 'b.svs'}; check" in message
    assert f"{slides[0]} and {same_name} would have one store" in message
    assert "slide1.geojson" in message
    assert "min_tissue is a share" in message
    assert "batch_size must be positive" in message
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"um_per_px": -1}, "um_per_px must be positive, not -1"),
        ({"tissue": "slide0.tif"}, "slide0.tif is no folder"),
        ({"manifest": "."}, ". is a folder; give a file for the manifest"),
        ({"precision": "fp8"}, "fp8"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(options, message, slides, out, encoder):
    with pytest.raises(ValueError, match=message):
        tile(slides, out, encoder, **options)


def test_what_is_no_tile_store_is_not_replaced(slides, out, encoder, stores):
    out.mkdir()
    (out / "slide1.zarr").mkdir()
    (out / "slide0.zarr").symlink_to(stores[0])
    with pytest.raises(ValueError, match="2 faults") as caught:
        tile(slides, out, encoder)
    assert "slide0.zarr is a store, but no tile store" in str(caught.value)
    assert "slide1.zarr exists and is no store" in str(caught.value)


def test_a_model_of_genes_is_refused(slides, out, stamp):
    assert isinstance(stamp.gene_encoder, GeneEncoder)
    with pytest.raises(ValueError, match="reads no images, and tiles have nothing else"):
        tile(slides, out, stamp.gene_encoder)


def test_a_stamp_adds_aligned_vectors(slides, out, stamp):
    tile(slides[0], out, stamp)
    assert open_features(out / "slide0.zarr", use_rep="X_stp_images_aligned").width == 32


# One process imports everything; its forks tile the slides. A fork can be killed after a number of
# writes into the folder of the stores.
DRIVER = """
import os, signal, sys
import spatialdata, timm
import stp.io._tile_slides_checks
from stp.io import tile_slides
from stp.models import ImageEncoder
model_folder, out, *paths = sys.argv[1:]
CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir")
writes = 0
last = float("inf")

def watch(event, values):
    global writes
    writing = event == "open" and values[2] & (os.O_WRONLY | os.O_RDWR)
    if (event in CHANGES or writing) and str(values[0]).startswith(out):
        writes += 1
        if writes > last:
            os.kill(os.getpid(), signal.SIGKILL)

model = ImageEncoder.from_pretrained(model_folder)
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        last = float(line)
        sys.addaudithook(watch)
        tile_slides(paths, out, model=model, tile_um=112, progress=False)
        print(writes, flush=True)
        os._exit(0)
    if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
        print("killed", flush=True)
"""


@pytest.fixture
def driver(slides, out, encoder, tmp_path):
    encoder.save_pretrained(tmp_path / "model")
    command = [sys.executable, "-c", DRIVER, tmp_path / "model", out, *slides]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(list(map(str, command)), **pipes, env=environment) as process:
        assert process.stdout.readline() == "ready\n"

        def run(writes):
            """Run until so many writes are done; return their number, or "killed"."""
            process.stdin.write(f"{writes}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        yield run
        process.stdin.close()


@pytest.mark.extended
def test_a_call_that_was_killed_is_continued_with_whole_stores(slides, out, encoder, driver):
    expected = tile(slides, out.with_name("expected"), encoder)
    n_writes = None
    for number in range(N_KILLS):
        # The first kill is early in the first slide, the last ones are in the second slide.
        n_allowed = 5 if n_writes is None else n_writes
        assert driver(n_allowed) == "killed"
        for store in out.glob("*.zarr"):
            assert open_features(store).n_tiles == 9
            open_features(store).read()
        n_writes = 5 + 60 * (number + 1)
    assert int(driver(10**9)) > 0
    for row in expected.itertuples():
        features = open_features(out / f"{row.name}.zarr").read()
        np.testing.assert_array_equal(features, open_features(row.store).read())
    assert {file.name for file in out.iterdir()} == {"slide0.zarr", "slide1.zarr", "tiles.jsonl"}
    assert list(tile(slides, out, encoder)["status"]) == ["skipped", "skipped"]


TWO_PROCESSES = """
import sys
from stp.io import tile_slides
model, out, *paths = sys.argv[1:]
table = tile_slides(paths, out, model=model, tile_um=112, device="cpu", progress=False)
print(",".join(table["name"] + "=" + table["status"]), flush=True)
"""


@pytest.mark.extended
def test_processes_under_torchrun_divide_the_slides_and_know_all(slides, out, encoder, tmp_path):
    encoder.save_pretrained(tmp_path / "model")
    script = tmp_path / "tile.py"
    script.write_text(TWO_PROCESSES)
    damaged = tmp_path / "damaged.tif"
    damaged.write_bytes(b"II*\x00")
    command = [TORCHRUN, "--nproc-per-node", "2", script, tmp_path / "model", out]
    command += [slides[0], damaged, slides[1]]
    run = subprocess.run(
        list(map(str, command)),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    result = "slide0=written,damaged=failed,slide1=written"
    assert run.stdout.split() == [result, result]
    processes = {line["name"]: line["process"] for line in lines(out / "tiles.jsonl")}
    assert processes == {"slide0": 0, "damaged": 1, "slide1": 0}
    assert torch.isfinite(torch.from_numpy(open_features(out / "slide1.zarr").read())).all()
