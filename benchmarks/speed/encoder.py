"""How fast is the gene encoder, at any size? Next to a matrix product and to a form that pads.

    python -m benchmarks.speed.encoder --data ../shared/data/her2st [--width 512 --depth 12]

The padded form runs the same layers over the whole context with a mask. It has no head at
inference, and in training the head at all positions. All forms are interleaved; times are medians.
Memory is the peak of a pass beyond what stays.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import stp
from benchmarks.measure import (
    Row,
    at_least,
    autocast,
    choose_device,
    interleave,
    make_parser,
    matrix_product_speed,
    peak_growth,
    silence_logger,
    synchronize,
    write_results,
)
from stp.genes.special_tokens import MASK_ID, PAD_ID
from stp.models import GeneEncoder, GeneEncoderConfig
from stp.models.gene import to_model_ids
from stp.train.tasks import MaskedGenes

MASKED = 0.15
MIN_SHARE = 0.8  # goal: measured speed-up over the ratio of operations
SIZES = ("context_length", "width", "depth", "n_heads", "ffn_width")


class Case(NamedTuple):
    """What is timed: a name, its forms, and the operations of our form and of the padded one."""

    name: str
    forms: dict[str, Callable[[], None]]
    flops: float
    padded_flops: float


def flops(
    config: GeneEncoderConfig, n_tokens: int, lengths: np.ndarray, n_predicted: np.ndarray
) -> float:
    """Return the floating-point operations of a forward pass.

    Parameters
    ----------
    config
        Sizes of the encoder.
    n_tokens
        Number of tokens that a head tells apart.
    lengths
        Number of tokens of each spot (n,).
    n_predicted
        Number of positions of each spot to which the head is applied (n,).
    """
    linear = 8 * config.width**2 + 4 * config.width * config.ffn_width
    attention = 4.0 * lengths.astype(float) ** 2 * config.width
    layers = config.depth * (linear * lengths + attention)
    head = 2.0 * config.width * n_tokens * n_predicted.sum()
    return float(layers.sum() + head)


def peak_gb(step: Callable[[], None], device: torch.device) -> float:
    """Return the GiB that a step needs at its peak, beyond what stays from step to step."""
    step()  # what stays is there after it
    if device.type != "cuda":
        return peak_growth(step) / 1024
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def inference_forms(encoder: GeneEncoder, tokens: torch.Tensor) -> dict[str, Callable[[], None]]:
    """Return forward passes of our form, the padded form, and PyTorch's encoder in eval mode."""
    config = encoder.config
    ids = to_model_ids(tokens)
    is_padding = ids == PAD_ID
    layer = nn.TransformerEncoderLayer(
        config.width, config.n_heads, config.ffn_width, 0.0, layer_norm_eps=1e-12, batch_first=True
    )
    peer = nn.TransformerEncoder(layer, config.depth).to(tokens.device).eval()
    embedded = encoder.embeddings(ids).detach()

    def without_gradients(run: Callable[[], object]) -> Callable[[], None]:
        def forward() -> None:
            with torch.inference_mode(), autocast(tokens.device):
                run()

        return forward

    def pad() -> torch.Tensor:
        return encoder.pool(encoder.hidden(ids, padding=True), ~is_padding)

    return {
        "ours": without_gradients(lambda: encoder(tokens)),
        "padded": without_gradients(pad),
        "peer": without_gradients(lambda: peer(embedded, src_key_padding_mask=is_padding)),
    }


