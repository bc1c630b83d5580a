"""Speed and memory of stage two, by what is trained: pairs per second, share of a matrix product's speed, hours.

    python -m benchmarks.align [--backbone vit_small_patch16_224 --batch 16 --gene-depth 2 ...]

Random images and tokens that are on the device already. Steps of all forms are interleaved; figures are the median.
Memory is the peak of a training process beyond the weights: activations, gradients and optimizer. With --repeats 0
nothing is run: operations, and hours at 45 % of a speed given as --tflops, for any configuration on any machine.
"""

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch
from torch import nn

import stp
from benchmarks.encoder import ceiling, flops, status, synchronized
from benchmarks.tokenize import interleave
from stp.models import GeneEncoderConfig, ImageEncoderConfig, Stamp, StampConfig
from stp.models.device import autocast, choose_device
from stp.train import AlignConfig
from stp.train.alignment import freeze
from stp.train.engine.loop import make_optimizer
from stp.train.tasks import Alignment

FORMS = {
    "all": {},
    "all, in micro-batches": {"micro_batch": True},
    "images": {"trained": "images"},
    "lora": {"trained": "lora"},
    "projections": {"trained": "projections"},
}
PAIRS, EPOCHS, GOAL = (
    697_000,
    30,
    0.45,
)  # of the paper; the share of a matrix product's speed that is aimed at


def image_flops(stamp: Stamp) -> float:
    """Floating-point operations of a forward pass over one image."""
    vit = stamp.image_encoder.backbone
    block, width = vit.blocks[0], vit.embed_dim
    n_tokens = vit.patch_embed.num_patches + vit.num_prefix_tokens + 1
    linear = sum(layer.weight.numel() for layer in block.modules() if isinstance(layer, nn.Linear))
    embed = 2 * vit.patch_embed.num_patches * vit.patch_embed.proj.weight.numel()
    return embed + len(vit.blocks) * (2 * n_tokens * linear + 4 * n_tokens**2 * width)


def pair_flops(stamp: Stamp, form: dict, length: int, n_parts: int) -> float:
    """Floating-point operations of a step, per pair: three passes where all weights learn, two through adapters.

    In micro-batches all parts but the last are encoded once more.
    """
    trained = form.get("trained", "all")
    tokens = torch.tensor([length]).numpy()
    genes = flops(stamp.config.gene, stamp.vocabulary.n_tokens, tokens, 0 * tokens)
    images = 2 * image_flops(stamp)
    if form.get("micro_batch"):
        return (4 - 1 / n_parts) * (images + genes)
    return {
        "all": 3 * (images + genes),
        "images": 3 * images,
        "lora": 2 * images,
        "projections": images,
    }[trained]


def batch_of(
    stamp: Stamp, n: int, length: int, form: dict, device: torch.device
) -> dict[str, torch.Tensor]:
    """Draw a batch; where genes are frozen, their features."""
    generator, size = torch.Generator().manual_seed(0), stamp.config.image.image_size
    patches, regions = torch.randint(
        0, 256, (2, n, size, size, 3), dtype=torch.uint8, generator=generator
    )
    tokens = torch.randint(
        stamp.vocabulary.n_special, stamp.vocabulary.n_tokens, (n, length), generator=generator
    )
    genes = (
        torch.randn(n, stamp.gene_encoder.width, generator=generator)
        if "trained" in form
        else tokens
    )
    cells = torch.randint(0, 9, (n,), generator=generator)
    drawn = {"cells": cells, "turns": 0 * cells, "stains": torch.ones(n, 3)}
    batch = {"genes": genes, "patches": patches, "regions": regions, **drawn}
    return {name: values.to(device) for name, values in batch.items()}


