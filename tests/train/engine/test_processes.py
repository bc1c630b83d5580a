"""Real processes: killed, asked to stop, and several under torchrun."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.forks import run_command

from stp.cli.main import main
from stp.models import GeneEncoder

STP = Path(sys.executable).with_name("stp")
TORCHRUN = Path(sys.executable).with_name("torchrun")
TOGETHER = [TORCHRUN, "--no-python", "--standalone", "--nproc-per-node", "2"]

RECIPE = """
stores = ["slide[01].zarr"]
validation = ["slide2.zarr"]
output_dir = "{out}"
vocabulary = "vocabulary.parquet"
min_genes = 5
learning_rate = 3e-3
log_every = 1
checkpoint_every = 4

[model]
context_length = 32
width = 32
depth = 2
n_heads = 2
ffn_width = 64

[[phase]]
epochs = {epochs}
batch_size = {batch_size}

[[phase]]
objective = "neighborhood"
batch_size = {group_batch}
"""


ALIGN = """
stores = ["slide[01].zarr"]
validation = ["slide2.zarr"]
output_dir = "{out}"
gene_encoder = "genes"
min_genes = 5
learning_rate = 3e-3
warmup_steps = 2
log_every = 1
checkpoint_every = 3
epochs = {epochs}
batch_size = {batch_size}
accumulate = 1
negatives = "{negatives}"
rotate = true
stain_jitter = 0.1
projection_width = 32

[image_encoder]
backbone = "vit_tiny_patch16_224"
backbone_args = {{ patch_size = 8, embed_dim = 32, depth = 2, num_heads = 2 }}
image_size = 32
um_per_px = 4.0
"""


@pytest.fixture(scope="module")
def folder(stores, vocabulary, tmp_path_factory):
    """Links to the stores, and a vocabulary."""
    folder = tmp_path_factory.mktemp("recipes")
    vocabulary.save(folder / "vocabulary.parquet")
    for number, store in enumerate(stores):
        (folder / f"slide{number}.zarr").symlink_to(store)
    return folder


@pytest.fixture(scope="module")
def recipe(folder):
    def write(out, epochs=6, batch_size=20, group_batch=18):
        path = folder / f"{out}.toml"
        path.write_text(
            RECIPE.format(out=out, epochs=epochs, batch_size=batch_size, group_batch=group_batch)
        )
        return path

    return write


@pytest.fixture(scope="module")
def align_recipe(folder, tiny_config, vocabulary):
    """Write a recipe of stage two, beside the gene encoder that it starts from."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GeneEncoder(tiny_config.gene, vocabulary).save_pretrained(folder / "genes")

    def write(out, epochs=2, batch_size=20, negatives="global"):
        path = folder / f"{out}.toml"
        path.write_text(
            ALIGN.format(out=out, epochs=epochs, batch_size=batch_size, negatives=negatives)
        )
        return path

    return write


def weights(folder):
    """Weights without the bias of keys: it changes no attention, and Adam follows its noise."""
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith("in_proj_bias"):
            tensor[len(tensor) // 3 : 2 * len(tensor) // 3] = 0
    return tensors


def assert_same(folder, other, **tolerance):
    one, two = weights(folder), weights(other)
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(
            one[name], two[name], **({"rtol": 0, "atol": 0} | tolerance), msg=name
        )


# More threads add up in another order when the machine is busy.
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def lines(folder):
    """Read the lines of a run that may be writing its last line."""
    written = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in written if line.endswith("\n")]


def start(path, stage="pretrain"):
    return run_command(stage, path, messages=path.with_suffix(".stderr"))


def run(path, stage="pretrain"):
    """Run a recipe in this process."""
    assert main([stage, str(path)]) == 0
    return path.with_suffix("")


