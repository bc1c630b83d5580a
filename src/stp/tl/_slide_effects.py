"""Correlate contributions of tiles with their genes, slide by slide."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from stp._progress import track
from stp.data.bag_file import read_source
from stp.metrics._shifts import MIN_SHIFTS, shifted_correlations
from stp.models.device import inference
from stp.models.slide import SlideModel
from stp.tables.cohort import BagSource
from stp.tables.embeddings import require_finite
from stp.tl._slide_outputs import ExplainedOutput, find_side
from stp.tl._tile_genes import GeneColumns, TileGenes, read_tile_genes

if TYPE_CHECKING:
    import pandas as pd

MIN_TILES = 20  # near tiles of a slide that is used


@dataclass(frozen=True)
class SlideEffects:
    """Effects of genes in all slides, by patient and within a patient by id of the slide.

    Parameters
    ----------
    slides
        Ids of the slides.
    patients
        Ids of the patients.
    patient
        Number of the patient of each slide (n_slides,).
    correlation
        Rank correlations (n_slides, n_outputs, n_genes), NaN for slides that are not used.
    standardized
        The same, standardized by shifted maps.
    sides
        Predicted side of each slide for each output (n_slides, n_outputs).
    scores
        Value of each output of each patient (n_patients, n_outputs).
    n_tiles
        Number of tiles (n_slides,).
    n_near
        Number of tiles with a prediction that are not far (n_slides,).
    n_far
        Number of far tiles (n_slides,).
    n_shifts
        Number of shifted maps (n_slides,).
    reasons
        Why a slide is not used, "" if it is (n_slides,).
    """

    slides: list[str]
    patients: list[str]
    patient: np.ndarray
    correlation: np.ndarray
    standardized: np.ndarray
    sides: np.ndarray
    scores: np.ndarray
    n_tiles: np.ndarray
    n_near: np.ndarray
    n_far: np.ndarray
    n_shifts: np.ndarray
    reasons: list[str]

    @property
    def is_used(self) -> np.ndarray:
        """Which slides (n_slides,) are used."""
        return np.array([reason == "" for reason in self.reasons])

    def slides_table(self, has_far: bool) -> "pd.DataFrame":
        """Return a row per slide: its tiles, and whether it is used."""
        import pandas as pd

        share_far = self.n_far / np.maximum(self.n_tiles, 1)
        return pd.DataFrame(
            {
                "patient": np.array(self.patients, object)[self.patient],
                "n_tiles": self.n_tiles,
                "n_near": self.n_near,
                "share_far": share_far if has_far else np.nan,
                "n_shifts": self.n_shifts,
                "is_used": self.is_used,
                "reason": self.reasons,
            },
            index=pd.Index(self.slides, name="slide"),
        )

    def sides_table(self, outputs: Sequence[ExplainedOutput]) -> "pd.DataFrame":
        """Return a row per slide and output: the side on which the slide is predicted."""
        import pandas as pd

        frames = [
            pd.DataFrame(
                {
                    "slide": self.slides,
                    "target": output.target.name,
                    "output": output.label,
                    "side": self.sides[:, number].astype(object),
                }
            )
            for number, output in enumerate(outputs)
        ]
        table = pd.concat(frames, ignore_index=True)
        table.index = table.index.astype(str)
        return table


@dataclass(frozen=True)
class _Scan:
    """What each slide is measured with."""

    columns: GeneColumns
    key: str
    n_shifts: int
    seed: int


def measure_slides(
    bags: Mapping[str, Sequence[BagSource]],
    models: Sequence[SlideModel],
    is_used: np.ndarray,
    outputs: Sequence[ExplainedOutput],
    columns: GeneColumns,
    expression_key: str,
    *,
    n_shifts: int,
    seed: int,
    device: str | None,
    is_shown: bool,
) -> SlideEffects:
    """Correlate contributions with genes in all slides, with one patient in memory."""
    sources = [source for bag in bags.values() for source in bag]
    shape = (len(sources), len(outputs), len(columns.names))
    effects = SlideEffects(
        slides=[source.slide for source in sources],
        patients=list(bags),
        patient=np.repeat(np.arange(len(bags)), [len(bag) for bag in bags.values()]),
        correlation=np.full(shape, np.nan),
        standardized=np.full(shape, np.nan),
        sides=np.full(shape[:2], "", dtype="U7"),
        scores=np.empty((len(bags), len(outputs))),
        n_tiles=np.array([source.n_tiles for source in sources]),
        n_near=np.zeros(shape[0], int),
        n_far=np.zeros(shape[0], int),
        n_shifts=np.zeros(shape[0], int),
        reasons=[""] * shape[0],
    )
    scan = _Scan(columns, expression_key, n_shifts, seed)
    row = 0
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(inference(model, device, "fp32"))
        items = track(
            enumerate(bags.values()), "explain", "patient", total=len(bags), is_shown=is_shown
        )
        for number, bag in items:
            own_models = [one for one, use in zip(models, is_used[number], strict=True) if use]
            contributions, logits, predictions = _explain_bag(bag, own_models)
            first = 0
            for position, output in enumerate(outputs):
                effects.scores[number, position] = logits @ output.weights
                side = find_side(output, own_models, predictions)
                effects.sides[row : row + len(bag), position] = side
            weights = np.column_stack([output.weights for output in outputs])
            for source in bag:
                tiles = contributions[first : first + source.n_tiles] @ weights
                first += source.n_tiles
                _measure_slide(effects, row, source, tiles, scan)
                row += 1
    return effects


def _explain_bag(
    bag: Sequence[BagSource], models: Sequence[SlideModel]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return contributions of tiles, logits and predictions of a patient: means over models."""
    device = models[0].feature_mean.device
    features = np.concatenate([read_source(source) for source in bag])
    tiles = torch.from_numpy(features).to(device)
    offsets = torch.tensor([0, len(features)])
    contributions: np.ndarray | float = 0.0
    logits: np.ndarray | float = 0.0
    predictions: np.ndarray | float = 0.0
    for model in models:
        scores = model.explain(tiles, offsets)
        contributions = contributions + scores.contributions.double().cpu().numpy() / len(models)
        logits = logits + scores.logits[0].double().cpu().numpy() / len(models)
        own = model.to_predictions(scores.logits)[0].double().cpu().numpy()
        predictions = predictions + own / len(models)
    contributions = np.asarray(contributions)
    require_finite(
        contributions,
        np.arange(len(contributions)),
        f"contributions of tiles of the patient {bag[0].patient!r}",
        "check the weights of the model",
    )
    return contributions, np.asarray(logits), np.asarray(predictions)


