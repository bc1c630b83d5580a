"""`stp embed`: in this process, in two ranks, and killed at any moment."""

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
import spatialdata
import torch
import zarr
from tests.forks import Fork, run_ranks

from stp import tl
from stp.cli.main import main
from stp.io import write_store
from stp.models import Stamp

TORCHRUN, STP = (Path(sys.executable).with_name(name) for name in ("torchrun", "stp"))
KEYS = ("X_stp_genes", "X_stp_images")
N_KILLS = 6


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_config, vocabulary):
    """Save Stamps with different weights, a gene and an image encoder, and a Stamp of pathways."""
    folder = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng():
        for seed, name in enumerate(("one", "two")):
            torch.manual_seed(seed)
            Stamp(tiny_config, vocabulary).save_pretrained(folder / name)
    one = Stamp.from_pretrained(folder / "one")
    one.gene_encoder.save_pretrained(folder / "genes")
    one.image_encoder.save_pretrained(folder / "images")
    pathways = dataclasses.replace(tiny_config, gene=None, pathways={"a set": 3})
    Stamp(pathways, vocabulary).save_pretrained(folder / "pathways")
    return folder


@pytest.fixture
def slides(stores, tmp_path):
    """Copy two stores."""
    return [Path(shutil.copytree(store, tmp_path / store.name)) for store in stores[:2]]


def embed(*stores, model, options=()):
    """Run the command; return its status and the lines of the manifest."""
    manifest = stores[0].parent / "manifest.jsonl"
    command = ["embed", *stores, "--model", model, "--manifest", manifest, *options]
    status = main([str(part) for part in command])
    return status, lines(manifest)


def lines(manifest):
    return [json.loads(line) for line in manifest.read_text().splitlines()]


def table_of(store):
    return spatialdata.read_zarr(store)["table"]


def test_embeddings_are_those_of_the_verbs(slides, models):
    status, (first, second) = embed(*slides, model=models / "one")
    assert status == 0
    assert first["status"] == "embedded"
    assert second["written"] == list(KEYS)
    stamp = Stamp.from_pretrained(models / "one")
    assert first["model"] == {"name": "one", "digest": stamp.digest}
    for store in slides:
        table = table_of(store)
        expected = spatialdata.read_zarr(store)
        for key in KEYS:
            del expected["table"].obsm[key]
        tl.tokenize(expected, stamp)
        tl.embed_genes(expected, stamp)
        tl.embed_images(expected, stamp)
        for key in KEYS:
            np.testing.assert_array_equal(table.obsm[key], expected["table"].obsm[key])
            np.testing.assert_array_equal(
                table.obsm[f"{key}_aligned"], expected["table"].obsm[f"{key}_aligned"]
            )
            assert table.uns[key]["model"]["digest"] == stamp.digest
        assert table.obs["X_stp_images_inside"].equals(expected["table"].obs["X_stp_images_inside"])


def test_what_is_finished_is_skipped_and_another_model_replaces_it(slides, models):
    store = slides[0]
    embed(store, model=models / "one")
    before = {file: file.stat().st_mtime_ns for file in store.rglob("*") if file.is_file()}
    assert [line["status"] for line in embed(store, model=models / "one")[1]] == [
        "embedded",
        "skipped",
    ]
    assert {file: file.stat().st_mtime_ns for file in store.rglob("*") if file.is_file()} == before
    first = table_of(store).obsm["X_stp_genes"]
    assert embed(store, model=models / "two")[1][-1]["status"] == "embedded"
    assert not np.array_equal(table_of(store).obsm["X_stp_genes"], first)
    assert embed(store, model=models / "two")[1][-1]["status"] == "skipped"


def test_one_part_that_is_missing_is_all_that_is_made(slides, models):
    store = slides[0]
    embed(store, model=models / "one")
    shutil.rmtree(store / "tables" / "table" / "uns" / "X_stp_images")
    assert embed(store, model=models / "one")[1][-1]["written"] == ["X_stp_images"]


def test_encoders_alone_embed_what_they_read(slides, models):
    assert embed(slides[0], model=models / "genes")[1][-1]["written"] == ["X_stp_genes"]
    assert "X_stp_genes_aligned" not in table_of(slides[0]).obsm
    for name in ("images", "pathways"):  # a Stamp of pathways alone reads no tokens
        assert embed(slides[0], model=models / name)[1][-1]["written"] == ["X_stp_images"]


def test_vectors_of_a_model_before_do_not_stay_beside_those_of_one_that_has_none(slides, models):
    embed(slides[0], model=models / "one")
    assert "X_stp_genes_aligned" in table_of(slides[0]).obsm
    embed(slides[0], model=models / "genes")
    obsm = table_of(slides[0]).obsm
    assert "X_stp_genes_aligned" not in obsm and {"X_stp_genes", "X_stp_images_aligned"} <= set(
        obsm
    )


def damage_image(store):
    """Make pixels of a store unreadable; its metadata stay as they are."""
    for file in (store / "images" / "image").glob("*/c/*/*/*"):
        file.write_bytes(b"no pixels")


