"""What does one GPU reach? Ceilings, parity with the CPU, attention, models, loader, training.

    python -m benchmarks.speed.gpu --out results [--golden ../shared/reference/golden]

It takes less than eight minutes on one GPU, and writes `gpu.json` to the folder `--out`. With
`--device cpu --tiny` the same code runs on a CPU in about a minute, at sizes that mean nothing.
Shares are of a matrix product in the same run. Inputs are random and on the device already, but for
the loader and the training. With the golden values of the authors' code, parity is with them.
"""

import argparse
import gc
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import stp
from benchmarks.measure import (
    Row,
    at_least,
    autocast,
    interleave,
    make_parser,
    peak_growth,
    silence_logger,
    synchronize,
    write_results,
)
from benchmarks.speed import loader
from benchmarks.speed.alignment_cost import FORMS, image_flops, make_step, pair_flops
from benchmarks.speed.encoder import MASKED, flops, inference_forms, masked_batch
from benchmarks.speed.gpu_parity import compare_with_cpu
from benchmarks.speed.gpu_training import train_killed_and_whole
from stp.models import GeneEncoder, GeneEncoderConfig, ImageEncoder, ImageEncoderConfig
from stp.train import PretrainConfig
from stp.train.engine.processes import Processes
from stp.train.engine.steps import make_optimizer, training_step
from stp.train.tasks import MaskedGenes

MIN_SHARE = 0.45  # goal: share of a matrix product's speed of a full alignment step
ATTENTION = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "plain": SDPBackend.MATH,
}
ALIGNMENT = {
    "all": "alignment step",
    "all, in micro-batches": "alignment step, in micro-batches",
    "images": "alignment step, gene features cached",
    "lora": "alignment step, LoRA",
}
# Sizes of the real run (the paper's), and those of --tiny.
SIZES = {
    "matrix": (8192, 128),
    "copied_mib": (1024, 2),
    "attention_batch": (64, 1),
    "length": (1500, 48),
    "gene_width": (512, 32),
    "gene_depth": (12, 2),
    "spots": (64, 4),
    "backbone": ("vit_large_patch16_224", "vit_tiny_patch16_224"),
    "image_size": (224, 48),
    "batch": (256, 4),
    "micro_batch": (64, 2),
    "loader_batch": (64, 8),
    "um_per_px": (1.0, 4.0),
    "rows_of_spots": (26, 8),
    "workers": ((0, 4, 8), (0,)),
    "steps": (8, 2),
    "repeats": (5, 1),
}


def measure_ceilings(options: argparse.Namespace, device: torch.device) -> dict[torch.dtype, float]:
    """Return the FLOP/s of a large matrix product in bf16 and fp32."""
    size = options.matrix
    speeds = {}
    for dtype in (torch.bfloat16, torch.float32):
        left, right = torch.randn(2, size, size, device=device).to(dtype)
        product = synchronize(partial(torch.matmul, left, right), device)
        speeds[dtype] = 2.0 * size**3 / interleave({"": product}, options.repeats, 2)[""]
    return speeds