def build(form: dict, options: argparse.Namespace) -> tuple[Stamp, AlignConfig]:
    """Build a model of which a part is trained."""
    gene = GeneEncoderConfig(options.length, options.gene_width, options.gene_depth)
    image = ImageEncoderConfig(options.backbone, {}, image_size=options.image_size)
    stamp = Stamp(StampConfig(gene, image), stp.Vocabulary.default()).train()
    config = AlignConfig(trained=form.get("trained", "all"))
    freeze(stamp, config)
    return stamp, config


def prepare(
    form: dict, options: argparse.Namespace, device: torch.device
) -> tuple[Stamp, Callable[[], None]]:
    """Build a model and its step."""
    stamp, config = build(form, options)
    task = Alignment(
        stamp.to(device), micro_batch=options.micro_batch if form.get("micro_batch") else None
    )
    optimizer, batch = (
        make_optimizer(task, config),
        batch_of(stamp, options.batch, options.length, form, device),
    )

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, "auto"):
            loss = task(batch)["loss"]
        loss.backward()
        optimizer.step()

    return stamp, step


def memory(name: str, options: argparse.Namespace) -> float:
    """Return the GB that two steps of a form take beyond its weights, in a process of its own; on a CPU, of Linux."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "1000000"  # or what is freed stays, and is counted
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
        return processes.submit(_memory, name, options).result()


def _memory(name: str, options: argparse.Namespace) -> float:
    device = choose_device(None)
    _, step = prepare(FORMS[name], options, device)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        step(), step()
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    before = status("VmRSS")
    step(), step()
    return (status("VmHWM") - before) / 2**20


def on_paper(
    stamp: Stamp, form: dict, options: argparse.Namespace, speed: float
) -> dict[str, str | float]:
    """Say what a form computes, and how long the paper's training would take at the goal."""
    work = pair_flops(stamp, form, options.length, -(-options.batch // options.micro_batch))
    trained = sum(p.numel() for p in stamp.parameters() if p.requires_grad)
    return {
        "trained_parameters": f"{trained / sum(p.numel() for p in stamp.parameters()):.1%}",
        "GFLOP_per_pair": round(work / 1e9, 1),
        f"hours_for_{PAIRS}_pairs_x_{EPOCHS}_at_{GOAL:.0%}": round(
            PAIRS * EPOCHS * work / (GOAL * speed) / 3600, 1
        ),
    }


def main() -> None:
    """Compare all forms of the step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="vit_large_patch16_224")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--micro-batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=1500, help="tokens of every spot")
    parser.add_argument("--gene-width", type=int, default=512)
    parser.add_argument("--gene-depth", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--tflops", type=float, help="speed of a matrix product; measured by default"
    )
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    options = parser.parse_args()
    device = choose_device(None)
    speed = options.tflops * 1e12 if options.tflops else ceiling(device, 5)
    results = {
        "device": device.type,
        "threads": torch.get_num_threads(),
        "ceiling_GFLOPs": round(speed / 1e9),
    }
    if not options.repeats:
        with torch.device("meta"):
            stamps = {name: build(FORMS[name], options)[0] for name in options.forms}
        results |= {
            name: on_paper(stamp, FORMS[name], options, speed) for name, stamp in stamps.items()
        }
        print(json.dumps(results, indent=2))
        return
    kept = {name: memory(name, options) for name in options.forms}
    built = {name: prepare(FORMS[name], options, device) for name in options.forms}
    seconds = interleave(
        {name: synchronized(step, device) for name, (_, step) in built.items()}, options.repeats
    )
    for name, (stamp, _) in built.items():
        paper, rate = on_paper(stamp, FORMS[name], options, speed), options.batch / seconds[name]
        results[name] = paper | {
            "pairs_per_second": round(rate, 2),
            "time_of_first": round(seconds[name] / seconds[options.forms[0]], 2),
            "MFU": round(paper["GFLOP_per_pair"] * 1e9 * rate / speed, 3),
            "GB": round(kept[name], 3),
            f"hours_for_{PAIRS}_pairs_x_{EPOCHS}": round(PAIRS * EPOCHS / rate / 3600, 1),
        }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