def _measure_slide(
    effects: SlideEffects, row: int, source: BagSource, tiles: np.ndarray, scan: _Scan
) -> None:
    """Write the effects in one slide, or why there are none."""
    if source.n_tiles < MIN_TILES:
        effects.reasons[row] = f"fewer than {MIN_TILES} tiles"
        return
    genes = read_tile_genes(source, scan.key, scan.columns)
    effects.n_near[row] = genes.is_near.sum()
    effects.n_far[row] = genes.is_far.sum()
    if effects.n_near[row] < MIN_TILES:
        effects.reasons[row] = f"fewer than {MIN_TILES} near tiles"
        return
    effects.reasons[row] = _correlate(effects, row, genes, tiles, scan)
    if effects.reasons[row]:
        effects.correlation[row] = np.nan


def _correlate(
    effects: SlideEffects, row: int, genes: TileGenes, tiles: np.ndarray, scan: _Scan
) -> str:
    """Write the correlations of a slide with enough tiles; return why there are none, or ""."""
    is_near = genes.is_near
    for position, values in enumerate(tiles.T):
        result = shifted_correlations(
            values[is_near],
            genes.values[is_near],
            genes.cells[is_near],
            n_shifts=scan.n_shifts,
            seed=(scan.seed, row),
        )
        effects.n_shifts[row] = len(result.null)
        if len(result.null) < MIN_SHIFTS:
            return f"fewer than {MIN_SHIFTS} shifts of its map have a quarter of its tiles"
        if not np.isfinite(result.correlation).any():
            return "contributions or genes are the same in all near tiles"
        effects.correlation[row, position] = result.correlation
        effects.standardized[row, position] = result.standardized()
    return ""
