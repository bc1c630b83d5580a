"""Collections: rows are alone, calls are resumed, and processes make no difference."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import anndata
import pandas as pd
import pytest
import spatialdata
from distributed import Client, LocalCluster
from tests.slides import make_slide, write_pyramid, write_space_ranger

import stp
from stp.data.store import SpotStore
from stp.io import write_collection

STP = Path(sys.executable).with_name("stp")
NAMES = ["s0", "s1", "s2"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Write three small slides, the last without an image, and their manifest."""
    folder = tmp_path_factory.mktemp("sources")
    lines = []
    for seed, name in enumerate(NAMES):
        adata, image = make_slide(seed, 5, 5)
        adata.write_h5ad(folder / f"{name}.h5ad")
        line = {"name": name, "path": f"{name}.h5ad", "patient": f"00{seed}"}
        if name != "s2":
            write_pyramid(folder / f"{name}.tif", image)
            line["image"] = f"{name}.tif"
        lines.append(line | {"organ": "breast", "stage": "=1+1"})
    manifest = pd.DataFrame(lines)
    manifest["um_per_px"] = 1.0
    manifest["patch_um_per_px"] = 4.0
    manifest.to_csv(folder / "manifest.csv", index=False)
    return folder


@pytest.fixture
def slides(sources, tmp_path):
    """Return a copy of the sources, which a test may change."""
    return shutil.copytree(sources, tmp_path / "sources")


@pytest.fixture(scope="module")
def expected(sources, tmp_path_factory):
    """Write the collection in this process."""
    folder = tmp_path_factory.mktemp("expected")
    write_collection(sources / "manifest.csv", folder, n_workers=1)
    return folder


def manifest_of(folder, *names):
    """Return lines of the manifest, with absolute paths."""
    table = pd.read_csv(folder / "manifest.csv", dtype={"patient": str})
    for column in ("path", "image"):
        table[column] = f"{folder}/" + table[column]
    return table[table["name"].isin(names)]