def test_a_store_that_fails_does_not_stop_the_rest_and_the_manifest_says_why(
    slides, models, adata, tmp_path, capsys
):
    damaged = slides[0]
    no_image = tmp_path / "counts.zarr"
    damage_image(damaged)
    write_store(adata, no_image)
    status, manifest = embed(damaged, no_image, slides[1], no_image, model=models / "one")
    assert status == 1
    assert [line["status"] for line in manifest] == ["failed", "embedded", "embedded"]
    assert manifest[0]["error"]
    # What is complete stays, and of the embedding that failed there is nothing.
    assert manifest[0]["written"] == ["X_stp_genes"]
    table = table_of(damaged)
    assert "X_stp_genes" in table.uns
    assert not [key for key in (*table.obsm, *table.obs, *table.uns) if "X_stp_images" in key]
    # A Stamp embeds the genes of a store without an image.
    assert manifest[1]["written"] == ["X_stp_genes"]
    assert "1 stores failed: see " in capsys.readouterr().out


def test_all_that_is_wrong_is_listed_before_the_first_store(
    slides, models, adata, tmp_path, capsys
):
    no_image = tmp_path / "counts.zarr"
    write_store(adata, no_image)
    with pytest.raises(SystemExit, match="2"):
        embed(
            slides[0],
            tmp_path / "nowhere.zarr",
            no_image,
            model=models / "images",
            options=["--batch-size", "0", "--manifest", "/dev/full"],
        )
    error = capsys.readouterr().err
    assert "nothing was embedded, because of 4 faults:" in error
    assert "batch_size must be positive, not 0" in error
    assert "the manifest /dev/full cannot be written: No space left on device" in error
    assert f"no store at {tmp_path / 'nowhere.zarr'}" in error
    assert f"{no_image} has no image, and images reads nothing else" in error
    assert "X_stp_images" not in table_of(slides[0]).obsm


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "has no config.json; give a folder of stp.train, or the name of a backbone"),
        ("unknown", "holds a Transformer; embeddings"),
    ],
)
def test_a_model_that_is_none_is_refused_before_any_work(name, message, slides, tmp_path, capsys):
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown" / "config.json").write_text('{"class": "Transformer", "config": {}}')
    with pytest.raises(SystemExit) as stopped:
        embed(slides[0], model=tmp_path / name)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "manifest.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "gpu"], "device 'gpu' cannot be used here"),
        (["--batch-size", "0"], "batch_size must be positive, not 0"),
        (["--manifest", "."], ". is a folder; give a file for the manifest"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_that_cannot_be_are_refused_before_any_store(
    options, message, slides, models, tmp_path, capsys
):
    with pytest.raises(SystemExit, match="2"):
        embed(slides[0], model=models / "one", options=options)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "manifest.jsonl").exists()