def run_together(path, stage):
    """Run a recipe in two processes."""
    command = [*TOGETHER, STP, stage, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    return path.with_suffix("")


def wait_for_torchrun(condition, process):
    while not condition() and process.poll() is None:
        time.sleep(0.002)
    assert process.poll() is None, "torchrun ended before"


@pytest.fixture(scope="module")
def whole(recipe):
    """A run that was never stopped."""
    return run(recipe("whole"))


def test_killed_three_times_once_while_it_writes_a_checkpoint(recipe, whole):
    path = recipe("killed")
    out = path.with_suffix("")
    moments = [
        lambda: (out / "resume.pt").exists(),
        lambda: any(out.glob(".resume.pt.*")),  # it is being written
        lambda: (out / "metrics.jsonl").read_text().count('"phase": 0') > 50,
    ]
    for moment in moments:
        process = start(path)
        process.wait_for(moment)
        process.kill()
    assert_same(run(path), whole)
    assert not list(out.glob(".*"))


def test_asked_to_stop_it_writes_a_checkpoint_and_exits_with_0(recipe, whole):
    path = recipe("stopped")
    out = path.with_suffix("")
    for number, n_lines in ((signal.SIGTERM, 5), (signal.SIGUSR1, 30)):
        process = start(path)
        process.wait_for(lambda n=n_lines: (out / "metrics.jsonl").exists() and len(lines(out)) > n)
        process.send_signal(number)
        assert process.wait() == 0, process.messages()
        assert torch.load(out / "resume.pt", weights_only=True)["step"] == lines(out)[-1]["step"]
    assert_same(run(path), whole)


def test_a_second_process_in_the_folder_is_refused(recipe, capsys):
    path = recipe("twice", epochs=50)
    out = path.with_suffix("")
    process = start(path)
    process.wait_for(lambda: (out / "resume.pt").exists())
    with pytest.raises(SystemExit) as stopped:
        main(["pretrain", str(path)])
    process.kill()
    assert stopped.value.code == 2
    assert f"is training in {out}" in capsys.readouterr().err


@pytest.mark.slow
def test_two_ranks_equal_one_with_twice_the_batch(recipe):
    one = run(recipe("one", epochs=2, batch_size=20, group_batch=36))
    path = recipe("two", epochs=2, batch_size=10, group_batch=18)
    two = run_together(path, "pretrain")
    assert_same(two, one, rtol=1e-3, atol=2e-5)
    losses = [
        [(line["step"], line["split"], line["masked"]) for line in lines(out)] for out in (one, two)
    ]
    assert [line[:2] for line in losses[0]] == [line[:2] for line in losses[1]]
    for (*_, alone), (*_, together) in zip(*losses, strict=True):
        assert together == pytest.approx(alone, rel=1e-4)


@pytest.mark.extended
def test_ranks_that_are_asked_to_stop_write_a_checkpoint(recipe):
    """As schedulers do it: the signal goes to torchrun and all its processes."""
    path = recipe("stopped_together", epochs=500)
    path.write_text("n_workers = 1\n" + path.read_text())
    out = path.with_suffix("")
    command = [*TOGETHER, STP, "pretrain", path]
    process = subprocess.Popen(
        command, env=ONE_THREAD, stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_for_torchrun(lambda: (out / "metrics.jsonl").exists() and len(lines(out)) > 5, process)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(timeout=60)
    assert torch.load(out / "resume.pt", weights_only=True)["step"] == lines(out)[-1]["step"]
    assert not (out / ".stp_scratch").exists()


@pytest.mark.extended
def test_a_run_of_two_ranks_goes_on_alone_and_says_so(recipe):
    path = recipe("two_then_one", epochs=50, batch_size=10)
    out = path.with_suffix("")
    process = subprocess.Popen(
        [*map(str, TOGETHER), str(STP), "pretrain", str(path)],
        env=ONE_THREAD,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_torchrun(lambda: (out / "metrics.jsonl").exists() and len(lines(out)) > 25, process)
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)
    checkpoint = torch.load(out / "resume.pt", weights_only=True)
    n_lines = len(lines(out))
    process = start(path)
    process.wait_for(lambda: len(lines(out)) > n_lines + 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    expected = "trained with processes: 2, and goes on with 1 at the same place"
    assert expected in process.messages()
    # An epoch of 200 spots has 20 steps of 10 spots now.
    step = 20 * checkpoint["epoch"] + checkpoint["n_spots"] // 10
    assert lines(out)[n_lines]["step"] == step + 1


@pytest.mark.extended
def test_alignment_killed_and_resumed_equals_one_never_stopped(align_recipe):
    path = align_recipe("align_killed")
    path.write_text("n_workers = 2\n" + path.read_text())
    out = path.with_suffix("")
    for n_lines in (2, 12):
        process = start(path, "align")
        process.wait_for(lambda n=n_lines: (out / "metrics.jsonl").exists() and len(lines(out)) > n)
        process.kill()
    assert_same(run(path, "align"), run(align_recipe("align_whole"), "align"))
    assert not list(out.glob(".*"))
    assert not (out / ".stp_scratch").exists()


@pytest.mark.extended
def test_two_ranks_align_as_one_with_twice_the_batch(align_recipe):
    """Negatives of all ranks make the losses of one large batch; those of one rank do not."""
    one = lines(run(align_recipe("align_one"), "align"))
    two = lines(run_together(align_recipe("align_two", batch_size=10), "align"))
    local = lines(
        run_together(align_recipe("align_local", batch_size=10, negatives="local"), "align")
    )
    names = ("patch_gene", "region_gene", "patch_region", "localization")
    steps = [line["step"] for line in one if line["split"] == "train"]
    assert len(steps) == 20
    for together, alone in zip(two, one, strict=True):
        for name in names if alone["split"] == "train" else ():
            assert together[name] == pytest.approx(alone[name], rel=2e-3)
    assert local[0]["patch_gene"] < one[0]["patch_gene"] - 0.3  # ln 20 against ln 10
