"""What do time and memory of alignment depend on? Steps of the second stage, by what is trained.

    python -m benchmarks.speed.alignment_cost [--backbone vit_small_patch16_224 --batch 16 ...]

Images and tokens are random and on the device already. Steps of all forms are interleaved; times
are medians. Memory is the peak of a new process beyond the weights: activations, gradients and
optimizer. With `--repeats 0` nothing is run: the table then has operations, and hours at 45 % of a
speed given as `--tflops`, for any configuration on any machine.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

import stp
from benchmarks.measure import (
    Row,
    at_most,
    autocast,
    choose_device,
    in_new_process,
    interleave,
    make_parser,
    matrix_product_speed,
    process_kb,
    synchronize,
    write_results,
)
from benchmarks.speed.encoder import flops
from stp.models import GeneEncoderConfig, ImageEncoder, ImageEncoderConfig, Stamp, StampConfig
from stp.train import AlignConfig
from stp.train.engine.steps import make_optimizer
from stp.train.tasks import Alignment
from stp.train.trained_parts import freeze

N_PAIRS = 697_000  # of the paper
N_EPOCHS = 30  # of the paper
GOAL = 0.45  # share of a matrix product's speed
MAX_MICRO_BATCH_TIME = 1.4  # goal: time in micro-batches over time without


class Form(NamedTuple):
    """What is trained, and whether pairs are encoded in micro-batches."""

    trained: str = "all"
    in_micro_batches: bool = False


FORMS = {
    "all": Form(),
    "all, in micro-batches": Form(in_micro_batches=True),
    "images": Form("images"),
    "lora": Form("lora"),
    "projections": Form("projections"),
}


def image_flops(encoder: ImageEncoder) -> float:
    """Return the floating-point operations of a forward pass over one image."""
    vit = encoder.backbone
    block = vit.blocks[0]
    n_patches = vit.patch_embed.num_patches
    n_tokens = n_patches + vit.num_prefix_tokens + 1
    layers = [layer for layer in block.modules() if isinstance(layer, nn.Linear)]
    n_weights = sum(layer.weight.numel() for layer in layers)
    embedding = 2 * n_patches * vit.patch_embed.proj.weight.numel()
    per_block = 2 * n_tokens * n_weights + 4 * n_tokens**2 * vit.embed_dim
    return embedding + len(vit.blocks) * per_block


def pair_flops(stamp: Stamp, form: Form, length: int, n_parts: int) -> float:
    """Return the floating-point operations of a step, per pair.

    A step takes three passes where all weights learn and two through adapters. In micro-batches all
    parts but the last are encoded once more.
    """
    lengths = np.array([length])
    genes = flops(stamp.config.gene, stamp.vocabulary.n_tokens, lengths, np.zeros(1))
    images = 2 * image_flops(stamp.image_encoder)
    if form.in_micro_batches:
        return (4 - 1 / n_parts) * (images + genes)
    passes = {
        "all": 3 * (images + genes),
        "images": 3 * images,
        "lora": 2 * images,
        "projections": images,
    }
    return passes[form.trained]


def draw_batch(
    stamp: Stamp, n: int, length: int, form: Form, device: torch.device
) -> dict[str, torch.Tensor]:
    """Draw a batch of pairs; if genes are frozen, their features."""
    generator = torch.Generator().manual_seed(0)
    size = stamp.config.image.image_size
    patches, regions = torch.randint(
        0, 256, (2, n, size, size, 3), dtype=torch.uint8, generator=generator
    )
    vocabulary = stamp.vocabulary
    tokens = torch.randint(
        vocabulary.n_special, vocabulary.n_tokens, (n, length), generator=generator
    )
    features = torch.randn(n, stamp.gene_encoder.width, generator=generator)
    cells = torch.randint(0, 9, (n,), generator=generator)
    batch = {
        "genes": tokens if form.trained == "all" else features,
        "patches": patches,
        "regions": regions,
        "cells": cells,
        "rotations": 0 * cells,
        "stains": torch.ones(n, 3),
    }
    return {name: values.to(device) for name, values in batch.items()}


def build(form: Form, options: argparse.Namespace) -> tuple[Stamp, AlignConfig]:
    """Build a model of which a part is trained."""
    gene = GeneEncoderConfig(options.length, options.gene_width, options.gene_depth)
    image = ImageEncoderConfig(options.backbone, {}, image_size=options.image_size)
    stamp = Stamp(StampConfig(gene, image), stp.Vocabulary.default()).train()
    config = AlignConfig(trained=form.trained)
    freeze(stamp, config)
    return stamp, config


def make_step(
    form: Form, options: argparse.Namespace, device: torch.device
) -> tuple[Stamp, Callable[[], None]]:
    """Build a model and its training step."""
    stamp, config = build(form, options)
    micro_batch = options.micro_batch if form.in_micro_batches else None
    task = Alignment(stamp.to(device), micro_batch=micro_batch)
    optimizer = make_optimizer(task, config)
    batch = draw_batch(stamp, options.batch, options.length, form, device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device):
            loss = task(batch)["loss"]
        loss.backward()
        optimizer.step()

    return stamp, step


def measure_memory(name: str, options: argparse.Namespace) -> float:
    """Return the GiB that two steps of a form take beyond its weights; call it in a new process."""
    device = choose_device()
    _, step = make_step(FORMS[name], options, device)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        step()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    before = process_kb("VmRSS")
    step()
    step()
    return (process_kb("VmHWM") - before) / 2**20


def describe(name: str, stamp: Stamp, options: argparse.Namespace, speed: float) -> Row:
    """Return what a form computes, and the hours of the paper's training at the goal."""
    n_parts = -(-options.batch // options.micro_batch)
    operations = pair_flops(stamp, FORMS[name], options.length, n_parts)
    parameters = list(stamp.parameters())
    n_trained = sum(p.numel() for p in parameters if p.requires_grad)
    n_all = sum(p.numel() for p in parameters)
    return {
        "trained": name,
        "share of parameters": round(n_trained / n_all, 3),
        "GFLOP a pair": round(operations / 1e9, 1),
        f"hours at {GOAL:.0%}": round(N_PAIRS * N_EPOCHS * operations / (GOAL * speed) / 3600, 1),
    }


def compare(options: argparse.Namespace, device: torch.device, speed: float) -> Iterator[Row]:
    """Compare time and memory of all forms of the step."""
    # Otherwise the allocator keeps what is freed, and it is counted.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "1000000"
    memory = {name: in_new_process(measure_memory, name, options) for name in options.forms}
    stamps = {}
    steps = {}
    for name in options.forms:
        stamps[name], step = make_step(FORMS[name], options, device)
        steps[name] = synchronize(step, device)
    seconds = interleave(steps, options.repeats)
    first = options.forms[0]  # "all" by default
    first_gflop = describe(first, stamps[first], options, speed)["GFLOP a pair"]
    for name, stamp in stamps.items():
        row = describe(name, stamp, options, speed)
        gflop = row["GFLOP a pair"]
        rate = options.batch / seconds[name]
        time = round(seconds[name] / seconds[first], 2)
        row |= {
            "pairs/s": round(rate, 2),
            "share of a matrix product's speed": round(gflop * 1e9 * rate / speed, 2),
            "memory, GiB": round(memory[name], 2),
            "time by operations (all = 1)": round(gflop / first_gflop, 2),
            "time (all = 1)": time,
        }
        yield row | (at_most(MAX_MICRO_BATCH_TIME, time) if FORMS[name].in_micro_batches else {})


def main(arguments: list[str] | None = None) -> list[Row]:
    """Compare all forms of the step; print, write and return the rows."""
    parser = make_parser(__doc__)
    parser.add_argument("--backbone", default="vit_large_patch16_224")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--micro-batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=1500, help="tokens of every spot")
    parser.add_argument("--gene-width", type=int, default=512)
    parser.add_argument("--gene-depth", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tflops", type=float, help="speed of a matrix product, if not measured")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    options = parser.parse_args(arguments)
    device = choose_device()
    speed = options.tflops * 1e12 if options.tflops else matrix_product_speed(device, 5)
    if options.repeats:
        rows = list(compare(options, device, speed))
    else:
        with torch.device("meta"):
            stamps = {name: build(FORMS[name], options)[0] for name in options.forms}
        rows = [describe(name, stamp, options, speed) for name, stamp in stamps.items()]
    write_results(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