def embed_under_torchrun(*stores, model):
    """Run the command in two processes, with the manifest of `embed`."""
    command = [TORCHRUN, "--no-python", "--nproc-per-node", "2", STP, "embed", *stores]
    command += ["--model", model, "--manifest", stores[0].parent / "manifest.jsonl"]
    return subprocess.run(
        list(map(str, command)),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.extended
def test_processes_under_torchrun_stop_together_if_a_store_is_missing(slides, models, tmp_path):
    run = embed_under_torchrun(slides[0], tmp_path / "nowhere.zarr", model=models / "one")
    assert run.returncode == 1
    assert f"no store at {tmp_path / 'nowhere.zarr'}" in run.stderr
    assert not (tmp_path / "manifest.jsonl").exists()
    assert "X_stp_genes" not in table_of(slides[0]).obsm


def test_ranks_divide_the_stores_and_outlive_a_failure(slides, models, tmp_path):
    manifest = tmp_path / "manifest.jsonl"
    damaged = Path(shutil.copytree(slides[0], tmp_path / "damaged.zarr"))
    damage_image(damaged)
    command = ["embed", slides[0], damaged, slides[1], "--model", models / "one"]
    command += ["--manifest", manifest]
    assert run_ranks(main, list(map(str, command)), messages=tmp_path / "messages") == [1, 1]
    by_store = {Path(line["store"]).name: line for line in lines(manifest)}
    assert {name: (line["status"], line["process"]) for name, line in by_store.items()} == {
        "slide0.zarr": ("embedded", 0),
        "damaged.zarr": ("failed", 1),
        "slide1.zarr": ("embedded", 0),
    }
    for store in slides:
        assert set(KEYS) <= set(table_of(store).obsm)


def embed_until(n_writes, folder, count_file, arguments):
    """Run the command; kill the process after a number of writes into a folder."""
    changes = ("os.rename", "os.mkdir", "os.remove", "os.rmdir")
    n_done = 0

    def watch(event, values):
        nonlocal n_done
        is_writing = event == "open" and values[2] & (os.O_WRONLY | os.O_RDWR)
        if (event in changes or is_writing) and str(values[0]).startswith(folder):
            n_done += 1
            if n_done > n_writes:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    main(arguments)
    count_file.write_text(str(n_done))


@pytest.fixture
def driver(slides, models, tmp_path, tmp_path_factory):
    """Return a function that embeds the slides in a process until so many writes are done.

    It returns the number of writes, or None if the process was killed.
    """
    arguments = ["embed", *slides, "--model", models / "two"]
    arguments += ["--manifest", tmp_path / "manifest.jsonl"]
    folder = tmp_path_factory.mktemp("driver")

    def run(n_writes):
        count_file = folder / "n_writes"
        process = Fork(
            embed_until,
            n_writes,
            str(tmp_path),
            count_file,
            list(map(str, arguments)),
            messages=folder / "messages",
        )
        status = process.wait()
        assert status in (0, -signal.SIGKILL), process.messages()
        return int(count_file.read_text()) if status == 0 else None

    return run


def check_readable(store, counts, expected):
    """Check that counts are unchanged and each embedding is that of the model it names."""
    table = table_of(store)
    assert (table.X != counts).nnz == 0
    for key in KEYS:
        if key in table.uns:
            digest = table.uns[key]["model"]["digest"]
            np.testing.assert_array_equal(table.obsm[key], expected[digest][store.name, key])


def test_killed_at_any_moment_stores_are_readable_and_the_rest_is_done_next_time(
    slides, models, driver, tmp_path
):
    counts = {store: table_of(store).X for store in slides}
    expected = {}
    for model in ("two", "one"):  # one stays on disk: what is killed is its replacement
        embed(*slides, model=models / model)
        digest = Stamp.from_pretrained(models / model).digest
        expected[digest] = {
            (store.name, key): table_of(store).obsm[key] for store in slides for key in KEYS
        }
    whole = tmp_path / "whole"
    whole.mkdir()
    for store in slides:
        shutil.copytree(store, whole / store.name)
    n_writes = driver(math.inf)
    assert n_writes > 50
    for writes in np.linspace(2, n_writes - 2, N_KILLS).astype(int):
        for store in slides:
            shutil.rmtree(store)
            shutil.copytree(whole / store.name, store)
        assert driver(writes) is None
        for store in slides:
            check_readable(store, counts[store], expected)
    assert embed(*slides, model=models / "two")[0] == 0
    digest = Stamp.from_pretrained(models / "two").digest
    for store in slides:
        group = zarr.open_consolidated(store, mode="r")
        for key in KEYS:
            np.testing.assert_array_equal(
                group[f"tables/table/obsm/{key}"][:], expected[digest][store.name, key]
            )
            assert anndata.io.read_elem(group[f"tables/table/uns/{key}/model/digest"]) == digest
        assert not list(store.parent.glob(".*.results"))


# Killed when the results of the second embedding are about to be written: its last part is lost.
KILLED = """
import os, signal, sys
from stp.cli.main import main
folder, *arguments = sys.argv[1:]
n_parts = 0

def watch(event, values):
    global n_parts
    if event == "os.rename" and "part_" in str(values[1]):
        n_parts += 1
    elif event == "os.mkdir" and n_parts == 2 and str(values[0]).startswith(folder):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
main(arguments)
"""


def test_a_killed_command_goes_on_after_the_spots_that_it_embedded(slides, models, capsys):
    store, whole = slides
    folder = store.parent
    options = ["--batch-size", "1"]  # parts have 64 batches, and the slide has 100 spots
    shutil.rmtree(whole)
    shutil.copytree(store, whole)
    command = [sys.executable, "-c", KILLED, folder, "embed", store, "--model", models / "one"]
    command += ["--manifest", folder / "killed.jsonl", *options]
    killed = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    parts = folder / f".{store.name}.embedding"
    assert [file.name for file in parts.glob("part*")] == ["part_000000.safetensors"]
    assert "X_stp_images" not in table_of(store).uns
    others = {}
    for name in ("other_batches", "other_store"):
        others[name] = Path(shutil.copytree(store, folder / name / store.name))
        shutil.copytree(parts, folder / name / parts.name)
    (others["other_store"] / "images" / "image" / "zarr.json").touch()
    capsys.readouterr()
    former = "A former call embedded 64 spots; this one goes on after them."
    assert embed(store, model=models / "one", options=options)[1][-1]["written"] == [KEYS[1]]
    assert former in capsys.readouterr().err
    embed(whole, model=models / "one", options=options)
    for key in (*KEYS, "X_stp_images_aligned"):
        np.testing.assert_array_equal(table_of(store).obsm[key], table_of(whole).obsm[key])
    # A process that is killed between its results and the end leaves parts.
    shutil.copytree(others["other_store"].parent / parts.name, parts)
    assert embed(store, model=models / "one", options=options)[1][-1]["status"] == "skipped"
    assert not parts.exists()
    # Parts of other settings or of a store that changed are not used.
    embed(others["other_batches"], model=models / "one", options=["--batch-size", "2"])
    embed(others["other_store"], model=models / "one", options=options)
    assert former not in capsys.readouterr().err
    assert not list(folder.rglob("*.embedding"))
