"""Tiles of a small slide with scores of an untrained slide model."""

from pathlib import Path

import numpy as np
import torch
from tests.features import tiny_encoder, write_wsi

from stp import models, tl
from stp.io import read_wsi, write_tiles
from stp.models.slide_config import SlideTarget

TILE_UM = 56
TWO_CLASSES = (SlideTarget("classes", "EGFR", ("mutated", "wild type"), "mutated", temperature=2),)
ALL_KINDS = (
    SlideTarget("classes", "grade", ("low", "middle", "high")),
    SlideTarget("value", "purity", value_mean=50.0, value_sd=10.0),
    SlideTarget("survival", "days", event="event", edges=(100.0, 300.0)),
)


def make_model(table, targets=TWO_CLASSES) -> models.SlideModel:
    """Return an untrained model that reads the embeddings of a table."""
    values = table.obsm["X_stp_images"]
    digest = table.uns["X_stp_images"]["model"]["digest"]
    features = models.SlideFeatures(
        values.shape[1], "tiny", "ImageEncoder", digest, tile_um=TILE_UM, um_per_px=3.5
    )
    config = models.SlideModelConfig(features, targets, hidden=16, attention=8, standardize=True)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = models.SlideModel(config).eval()
    model.feature_mean[:] = torch.from_numpy(values.mean(axis=0))
    model.feature_sd[:] = torch.from_numpy(values.std(axis=0) + 1e-3)
    return model


def score_slide(folder: Path, targets=TWO_CLASSES, um_per_px: float = 0.5):
    """Write a slide and its tile store, and return the SpatialData of the slide with scores."""
    sdata = read_wsi(write_wsi(folder / "slide.tif", um_per_px=um_per_px), tile_um=TILE_UM)
    tl.embed_images(sdata, tiny_encoder(), progress=False)
    tl.score_tiles(sdata, make_model(sdata["table"], targets))
    write_tiles(sdata, folder / "tiles.zarr")
    return sdata


def log_odds(table) -> np.ndarray:
    """Return the contributions to the log-odds of the first of two classes by hand."""
    contributions = table.obsm["stp_attention_contribution"].astype(float)
    return (contributions[:, 0] - contributions[:, 1]) / 2
