"""Parity of the encoders on a device with the CPU, or with values of the authors' code."""

import argparse
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import stp
from benchmarks.measure import Row, at_most
from stp.models import GeneEncoderConfig, ImageEncoderConfig, Stamp, StampConfig
from stp.models.device import inference
from stp.models.published.release import released_name
from stp.models.published.release_files import read_assets

N_SPOTS = 4
MAX_DIFFERENCE = {"fp32": 1e-3, "bf16": 2e-2}  # goals; TF32 in convolutions counts as fp32


class Case(NamedTuple):
    """An encoder, its input, and the features that it should give."""

    name: str
    encode: Callable[[Stamp, torch.Tensor], torch.Tensor]
    inputs: torch.Tensor
    expected: torch.Tensor
    source: str


def compare_with_cpu(options: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """Return how far features of both encoders are from the expected ones, in each precision."""
    if options.golden and not options.tiny:
        stamp, cases = golden_cases(options.golden)
    else:
        stamp, cases = random_cases(options)
    for case in cases:
        for precision, goal in MAX_DIFFERENCE.items():
            with inference(stamp, device, precision):
                features = case.encode(stamp, case.inputs.to(device)).float().cpu()
            difference = torch.linalg.norm(features - case.expected)
            relative = float(difference / torch.linalg.norm(case.expected))
            cosine = torch.cosine_similarity(features, case.expected).min().item()
            yield {
                "measured": f"{case.name}, {precision}",
                "lowest cosine": round(cosine, 6),
                "result": float(f"{relative:.2g}"),
                "unit": f"relative difference from {case.source}",
                **at_most(goal, relative),
            }


def encode_genes(stamp: Stamp, tokens: torch.Tensor) -> torch.Tensor:
    """Return the features of tokens."""
    return stamp.encode_genes(tokens)[0]


def encode_images(stamp: Stamp, images: torch.Tensor) -> torch.Tensor:
    """Return the features of patches."""
    return stamp.encode_images(images)[0]


def random_cases(options: argparse.Namespace) -> tuple[Stamp, list[Case]]:
    """Build a model with random weights; the CPU says what it should give, in fp32."""
    torch.manual_seed(0)
    gene = GeneEncoderConfig(options.length, options.gene_width, options.gene_depth)
    image = ImageEncoderConfig(options.backbone, {}, image_size=options.image_size)
    vocabulary = stp.Vocabulary.default()
    stamp = Stamp(StampConfig(gene, image), vocabulary).eval()
    shape = (N_SPOTS, options.length)
    tokens = torch.randint(vocabulary.n_special, vocabulary.n_tokens, shape)
    size = options.image_size
    images = torch.randint(0, 256, (N_SPOTS, size, size, 3), dtype=torch.uint8)
    with torch.inference_mode():
        genes = encode_genes(stamp, tokens)
        patches = encode_images(stamp, images)
    source = "the CPU in fp32"
    return stamp, [
        Case("gene encoder", encode_genes, tokens, genes, source),
        Case("image encoder", encode_images, images, patches, source),
    ]


def golden_cases(golden: Path) -> tuple[Stamp, list[Case]]:
    """Build the released architecture with the weights of the golden values."""
    weight = runpy.run_path(str(golden / "weights.py"))["weight"]
    config = StampConfig(
        GeneEncoderConfig(pooling="reference", tie_heads=False),
        ImageEncoderConfig(channel_order="bgr"),
    )
    stamp = Stamp(config, read_assets(golden.parent / "assets")).eval()
    weights = {
        name: torch.from_numpy(np.asarray(weight(released_name(name), tuple(tensor.shape))))
        for name, tensor in stamp.state_dict().items()
    }
    stamp.load_state_dict(weights)
    values = np.load(golden / "align_C4.npz")
    tokens = torch.from_numpy(values["tokens"].astype(np.int64))
    # The golden images are BGR. Slides are RGB, and the model reverses the channels again.
    images = torch.from_numpy(values["patches"]).permute(0, 2, 3, 1).flip(-1)
    genes = torch.from_numpy(values["gene_features_reference_pooling"])
    patches = torch.from_numpy(values["image_features"])
    source = "the authors' code on a CPU"
    return stamp, [
        Case("gene encoder", encode_genes, tokens, genes, source),
        Case("image encoder", encode_images, images, patches, source),
    ]
