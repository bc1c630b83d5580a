"""Speed of the gene encoder at any size: FLOPs, share of a matrix product's speed, ratio to the padded form.

    python -m benchmarks.encoder --data ../shared/data/her2st [--width 512 --depth 12 --spots 4]

The padded form runs the same layers over the whole context with a mask, with no head at inference and with the head at
all positions in training. All forms are interleaved; figures are the median of several runs. Memory is the peak of a
pass beyond what stays.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import stp
from benchmarks.tokenize import interleave
from stp.genes.special_tokens import MASK_ID, PAD_ID
from stp.models import GeneEncoder, GeneEncoderConfig
from stp.models.device import autocast, choose_device
from stp.models.gene import to_model_ids
from stp.train.tasks import MaskedGenes

MASKED = 0.15


def flops(
    config: GeneEncoderConfig, n_tokens: int, lengths: np.ndarray, heads: np.ndarray
) -> float:
    """Floating-point operations of a forward pass over spots of these lengths, with the head at `heads` positions."""
    width, linear = config.width, 8 * config.width**2 + 4 * config.width * config.ffn_width
    attention = 4.0 * lengths.astype(float) ** 2 * width
    return float(
        (config.depth * (linear * lengths + attention)).sum() + 2.0 * width * n_tokens * heads.sum()
    )


def ceiling(device: torch.device, repeats: int) -> float:
    """FLOP/s of a large matrix product, in the precision that the encoder uses there."""
    n, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    return (
        2.0
        * n**3
        / interleave({"product": synchronized(lambda: a @ b, device)}, repeats)["product"]
    )


def synchronized(run: Callable, device: torch.device) -> Callable:
    """Return a function whose end is that of its work on the device."""

    def timed() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return timed


def memory(step: Callable[[], None], device: torch.device) -> float:
    """Return the GB that a step needs at its peak, beyond what is there before; on a CPU, of Linux."""
    step()  # so that what stays is there
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**30
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before = status("VmRSS")
    step()
    return (status("VmHWM") - before) / 2**20


def status(name: str) -> int:
    """Read a line of the kernel's account of this process, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def inference_forms(encoder: GeneEncoder, tokens: torch.Tensor) -> dict[str, Callable]:
    """Return ours, the padded form, and PyTorch's own encoder in eval mode."""
    config, ids = encoder.config, to_model_ids(tokens)
    layer = nn.TransformerEncoderLayer(
        config.width, config.n_heads, config.ffn_width, 0.0, layer_norm_eps=1e-12, batch_first=True
    )
    theirs = nn.TransformerEncoder(layer, config.depth).to(tokens.device).eval()
    embedded = encoder.embeddings(ids).detach()

    def forward(run: Callable) -> Callable:
        def without_gradients() -> None:
            with torch.inference_mode(), autocast(tokens.device, "auto"):
                run()

        return without_gradients

    return {
        "ours": forward(lambda: encoder(tokens)),
        "padded": forward(lambda: encoder.pool(encoder.hidden(ids, padding=True), ids != PAD_ID)),
        "nn.TransformerEncoder": forward(
            lambda: theirs(embedded, src_key_padding_mask=ids == PAD_ID)
        ),
    }


def training_forms(encoder: GeneEncoder, tokens: torch.Tensor) -> dict[str, Callable]:
    """Return a forward and backward pass of ours and of the padded form."""
    ids = to_model_ids(tokens)
    generator = torch.Generator().manual_seed(0)
    chosen = (torch.rand(ids.shape, generator=generator).to(ids.device) < MASKED) & (ids != PAD_ID)
    inputs, task = ids.masked_fill(chosen, MASK_ID), MaskedGenes(encoder)
    longest = int((ids != PAD_ID).sum(1).max())
    batch = {
        "inputs": inputs[:, :longest],
        "targets": ids[:, :longest],
        "chosen": chosen[:, :longest],
    }

    def backward(loss: Callable) -> Callable:
        def step() -> None:
            encoder.zero_grad()
            with autocast(tokens.device, "auto"):
                value = loss()
            value.backward()

        return step

    def padded() -> torch.Tensor:
        logits = encoder.predict(encoder.hidden(inputs, padding=True))
        return F.cross_entropy(logits[chosen], ids[chosen])

    return {"ours": backward(lambda: task(batch)["loss"]), "padded": backward(padded)}


def measure(
    encoder: GeneEncoder, tokens: torch.Tensor, speed: float, repeats: int
) -> dict[str, dict]:
    """Compare speeds with operations, at inference and in training."""
    config, n_tokens = encoder.config, encoder.vocabulary.n_tokens
    lengths, whole = (tokens > 0).sum(1).cpu().numpy(), np.full(len(tokens), tokens.shape[1])
    masked, none = np.round(MASKED * lengths), np.zeros(len(tokens))
    work = {
        "inference": (flops(config, n_tokens, lengths, none), flops(config, n_tokens, whole, none)),
        "training": (
            3 * flops(config, n_tokens, lengths, masked),
            3 * flops(config, n_tokens, whole, whole),
        ),
    }
    forms = {
        "inference": inference_forms(encoder, tokens),
        "training": training_forms(encoder, tokens),
    }
    results = {}
    for name, runs in forms.items():
        seconds = interleave(
            {form: synchronized(run, tokens.device) for form, run in runs.items()}, repeats
        )
        ours, padded = work[name]
        results[name] = {
            "spots_per_second": round(len(tokens) / seconds["ours"], 3),
            "GFLOP_per_spot": round(ours / len(tokens) / 1e9, 1),
            "MFU": round(ours / seconds["ours"] / speed, 3),
            "FLOP_ratio": round(padded / ours, 2),
            "peak_GB": round(memory(runs["ours"], tokens.device), 2),
            "speed_ratio": {
                form: round(value / seconds["ours"], 2) for form, value in seconds.items()
            },
        }
    return results


def spots(data: Path, n_spots: int, thinned: float, context_length: int) -> torch.Tensor:
    """Return tokens of some spots of section C4, thinned to a share of their counts."""
    adata = anndata.read_h5ad(data / "C4.h5ad")
    vocabulary = stp.Vocabulary.default().fit(adata)
    adata.X.data = (
        np.random.default_rng(0).binomial(adata.X.data.astype(int), thinned).astype(np.float32)
    )
    stp.tl.tokenize(adata, vocabulary, context_length=context_length)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(adata.obs["stp_tokens_n"]))[:n_spots]
    return torch.from_numpy(adata.obsm["stp_tokens"][rows].astype(np.int64))


def main() -> None:
    """Measure on real spots, whole and thinned."""
    default = GeneEncoderConfig()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of HER2+ sections")
    for name in ("context_length", "width", "depth", "n_heads", "ffn_width"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(default, name))
    parser.add_argument("--spots", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    options = vars(parser.parse_args())
    data, n_spots, repeats = (options.pop(name) for name in ("data", "spots", "repeats"))
    device = choose_device(None)
    config = GeneEncoderConfig(**options, tie_heads=False)
    encoder = GeneEncoder(config, stp.Vocabulary.default()).to(device)
    speed = ceiling(device, 5)
    results = {
        "device": device.type,
        "threads": torch.get_num_threads(),
        "ceiling_GFLOPs": round(speed / 1e9),
    }
    for name, thinned in (("whole", 1.0), ("thinned", 0.04)):
        tokens = spots(data, n_spots, thinned, config.context_length).to(device)
        results[f"{name}, {(tokens > 0).sum(1).float().mean():.0f} tokens"] = measure(
            encoder, tokens, speed, repeats
        )
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