def masked_batch(tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return a batch in which a share of the tokens (n, length) is masked."""
    ids = to_model_ids(tokens)
    is_token = ids != PAD_ID
    generator = torch.Generator().manual_seed(0)
    is_masked = (torch.rand(ids.shape, generator=generator).to(ids.device) < MASKED) & is_token
    return {"inputs": ids.masked_fill(is_masked, MASK_ID), "targets": ids, "chosen": is_masked}


def training_forms(encoder: GeneEncoder, tokens: torch.Tensor) -> dict[str, Callable[[], None]]:
    """Return a forward and backward pass of our form and of the padded form."""
    whole = masked_batch(tokens)
    task = MaskedGenes(encoder)
    longest = int((whole["targets"] != PAD_ID).sum(1).max())
    batch = {name: values[:, :longest] for name, values in whole.items()}

    def backward(loss_of: Callable[[], torch.Tensor]) -> Callable[[], None]:
        def step() -> None:
            encoder.zero_grad()
            with autocast(tokens.device):
                loss = loss_of()
            loss.backward()

        return step

    def padded_loss() -> torch.Tensor:
        logits = encoder.predict(encoder.hidden(whole["inputs"], padding=True))
        is_masked = whole["chosen"]
        return F.cross_entropy(logits[is_masked], whole["targets"][is_masked])

    return {"ours": backward(lambda: task(batch)["loss"]), "padded": backward(padded_loss)}


def compare(
    encoder: GeneEncoder, tokens: torch.Tensor, speed: float, repeats: int
) -> Iterator[Row]:
    """Compare speeds with numbers of operations, at inference and in training."""
    config = encoder.config
    n_tokens = encoder.vocabulary.n_tokens
    lengths = (tokens > 0).sum(1).cpu().numpy()
    whole = np.full(len(tokens), tokens.shape[1])
    masked = np.round(MASKED * lengths)
    none = np.zeros(len(tokens))
    inference = Case(
        "inference",
        inference_forms(encoder, tokens),
        flops(config, n_tokens, lengths, none),
        flops(config, n_tokens, whole, none),
    )
    yield time_case(inference, tokens, speed, repeats)
    training = Case(
        "training",
        training_forms(encoder, tokens),
        3 * flops(config, n_tokens, lengths, masked),
        3 * flops(config, n_tokens, whole, whole),
    )
    yield time_case(training, tokens, speed, repeats)


def time_case(case: Case, tokens: torch.Tensor, speed: float, repeats: int) -> Row:
    """Return times of all forms, and what they are of the operations."""
    runs = {name: synchronize(run, tokens.device) for name, run in case.forms.items()}
    seconds = interleave(runs, repeats)
    n_spots = len(tokens)
    mean_length = (tokens > 0).sum(1).float().mean().item()
    flop_ratio = case.padded_flops / case.flops
    time_ratio = seconds["padded"] / seconds["ours"]
    share = round(time_ratio / flop_ratio, 2)
    row = {
        "measured": f"{case.name}, {mean_length:,.0f} tokens per spot",
        "spots/s": round(n_spots / seconds["ours"], 2),
        "GFLOP per spot": round(case.flops / n_spots / 1e9, 1),
        "share of a matrix product's speed": round(case.flops / seconds["ours"] / speed, 2),
        "peak, GiB": round(peak_gb(case.forms["ours"], tokens.device), 2),
        "FLOP ratio": round(flop_ratio, 2),
        "padded / ours": round(time_ratio, 2),
        "result": share,
        "unit": "padded / ours, over the FLOP ratio",
        **at_least(MIN_SHARE, share),
    }
    if "peer" in seconds:
        row["nn.TransformerEncoder / ours"] = round(seconds["peer"] / seconds["ours"], 2)
    return row


def read_tokens(data: Path, n_spots: int, share: float, context_length: int) -> torch.Tensor:
    """Return tokens of spots of section C4 of which a share of the counts is kept."""
    adata = anndata.read_h5ad(data / "C4.h5ad")
    vocabulary = stp.Vocabulary.default().fit(adata)
    thinned = np.random.default_rng(0).binomial(adata.X.data.astype(int), share)
    adata.X.data = thinned.astype(np.float32)
    stp.tl.tokenize(adata, vocabulary, context_length=context_length)
    has_tokens = np.flatnonzero(adata.obs["stp_tokens_n"])
    rows = np.random.default_rng(0).permutation(has_tokens)[:n_spots]
    return torch.from_numpy(adata.obsm["stp_tokens"][rows].astype(np.int64))


def main(arguments: list[str] | None = None) -> list[Row]:
    """Measure on real spots, whole and thinned; print, write and return the rows."""
    default = GeneEncoderConfig()
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of HER2+ sections")
    for name in SIZES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(default, name))
    parser.add_argument("--spots", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    silence_logger()
    device = choose_device()
    config = GeneEncoderConfig(
        context_length=options.context_length,
        width=options.width,
        depth=options.depth,
        n_heads=options.n_heads,
        ffn_width=options.ffn_width,
        tie_heads=False,
    )
    encoder = GeneEncoder(config, stp.Vocabulary.default()).to(device)
    speed = matrix_product_speed(device, 5)
    rows = []
    for share in (1.0, 0.04):
        tokens = read_tokens(options.data, options.spots, share, config.context_length)
        rows += compare(encoder, tokens.to(device), speed, options.repeats)
    rows.append({"measured": "matrix product", "result": round(speed / 1e9), "unit": "GFLOP/s"})
    write_results(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
