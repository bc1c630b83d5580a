"""Every benchmark starts, every result page is what the script renders, and peers are exact."""

import functools
import importlib
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from benchmarks import measure, render
from benchmarks.accuracy import bags as bags_with_answers
from benchmarks.accuracy import learning_curves
from benchmarks.accuracy.queries_planted import planted_rows
from benchmarks.speed import (
    bags,
    collection,
    gpu,
    large_slides_steps,
    large_slides_tables,
    neighbors_large,
    patches,
    retrieval,
    sampling,
    tokens,
)
from benchmarks.speed.collection_sources import list_sources, write_sources
from benchmarks.speed.many_stores import write_link
from benchmarks.speed.torch_search import nearest_by_topk

from stp.data.store import SpotStore
from stp.images import ImagePyramid
from stp.io import write_collection

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
DATA = ROOT.parent / "shared" / "data" / "her2st"
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in BENCHMARKS.rglob("[!_]*.py")
)
PAGES = sorted(render.RESULTS.glob("*/*.md"))
HEADINGS = ["Question", "Command and machine", "Result", "Reading", "Limits"]


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_finds_what_it_imports_and_names_its_command(name):
    module = importlib.import_module(name)
    assert module.__doc__
    if hasattr(module, "main"):
        assert f"python -m {name}" in module.__doc__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_five_headings_and_the_tables_of_its_json_files(page):
    text = page.read_text()
    assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == HEADINGS
    assert render.render_page(page) == text
    reading = text.partition("## Reading\n")[2].partition("## Limits")[0]
    assert len(re.findall(r"\.(?:\s|$)", reading)) <= 3


def test_every_step_of_large_slides_runs_on_a_small_one(tmp_path):
    large_slides_tables.write_slide(tmp_path / "400", 400)
    for name, make_step in large_slides_steps.STEPS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            step = make_step(tmp_path / "400")
            step.run()
        assert step.output_bytes() > 0 or name in ("spots", "start_neighborhoods")


def test_the_index_has_a_row_for_each_page():
    text = render.INDEX.read_text()
    assert render.render_index() == text
    assert all(f"({page.relative_to(BENCHMARKS)})" in text for page in PAGES)


def test_every_result_is_on_a_page_and_names_a_command_that_exists():
    files = set(render.RESULTS.rglob("*.json"))
    shown = set()
    for page in PAGES:
        for name, run in render.runs_of(page, page.read_text()).items():
            shown.add(page.parent / name)
            module = re.search(r"-m (\S+)", run.command)
            assert module is None or module[1] in MODULES
            assert re.fullmatch(r"[0-9a-f]{7}( with changes)?", run.commit)
            assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", run.date)
    assert shown == files


def test_a_table_is_rendered_from_the_rows_of_several_runs():
    first = [
        {"measured": "a", "goal": "at most 2", "met": True, "time": 1.5},
        {"measured": "b", "time": 0.25},
    ]
    second = [{"measured": "c", "time": {"mean": 0.5, "range": [0.25, 1.0]}}]
    runs = [render.Run("x", "y", "z", "w", rows) for rows in (first, second)]
    assert render.render_table(runs).splitlines() == [
        "| run | measured | time | goal | met |",
        "| --- | --- | --- | --- | --- |",
        "| 1 | a | 1.50 | at most 2 | yes |",
        "| 1 | b | 0.25 |  |  |",
        "| 2 | c | 0.50 (0.25 to 1.00) |  |  |",
    ]


def test_a_run_is_written_as_render_reads_it(tmp_path, capsys):
    rows = [{"measured": "a", "result": 2.0, **measure.at_least(1.5, 2.0)}]
    measure.write_results(tmp_path / "a.json", rows)
    run = render.read_run(tmp_path / "a.json")
    assert run.values == rows
    assert rows[0]["goal"] == "at least 1.5" and rows[0]["met"] is True
    assert json.loads(capsys.readouterr().out) == rows


def test_memory_that_is_touched_is_counted():
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux counts the memory of a process in /proc")
    # In a new process, because this one may have memory that other tests freed.
    work = functools.partial(np.ones, 2**24, np.uint8)
    growth = measure.in_new_process(measure.peak_growth, work)
    assert growth == pytest.approx(16, abs=2)


def test_searches_by_torch_and_stp_agree_also_where_references_are_equal():
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(40, 16)).astype(np.float32)
    references = np.repeat(rng.normal(size=(30, 16)).astype(np.float32), 20, axis=0)
    expected = retrieval.nearest(queries, references, 7).index
    for margin in (2, 16):
        index = nearest_by_topk(queries, references, 7, margin=margin, block_rows=64, query_rows=16)
        np.testing.assert_array_equal(index, expected)