def files_of(folder):
    """Return the content of all files of stores and tables."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "prepare.jsonl"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def statuses(folder):
    """Return what the last lines of the log say of each row."""
    lines = [json.loads(line) for line in (folder / "prepare.jsonl").read_text().splitlines()]
    return {line["name"]: line["status"] for line in lines}


def wait_until(is_true, seconds=60):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_stores_are_those_of_write_store(sources, expected, tmp_path):
    with_image = anndata.read_h5ad(sources / "s0.h5ad")
    with_image = stp.io.from_anndata(with_image, sources / "s0.tif", um_per_px=1.0)
    stp.io.write_store(with_image, tmp_path / "s0.zarr", patch_um_per_px=4.0)
    counts = anndata.read_h5ad(sources / "s2.h5ad")
    stp.io.write_store(counts, tmp_path / "s2.zarr", um_per_px=1.0, patch_um_per_px=4.0)
    for name in ("s0.zarr", "s2.zarr"):
        assert SpotStore(tmp_path / name).digest == SpotStore(expected / name).digest


def test_the_table_describes_the_stores(expected):
    table = pd.read_parquet(expected / "collection.parquet")
    assert list(table["name"]) == NAMES
    assert list(table["path"]) == ["s0.zarr", "s1.zarr", "s2.zarr"]
    assert list(table["patient"]) == ["000", "001", "002"]
    assert set(table["n_spots"]) == {25}
    too_few = "no spot on tissue detects 100 genes"
    assert list(table["problem"]) == [too_few] * 3
    assert list(table["image_height_px"].isna()) == [False, False, True]
    stores = [SpotStore(expected / path) for path in table["path"]]
    assert list(table["digest"]) == [store.digest for store in stores]
    cells = pd.read_csv(expected / "collection.csv", dtype={"patient": str}, keep_default_na=False)
    assert set(cells["stage"]) == {"'=1+1"}
    assert set(table["stage"]) == {"=1+1"}
    assert list(cells["patient"]) == list(table["patient"])


def test_a_store_alone_says_what_the_manifest_says(expected, tmp_path):
    metadata = spatialdata.read_zarr(expected / "s2.zarr").attrs["stp_metadata"]
    assert (metadata["patient"], metadata["organ"], metadata["stage"]) == ("002", "breast", "=1+1")
    # Also after SpatialData has written it again.
    spatialdata.read_zarr(expected / "s2.zarr").write(tmp_path / "again.zarr")
    assert spatialdata.read_zarr(tmp_path / "again.zarr").attrs["stp_metadata"] == metadata


@pytest.mark.slow
def test_two_processes_one_of_which_is_killed_write_the_same_files(sources, expected, tmp_path):
    out = tmp_path / "out"
    killed = []

    def kill_a_worker():
        # A store that is being written lies in a folder with the number of the process.
        wait_until(lambda: any(out.glob(".attempts/*/*/.*.partial")))
        attempt = next(out.glob(".attempts/*/*/.*.partial")).parent
        killed.append(int(attempt.name.partition("-")[0]))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    collection = write_collection(sources / "manifest.csv", out, n_workers=2)
    killer.join()
    assert killed
    assert list(collection.table["name"]) == NAMES
    assert files_of(out) == files_of(expected)
    assert set(statuses(out).values()) == {"written"}


@pytest.mark.slow
def test_a_killed_call_leaves_whole_stores_and_the_next_one_does_the_rest(
    sources, expected, tmp_path
):
    out = tmp_path / "out"
    command = [STP, "prepare", sources / "manifest.csv", "--out", out, "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_until(lambda: (out / "s0.zarr").exists() and any(out.glob(".attempts/*/*/.s1*")))
    process.kill()
    process.wait()
    names = [path.name for path in out.glob("*.zarr")]
    assert names == ["s0.zarr"]
    (out / "prepare.jsonl").open("a").write('{"name": "s1", "sta')  # a line that was torn
    (out / "s0.zarr" / "untouched").touch()
    write_collection(sources / "manifest.csv", out, n_workers=1)
    assert (out / "s0.zarr" / "untouched").exists()
    (out / "s0.zarr" / "untouched").unlink()
    assert files_of(out) == files_of(expected)


def test_a_script_that_would_run_again_in_each_process_is_refused(sources, tmp_path):
    script = tmp_path / "script.py"
    call = f"stp.io.write_collection({str(sources / 'manifest.csv')!r}, 'out', n_workers=2)"
    script.write_text(f"import stp\n{call}\n")
    result = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert 'call it below `if __name__ == "__main__":`' in result.stderr


def test_any_cluster_prepares_rows(sources, expected, tmp_path):
    with (
        LocalCluster(n_workers=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        write_collection(sources / "manifest.csv", tmp_path / "out", client=client)
        with pytest.raises(ValueError, match="n_workers and memory_limit are those of a local"):
            write_collection(sources / "manifest.csv", tmp_path / "out", client=client, n_workers=2)
    assert files_of(tmp_path / "out") == files_of(expected)


class FarClient(Client):
    """A client whose workers have another disk at the place of the stores."""

    def run(self, function, path, **options):
        return super().run(function, path.replace("out", "other"), **options)


def test_a_worker_that_does_not_share_the_folder_is_named(sources, tmp_path):
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster,
        FarClient(cluster) as client,
        pytest.raises(RuntimeError, match=r"worker 0 \(inproc://.*FileNotFoundError.*share"),
    ):
        write_collection(sources / "manifest.csv", tmp_path / "out", client=client)
    assert not list((tmp_path / "out").glob("*.zarr"))


def test_a_row_that_fails_does_not_stop_the_others(slides, tmp_path, capsys):
    manifest = manifest_of(slides, *NAMES)
    (slides / "s1.h5ad").write_bytes(b"no h5ad")
    manifest.loc[manifest["name"] == "s0", "patch_um_per_px"] = 0.5
    out = tmp_path / "out"
    collection = write_collection(manifest, out, n_workers=1)
    assert list(collection.table["name"]) == ["s2"]
    assert statuses(out) == {"s0": "failed", "s1": "failed", "s2": "written"}
    lines = [json.loads(line) for line in (out / "prepare.jsonl").read_text().splitlines()]
    assert lines[0]["error"].startswith("ValueError: the image has 1 µm per pixel, patches of 0.5")
    assert lines[1]["error"].startswith("OSError: ")
    assert lines[1]["error"] in capsys.readouterr().err
    assert not any("\n" in line["error"] for line in lines)
    # Repaired, the row is done, and the finished one is skipped.
    shutil.copy(slides / "s0.h5ad", slides / "s1.h5ad")
    manifest["patch_um_per_px"] = 4.0
    collection = write_collection(manifest, out, n_workers=1)
    assert statuses(out) == {"s0": "written", "s1": "written", "s2": "skipped"}
    assert list(collection.table["name"]) == NAMES
    assert not (out / ".attempts").exists()


def test_a_changed_source_or_setting_is_prepared_again(slides, tmp_path, capsys):
    manifest = manifest_of(slides, "s1", "s2")
    out = tmp_path / "out"
    first = write_collection(manifest, out, n_workers=1).table
    shutil.copy(slides / "s0.h5ad", slides / "s2.h5ad")
    manifest.loc[manifest["name"] == "s1", "patch_um_per_px"] = 5.0
    second = write_collection(manifest, out, n_workers=1).table
    assert statuses(out) == {"s1": "written", "s2": "written"}
    assert not set(first["digest"]) & set(second["digest"])
    log = capsys.readouterr().err
    assert "s2 was prepared again: path, size or time of its source changed" in log
    assert "s1 was prepared again: patch_um_per_px was 4.0 and is 5.0" in log
    assert [SpotStore(out / path).digest for path in second["path"]] == list(second["digest"])


def test_what_a_slide_is_changes_without_writing_the_store_again(slides, tmp_path):
    manifest = manifest_of(slides, "s2")
    out = tmp_path / "out"
    write_collection(manifest, out, n_workers=1)
    (out / "s2.zarr" / "untouched").touch()
    manifest["patient"] = "009"
    collection = write_collection(manifest, out, n_workers=1)
    assert statuses(out) == {"s2": "described"}
    assert (out / "s2.zarr" / "untouched").exists()
    assert list(collection.table["patient"]) == ["009"]
    assert spatialdata.read_zarr(out / "s2.zarr").attrs["stp_metadata"]["patient"] == "009"


def test_contents_are_compared_on_demand(slides, tmp_path):
    manifest = manifest_of(slides, "s2")
    out = tmp_path / "out"
    write_collection(manifest, out, n_workers=1, verify=True)
    file = slides / "s2.h5ad"
    os.utime(file, (1, 1))
    write_collection(manifest, out, n_workers=1, verify=True)
    assert statuses(out) == {"s2": "skipped"}
    # A change that size and time do not show.
    status = file.stat()
    content = bytearray(file.read_bytes())
    adata = anndata.read_h5ad(file)
    old = adata.X.data.astype("<f4").tobytes()
    new = (adata.X.data[::-1] + 0).astype("<f4").tobytes()
    start = content.find(old)
    assert start > 0
    content[start : start + len(old)] = new
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    write_collection(manifest, out, n_workers=1)
    assert statuses(out) == {"s2": "skipped"}
    write_collection(manifest, out, n_workers=1, verify=True)
    assert statuses(out) == {"s2": "written"}


def test_stores_that_left_the_manifest_stay_and_are_named(slides, tmp_path, capsys):
    out = tmp_path / "out"
    write_collection(manifest_of(slides, "s0", "s2"), out, n_workers=1)
    collection = write_collection(manifest_of(slides, "s2"), out, n_workers=1)
    assert list(collection.table["name"]) == ["s2"]
    assert (out / "s0.zarr").exists()
    assert "not in the table: s0.zarr" in capsys.readouterr().err


def test_a_folder_that_is_in_the_way_is_not_replaced(slides, tmp_path):
    out = tmp_path / "out"
    (out / "s0.zarr").mkdir(parents=True)
    (out / "s0.zarr" / "mine").touch()
    with pytest.raises(ValueError, match=r"s0\.zarr exists and was not made from a manifest"):
        write_collection(manifest_of(slides, "s0"), out, n_workers=1)
    assert (out / "s0.zarr" / "mine").exists()


def test_rows_are_libraries_counts_folders_and_spatialdata(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adata, image = make_slide(0, 5, 5)
    other, _ = make_slide(1, 5, 5)
    both = anndata.concat({"left": adata, "right": other}, label="side", index_unique="-")
    both.write_h5ad("both.h5ad")
    write_space_ranger(tmp_path / "visium" / "outs", adata, image)
    sdata = stp.io.from_anndata(adata, image, um_per_px=1.0, name="mine")
    sdata.write("sdata.zarr")
    manifest = pd.DataFrame(
        {
            "name": ["left", "r", "visium", "sdata", "wrong"],
            "path": ["both.h5ad", "both.h5ad", "visium", "sdata.zarr", "both.h5ad"],
            "library_key": ["side", "side", None, None, "side"],
            "library": [None, "right", None, None, None],
            "patch_um_per_px": 4.0,
        }
    )
    table = write_collection(manifest, "out", n_workers=1).table.set_index("name")
    assert table["image_height_px"].isna().to_dict() == {
        "left": True,
        "r": True,
        "visium": True,
        "sdata": False,
    }
    assert table.loc["visium", "platform"] == "Visium"
    for name, source in {"left": adata, "r": other}.items():
        n_umis = sum(block.sum() for _, block in SpotStore(f"out/{name}.zarr").counts(100))
        assert n_umis == source.X.sum()
    lines = Path("out/prepare.jsonl").read_text().splitlines()
    assert "has no 'wrong', only 'left', 'right'" in json.loads(lines[-1])["error"]


def test_each_species_has_its_vocabulary(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adata, _ = make_slide(0, 5, 5)
    adata.write_h5ad("human.h5ad")
    symbols = [name.capitalize() for name in adata.var_names]
    adata.var_names = [f"ENSMUSG{number:011}" for number in range(adata.n_vars)]
    adata.write_h5ad("mouse.h5ad")
    mouse = stp.Vocabulary.from_genes(adata.var_names, symbols)
    manifest = pd.DataFrame(
        {
            "name": ["h", "m"],
            "path": ["human.h5ad", "mouse.h5ad"],
            "species": ["", "Mus musculus"],
        }
    )
    with pytest.raises(ValueError, match="m: there is no vocabulary for the species"):
        write_collection(manifest, "out", n_workers=1)
    both = [mouse, stp.Vocabulary.default()]
    with pytest.raises(ValueError, match=r"h: there are vocabularies of \['human', 'mouse'\]"):
        write_collection(manifest, "out", n_workers=1, vocabulary=both)
    manifest["species"] = ["Homo sapiens", "mouse"]
    table = write_collection(manifest, "out", n_workers=1, vocabulary=[mouse]).table
    assert [SpotStore(f"out/{path}").species for path in table["path"]] == ["human", "mouse"]


def test_a_wrong_species_names_the_column_that_chooses_the_vocabulary(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    adata, _ = make_slide(0, 5, 5)
    adata.var_names = [f"ENSG{number:011}" for number in range(adata.n_vars)]
    adata.write_h5ad("human.h5ad")
    adata.var_names = [f"ENSMUSG{number:011}" for number in range(adata.n_vars)]
    adata.write_h5ad("mouse.h5ad")
    mouse = stp.Vocabulary.from_genes(adata.var_names)
    manifest = pd.DataFrame(
        {
            "name": ["h", "m"],
            "path": ["human.h5ad", "mouse.h5ad"],
            "species": ["mouse", "human"],
        }
    )
    collection = write_collection(manifest, "out", n_workers=1, vocabulary=mouse)
    assert len(collection) == 0
    errors = [json.loads(line)["error"] for line in Path("out/prepare.jsonl").open()]
    assert len(errors) == 2
    for error in errors:
        assert error.endswith("In a manifest, the column 'species' chooses the vocabulary")


def test_another_process_is_not_disturbed(sources, tmp_path):
    from stp._lock import lock

    with lock(tmp_path, "preparing", wait=False, file=tmp_path / ".prepare.lock"):
        with pytest.raises(BlockingIOError, match="is preparing"):
            write_collection(sources / "manifest.csv", tmp_path, n_workers=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_workers": 0}, "n_workers must be 1 or more, not 0"),
        ({"memory_limit": "much"}, "memory_limit is 'much'"),
        ({"memory_limit": -1}, "memory_limit must be positive"),
    ],
)
def test_wrong_options_are_refused_before_any_work(sources, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_collection(sources / "manifest.csv", tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