def describe_ceilings(
    speeds: dict[torch.dtype, float], options: argparse.Namespace, device: torch.device
) -> Iterator[Row]:
    """Return the rows of matrix products, and of a copy within the device."""
    for dtype, speed in speeds.items():
        name = str(dtype).removeprefix("torch.")
        yield {
            "measured": f"matrix product, {name}",
            "result": round(speed / 1e12, 3),
            "unit": "TFLOP/s",
        }
    source = torch.ones(options.copied_mib * 2**20, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = synchronize(partial(target.copy_, source), device)
    seconds = interleave({"": copy}, options.repeats, 2)[""]
    moved = 2 * source.numel()  # read and written
    yield {"measured": "copy", "result": round(moved / seconds / 1e9, 1), "unit": "GB/s"}


def compare_attention(
    options: argparse.Namespace, device: torch.device, speed: float
) -> Iterator[Row]:
    """Time each way to compute attention of the gene encoder's shape: 16 heads, 32 wide."""
    shape = (options.attention_batch, 16, options.length, 32)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    query, key, value = torch.randn(3, *shape, device=device).to(dtype)
    inputs = [tensor.requires_grad_() for tensor in (query, key, value)]
    operations = 4.0 * np.prod(shape) * options.length

    def forward() -> torch.Tensor:
        return F.scaled_dot_product_attention(*inputs)

    def backward() -> None:
        torch.autograd.grad(forward().sum(), inputs)

    for name, backend in ATTENTION.items():
        row: Row = {"measured": f"attention, {name}"}
        try:
            with sdpa_kernel(backend):
                runs = {
                    "forward": synchronize(forward, device),
                    "both": synchronize(backward, device),
                }
                seconds = interleave(runs, options.repeats, 2)
        except RuntimeError:
            yield row | {"note": f"not on {device.type}"}
            continue
        share = round(operations / seconds["forward"] / speed, 3)
        yield row | {
            "ms forward": round(1000 * seconds["forward"], 2),
            "ms forward and backward": round(1000 * seconds["both"], 2),
            "result": share,
            "unit": "of a matrix product's speed, forward",
        }


def time_step(
    name: str,
    step: Callable[[], object],
    options: argparse.Namespace,
    device: torch.device,
    *,
    n_items: int,
    operations: float,
    speed: float,
) -> Row:
    """Return speed, share of a matrix product's speed, and peak memory of a step."""
    run = synchronize(step, device)
    run()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
        peak = torch.cuda.max_memory_allocated() / 2**30
    else:
        peak = peak_growth(run) / 1024
    seconds = interleave({"": run}, options.repeats)[""]
    return {
        "measured": name,
        "items/s": round(n_items / seconds, 1),
        "TFLOP/s": round(operations / seconds / 1e12, 3),
        "peak, GiB": round(peak, 2),
        "result": round(operations / seconds / speed, 3),
        "unit": "of a matrix product's speed",
    }


def measure_genes(options: argparse.Namespace, device: torch.device, speed: float) -> Iterator[Row]:
    """Measure inference and a pretraining step of the gene encoder."""
    vocabulary = stp.Vocabulary.default()
    model = GeneEncoderConfig(
        options.length, options.gene_width, options.gene_depth, tie_heads=False
    )
    encoder = GeneEncoder(model, vocabulary).to(device)
    shape = (options.spots, options.length)
    tokens = torch.randint(vocabulary.n_special, vocabulary.n_tokens, shape, device=device)
    lengths = np.full(options.spots, options.length)
    measure = partial(time_step, options=options, device=device, n_items=options.spots, speed=speed)
    operations = flops(model, vocabulary.n_tokens, lengths, np.zeros(options.spots))
    step = inference_forms(encoder, tokens)["ours"]
    yield measure("gene encoder, inference", step, operations=operations)
    task = MaskedGenes(encoder.train())
    config = PretrainConfig(device=str(device))
    optimizer = make_optimizer(task, config)
    batch = masked_batch(tokens)
    alone = Processes(0, 1, device)
    step = partial(training_step, task, optimizer, [batch], config, alone)
    operations = 3 * flops(model, vocabulary.n_tokens, lengths, np.round(MASKED * lengths))
    yield measure("gene encoder, pretraining step", step, operations=operations)


def measure_images(options: argparse.Namespace, device: torch.device, speed: float) -> Row:
    """Measure inference of the image encoder."""
    config = ImageEncoderConfig(options.backbone, {}, image_size=options.image_size)
    encoder = ImageEncoder(config).to(device).eval()
    shape = (options.batch, options.image_size, options.image_size, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)

    def embed() -> None:
        with torch.inference_mode(), autocast(device):
            encoder(images)

    return time_step(
        "image encoder, inference",
        embed,
        options,
        device,
        n_items=options.batch,
        operations=options.batch * image_flops(encoder),
        speed=speed,
    )


def measure_alignment(
    options: argparse.Namespace, device: torch.device, speed: float
) -> Iterator[Row]:
    """Measure steps of the second stage."""
    for form, name in ALIGNMENT.items():
        release_memory(device)
        try:
            row = measure_form(form, name, options, device, speed)
        except torch.cuda.OutOfMemoryError:
            yield {"measured": name, "note": "needs more memory than the GPU has"}
            continue
        yield row | (at_least(MIN_SHARE, row["result"]) if form == "all" else {})


def measure_form(
    form: str, name: str, options: argparse.Namespace, device: torch.device, speed: float
) -> Row:
    """Measure a step in which a part of the model is trained; its memory ends with this call."""
    n_parts = -(-options.batch // options.micro_batch)
    stamp, step = make_step(FORMS[form], options, device)
    operations = options.batch * pair_flops(stamp, FORMS[form], options.length, n_parts)
    return time_step(
        name, step, options, device, n_items=options.batch, operations=operations, speed=speed
    )


def release_memory(device: torch.device) -> None:
    """Give back the memory of models that are no longer used."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def write_stores(folder: Path, options: argparse.Namespace) -> list[Path]:
    """Write two stores of synthetic slides."""
    paths = []
    for seed in range(2):
        n = options.rows_of_spots
        sdata = stp.datasets.synthetic_visium(
            seed=seed, n_rows=n, n_cols=n, um_per_px=options.um_per_px, name=f"slide{seed}"
        )
        paths.append(folder / f"slide{seed}.zarr")
        stp.io.write_store(sdata, paths[-1], patch_um_per_px=options.um_per_px)
    return paths


def compare_feeds(stores: list[Path], options: argparse.Namespace, device: str) -> list[Row]:
    """Compare training fed from stores with training fed from the device's memory."""
    sizes = argparse.Namespace(**{**vars(options), "stores": stores, "batch": options.loader_batch})
    with loader.new_run(device) as run:
        return list(loader.compare(run, sizes))


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure all; print, write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--device", help="torch device; by default a GPU")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU, to test the script")
    parser.add_argument("--golden", type=Path, help="folder of values of the authors' code")
    options = parser.parse_args(arguments)
    for name, (real, tiny) in SIZES.items():
        setattr(options, name, tiny if options.tiny else real)
    silence_logger()
    device = torch.device(options.device or "cuda")
    speeds = measure_ceilings(options, device)
    speed = speeds[torch.bfloat16 if device.type == "cuda" else torch.float32]
    rows = list(describe_ceilings(speeds, options, device))
    rows += compare_with_cpu(options, device)
    rows += compare_attention(options, device, speed)
    rows += measure_genes(options, device, speed)
    rows.append(measure_images(options, device, speed))
    rows += measure_alignment(options, device, speed)
    release_memory(device)
    with tempfile.TemporaryDirectory() as folder:
        stores = write_stores(Path(folder), options)
        rows += compare_feeds(stores, options, str(device))
        release_memory(device)
        rows += train_killed_and_whole(stores, Path(folder), str(device), is_tiny=options.tiny)
    write_results(options.out and options.out / "gpu.json", rows)
    return rows


if __name__ == "__main__":
    main()