def test_pictures_of_all_formats_give_the_same_patches(tmp_path):
    image = patches.draw_picture(640)
    centers = patches.lay_centers(640)
    expected = ImagePyramid.from_array(image, patches.UM_PER_PX).read(
        centers, size=patches.SIZE, um_per_px=patches.UM_PER_PX
    )
    for kind, path in patches.write_pictures(image, tmp_path).items():
        patches.check_patches(path, centers)
        if kind != patches.JPEG:
            assert np.array_equal(patches.cut_whole_level(path, centers), expected)


def test_kernel_and_loop_are_compared_at_a_small_size(tmp_path):
    rows = tokens.main(["--spots", "20", "--repeats", "1", "--kernel-only"])
    assert [row["measured"] for row in rows] == [
        "synthetic, 20 spots, rounded means",
        "synthetic, 20 spots, fitted means",
    ]
    assert all(row["result"] > 0 for row in rows)


def test_neighborhoods_are_compared_at_a_small_size():
    rows = sampling.main(["--spots", "8", "9", "--bins", "12", "12", "--repeats", "1"])
    assert rows[0]["measured"] == "72 spots"


def test_searches_are_compared_at_a_small_size():
    size = ["--references", "300", "--queries", "20", "--width", "16", "--neighbors", "5"]
    rows = retrieval.main([*size, "--repeats", "1"])
    assert {"300 references, ours", "300 references, torch.topk in blocks"} <= {
        row["measured"] for row in rows
    }


def test_exact_neighbors_of_the_benchmark_are_those_of_a_loop():
    embeddings, labels = neighbors_large.draw_embeddings(300, 8)
    assert (embeddings.shape, set(labels)) == ((300, 8), set(range(12)))
    rows = np.arange(0, 300, 3)
    nearest = neighbors_large.find_exact_neighbors(embeddings, rows, 5)
    for row, indices in zip(rows, nearest, strict=True):
        distances = np.linalg.norm(embeddings - embeddings[row], axis=1)
        distances[row] = np.inf
        assert set(indices) == set(np.argsort(distances)[:5])


@pytest.mark.extended
def test_approximate_neighbors_are_measured_at_a_small_size():
    rows = neighbors_large.main(["--spots", "600", "--width", "16", "--checked", "50"])
    by_name = {row["measured"]: row["result"] for row in rows}
    assert by_name["recall@15 against exact search"] > 0.9
    assert by_name["neighbors and clusters"] > 0


def test_sources_of_a_collection_differ_and_links_have_digests_of_their_own(tmp_path):
    manifest = write_sources(None, tmp_path / "sources", 6)
    images = [image.read_bytes() for _, _, image in list_sources(manifest)]
    assert len(set(images)) == 6
    before = [path.stat().st_mtime_ns for _, path, _ in list_sources(manifest)]
    write_sources(None, tmp_path / "sources", 6)  # as after a stop
    assert [path.stat().st_mtime_ns for _, path, _ in list_sources(manifest)] == before
    table = pd.read_csv(manifest).iloc[:1]
    table[["path", "image"]] = tmp_path / "sources" / table[["path", "image"]]
    (store,) = write_collection(table, tmp_path / "stores", n_workers=1, progress=False)
    for name in ("a.zarr", "b.zarr"):
        write_link(store, tmp_path / name)
    links = [SpotStore(tmp_path / name) for name in ("a.zarr", "b.zarr")]
    assert len({SpotStore(store).digest, *(link.digest for link in links)}) == 3
    assert all(len(link) == len(SpotStore(store)) for link in links)


@pytest.mark.extended
def test_a_small_collection_goes_the_whole_way_and_a_second_call_repeats_nothing(tmp_path):
    size = ["--folder", str(tmp_path), "--stores", "3", "--links", "4", "--steps", "1"]
    rows = collection.main(size)
    by_name = {row["measured"]: row["result"] for row in rows}
    assert 0 < by_name["size of a store"] < 20
    assert by_name["pretraining, 4 stores, open files of a process"] > 0
    hours = [by_name[f"5.75 million spots, {n}, preparing"] for n in ("1 worker", "8 workers")]
    assert hours[0] == pytest.approx(8 * hours[1], rel=0.01)
    assert by_name["reading, resampling, compressing and writing, over reading and writing"] > 1
    assert by_name["prepare, over reading, resampling, compressing and writing"] > 1
    assert collection.main(size) == rows


@pytest.mark.extended
def test_bags_are_measured_at_a_small_size(tmp_path):
    size = ["--bags", "4", "--fewer-bags", "2", "--tiles", "50", "--width", "8"]
    rows = bags.main(["--folder", str(tmp_path), *size])
    assert [row["unit"] for row in rows] == [
        "times reading once and copying",
        "of the speed of a matrix product",
        "times the step from memory",
        "times that of 2 bags",
    ]


