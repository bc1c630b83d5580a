"""Contributions of measured spots to a slide model, by their genes and by their images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from stp._log import warn
from stp.images.grid import grid_cells
from stp.metrics._shifts import standardized_ranks
from stp.models.device import inference
from stp.models.slide import SlideModel
from stp.tables import keys
from stp.tables.coordinates import repeated_place
from stp.tables.embeddings import read_embedding, require_finite
from stp.tables.provenance import model_of
from stp.tables.table import require
from stp.tl._slide_effects import MIN_TILES
from stp.tl._slide_models import require_same_model
from stp.tl._slide_outputs import ExplainedOutput

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

LATTICE = ["array_row", "array_col"]
MIN_AGREEMENT = 0.2  # below, genes do not stand for images: less than 4 % of the order is shared
GOOD_AGREEMENT = 0.4  # below, a warning says so


@dataclass(frozen=True)
class SlideSpots:
    """The spots of one slide with gene vectors.

    Parameters
    ----------
    name
        Name of the slide.
    rows
        Rows of the table (n_spots,).
    contributions
        Contribution of each spot to each output by its genes (n_spots, n_outputs).
    agreement
        Rank correlation of the contributions by genes and by images (n_outputs,).
    n_both
        Number of spots with both vectors.
    cells
        Row and column (n_spots, 2) of each spot on the lattice.
    """

    name: str
    rows: np.ndarray
    contributions: np.ndarray
    agreement: np.ndarray
    n_both: int
    cells: np.ndarray


@dataclass(frozen=True)
class SpotVectors:
    """Aligned vectors (n_obs, width) of all spots by genes and by images; NaN without."""

    genes: np.ndarray
    images: np.ndarray


def read_vectors(table: "AnnData", model: SlideModel, use_rep: str, image_rep: str) -> SpotVectors:
    """Read vectors of genes and images, after a check that the model was trained on such.

    One Stamp sees all patches at one scale, so its digest also settles the scale.

    Raises
    ------
    KeyError
        Vectors are missing.
    ValueError
        They are not of the Stamp on whose aligned image vectors the model was trained.
    """
    vectors = []
    for rep in (use_rep, image_rep):
        values = read_embedding(table, rep).astype(np.float32, copy=False)
        made_by = model_of(table, rep) or {}
        features = replace(
            model.config.features,
            width=values.shape[1],
            model_name=str(made_by.get("name", "")),
            model_class=str(made_by.get("class", "")),
            model_digest=made_by.get("digest"),
        )
        require_same_model(model, features, f"obsm[{rep!r}]")
        vectors.append(values)
    return SpotVectors(*vectors)


def score_spots(
    table: "AnnData",
    model: SlideModel,
    outputs: Sequence[ExplainedOutput],
    vectors: SpotVectors,
    slides: np.ndarray,
    device: str | None,
) -> list[SlideSpots]:
    """Score the spots of each slide by their genes, and compare with the score by images.

    Each slide is a bag.

    Raises
    ------
    ValueError
        No slide has 20 spots with both vectors, or spots lie on no lattice.
    """
    has_genes = np.isfinite(vectors.genes).all(axis=1)
    has_both = has_genes & np.isfinite(vectors.images).all(axis=1)
    weights = np.column_stack([output.weights for output in outputs])
    names = list(dict.fromkeys(slides))
    usable = [name for name in names if has_both[slides == name].sum() >= MIN_TILES]
    if not usable:
        raise ValueError(
            f"no slide has {MIN_TILES} spots with vectors of genes and of images, by which the "
            "road from genes to the slide model is checked; embed both, on the tissue"
        )
    for name in names:
        if name not in usable:
            warn(f"the slide {name!r} has fewer than {MIN_TILES} spots with both vectors: left out")
    spots = []
    with inference(model, device, "fp32") as torch_device:
        for name in usable:
            rows = np.flatnonzero((slides == name) & has_genes)
            contributions = _explain(model, vectors.genes[rows], torch_device) @ weights
            both = np.flatnonzero((slides == name) & has_both)
            by_genes = _explain(model, vectors.genes[both], torch_device) @ weights
            by_images = _explain(model, vectors.images[both], torch_device) @ weights
            agreement = (standardized_ranks(by_genes) * standardized_ranks(by_images)).mean(axis=0)
            cells = _find_cells(table[rows], name)
            spots.append(SlideSpots(name, rows, contributions, agreement, len(both), cells))
    return spots


def describe_agreement(
    spots: Sequence[SlideSpots], outputs: Sequence[ExplainedOutput]
) -> "pd.DataFrame":
    """Return a row per output and slide: how far genes and images agree."""
    import pandas as pd

    rows = [
        {
            "target": output.target.name,
            "output": output.label,
            "slide": slide.name,
            "agreement": slide.agreement[number],
            "n_spots": slide.n_both,
        }
        for number, output in enumerate(outputs)
        for slide in spots
    ]
    table = pd.DataFrame(rows)
    table.index = table.index.astype(str)
    return table


def require_agreement(spots: Sequence[SlideSpots], outputs: Sequence[ExplainedOutput]) -> None:
    """Raise ValueError if contributions by genes and by images disagree; warn if they nearly do."""
    # A constant map has no order to agree on.
    means = np.nan_to_num([slide.agreement for slide in spots]).mean(axis=0)
    lowest = int(means.argmin())
    output = outputs[lowest]
    label = f"{output.target.name}: {output.label}"
    if means[lowest] < MIN_AGREEMENT:
        raise ValueError(
            f"genes do not stand for images in this slide model: contributions of spots by genes "
            f"and by images agree only by {means[lowest]:.2f} for {label}, and "
            f"{MIN_AGREEMENT:g} is needed; align the Stamp on more slides like these, or use "
            "stp.tl.explain_slides"
        )
    if means[lowest] < GOOD_AGREEMENT:
        warn(
            f"contributions of spots by genes and by images agree only by {means[lowest]:.2f} for "
            f"{label}; genes below show what the model would see in genes more than in images"
        )


def _explain(model: SlideModel, vectors: np.ndarray, device: torch.device) -> np.ndarray:
    """Return contributions (n_spots, n_logits) of one bag."""
    bag = torch.from_numpy(vectors).to(device)
    scores = model.explain(bag, torch.tensor([0, len(bag)]))
    contributions = scores.contributions.double().cpu().numpy()
    title = "contributions of spots"
    require_finite(contributions, np.arange(len(bag)), title, "check the weights of the model")
    return contributions


def _find_cells(spots: "AnnData", name: str) -> np.ndarray:
    """Return row and column (n_spots, 2) of each spot on the lattice of its slide."""
    if set(LATTICE) <= set(spots.obs):
        lattice = spots.obs[LATTICE].to_numpy(dtype=float)
        if np.isfinite(lattice).all() and repeated_place(lattice) is None:
            return lattice.round().astype(np.int64)
    places = require(spots, "obsm", keys.SPATIAL, "the reader of the slide")
    return grid_cells(np.asarray(places, np.float64), f"spots of the slide {name!r}")