@pytest.mark.slow
def test_a_planted_signal_is_found_at_a_small_size(tmp_path):
    size = ["--bags", "30", "--tiles", "200", "--width", "16"]
    folder = ["--data", str(tmp_path), "--folder", str(tmp_path)]
    rows = bags_with_answers.main([*folder, "--parts", "planted", *size])
    assert [row["measured"] for row in rows] == [
        "30 bags of 200 tiles, attention",
        "30 bags of 200 tiles, mean",
    ]
    assert all(0 <= row["result"] <= 1 for row in rows)


@pytest.mark.extended
@pytest.mark.filterwarnings("ignore")  # few patients
def test_planted_genes_are_found_on_both_roads_at_a_small_size(tmp_path):
    rows = list(planted_rows(tmp_path, n_patients=16, size=10, n_draws=1))
    by_name = {row["measured"]: row["result"] for row in rows}
    assert by_name["planted genes among the first ten: A, predicted genes of tiles"] >= 8
    assert by_name["planted genes among the first ten: B, measured spots"] >= 8
    again = list(planted_rows(tmp_path, n_patients=16, size=10, n_draws=1))
    assert again == rows


@pytest.mark.extended
def test_learning_curves_are_drawn_at_a_small_size_and_a_second_call_trains_nothing(tmp_path):
    size = ["--slides", "5", "--seeds", "0", "1", "--side", "8", "--short"]
    rows = learning_curves.main(["--folder", str(tmp_path), *size])
    by_name = {row["method"]: row for row in rows}
    assert set(by_name["Stamp, 5 slides"]["recall@5"]) == {"mean", "seed 0", "seed 1"}
    truth = by_name["true domain and activity, 5 slides"]["ridge PCC-V"]["mean"]
    assert truth > by_name["color and texture, 5 slides"]["ridge PCC-V"]["mean"] > 0
    chance = by_name["chance"]["recall@5"]["mean"]
    assert by_name["color and texture, 5 slides"]["recall@5"]["mean"] > chance
    seconds = [
        row["pretrain_s"] + row["align_s"]
        for seed in (0, 1)
        for row in json.loads((tmp_path / "scores" / f"5 slides, Stamp {seed}.json").read_text())
    ]
    assert min(seconds) > 0
    predicted = by_name["Stamp, 300 slides of 2000 spots, predicted"]["CPU minutes"]
    assert predicted > 10 * sum(seconds) / 60
    assert learning_curves.main(["--folder", str(tmp_path), *size]) == rows


@pytest.mark.extended
@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is absent: sections of almaan/her2st")
def test_her2st_runs_the_whole_way(tmp_path):
    command = [sys.executable, "-m", "benchmarks.accuracy.her2st", "--data", DATA, "--short"]
    command += ["--folder", tmp_path, "--out", tmp_path / "results.json"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    rows = {row["method"]: row for row in render.read_run(tmp_path / "results.json").values}
    predicted = {name: row for name, row in rows.items() if "PCC-V" in row}
    assert len(predicted) == 7
    scores = [row[name] for row in predicted.values() for name in ("PCC-V", "PCC-E", "MSE")]
    assert np.isfinite(scores).all()
    # What needs no training is the same in the short form: about 0.23 and 0.29.
    assert rows["mean profile"]["PCC-V"] == 0
    assert rows["position"]["PCC-V"] == pytest.approx(0.23, abs=0.04)
    assert rows["neighbors in the section (measured)"]["PCC-V"] == pytest.approx(0.29, abs=0.03)
    assert 0 < rows["clusters, PCA fitted on the section"]["ARI"]["D1"] < 1
    assert rows["chance"]["recall@5"] == pytest.approx(5 / 178, abs=5e-4)
    assert {path.stem for path in tmp_path.glob("*.png")} >= {
        "patches",
        "clusters",
        "expression",
        "stamp",
    }


@pytest.mark.extended
def test_the_gpu_script_runs_on_a_cpu_and_a_killed_training_gives_the_same_weights(tmp_path):
    rows = gpu.main(["--device", "cpu", "--tiny", "--out", str(tmp_path)])
    assert render.read_run(tmp_path / "gpu.json").values == rows
    by_name = {row["measured"]: row for row in rows}
    for name in ("gene encoder", "image encoder"):
        assert by_name[f"{name}, fp32"]["result"] < 1e-5
        assert 0 < by_name[f"{name}, bf16"]["result"] < 0.05
    shares = [row["result"] for row in rows if row.get("unit") == "of a matrix product's speed"]
    assert len(shares) == 3 + len(gpu.ALIGNMENT) and min(shares) > 0
    assert by_name["attention, plain"]["result"] > 0
    assert by_name["fed by 0 workers"]["result"] > 0
    resumed = [row for name, row in by_name.items() if "killed after" in name]
    assert len(resumed) == 2 and all(row["met"] for row in resumed)
