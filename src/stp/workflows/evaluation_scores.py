"""Score retrieval and predicted expression of a model against baselines."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stp import tl
from stp._log import count
from stp._progress import track
from stp.metrics import ScoredGenes, expression_scores, gene_pearson
from stp.retrieval.position import copy_by_position
from stp.tables import keys
from stp.workflows.evaluation_baselines import SharedGenes, expression_of
from stp.workflows.evaluation_options import TRAIN
from stp.workflows.evaluation_parts import Part, make_part
from stp.workflows.evaluation_tables import COLOR, SpotTable

if TYPE_CHECKING:
    from anndata import AnnData

N_NEIGHBORS = 50
RETRIEVED = "retrieved"  # name of the prediction by retrieval
N_NEAREST = 4  # spots that the baseline by position copies from a section
RECALLS = (1, 5, 10)
RECALL_METRICS = {f"recall_at_{k}": f"recall@{k}" for k in RECALLS}
EXPRESSION_METRICS = {"pcc_v": "PCC-V", "pcc_e": "PCC-E", "pcc": "PCC", "mse": "MSE"}
NAMES = {"PCC-V": "pcc_v", "PCC-E": "pcc_e", "MSE": "mse"}
RETRIEVAL_TEXT = (
    "For each spot of a slide, all spots of the slide are sorted by how well their genes match its "
    "image. Recall@k is the share of spots that find themselves among the first k. Chance is k "
    "divided by the number of spots."
)
EXPRESSION_TEXT = (
    "Expression of each scored slide is predicted from its image, by the slides of the side "
    "'train'. PCC is the mean correlation of a gene over the spots of a slide. PCC-V is of the "
    "{variable} most variable genes of 'train', PCC-E of the {expressed} most expressed ones, and "
    "PCC of both. MSE is the mean squared error of both. A model is of use if it beats all "
    "baselines."
)


def score_retrieval(tables: Sequence[SpotTable]) -> Part:
    """Score how often the image of a spot finds its own genes, next to chance."""
    rows = []
    for table in tables:
        if table.side == TRAIN:
            continue
        adata = table.read([keys.aligned(keys.IMAGES), keys.aligned(keys.GENES)])
        tl.score_retrieval(adata)
        result = adata.uns["stp_retrieval_scores"]
        for method, prefix in (("retrieval", "recall"), ("chance", "chance")):
            scores = {f"recall_at_{k}": result["scores"][f"{prefix}@{k}"] for k in RECALLS}
            rows.append(table.row(method, result["n_spots"]) | scores)
    return make_part(
        "retrieval", "Retrieval: images find genes", RETRIEVAL_TEXT, RECALL_METRICS, rows
    )


def score_expression(
    tables: Sequence[SpotTable], genes: SharedGenes, *, can_retrieve: bool
) -> Part:
    """Score expression that is predicted from images, next to baselines.

    Parameters
    ----------
    tables
        Tables of both sides.
    genes
        The genes that all tables measure.
    can_retrieve
        Whether images of the model find genes.
    """
    positions, scored_genes = genes.choose()
    train = [table for table in tables if table.side == TRAIN]
    scored = [table for table in tables if table.side != TRAIN]
    names = list(genes.names[positions])
    query, first_rows = _join(scored)
    predictions = dict(_predict(query, train, names, can_retrieve))
    mean = genes.mean[positions]
    rows = []
    for table, first in zip(scored, first_rows, strict=True):
        measured = expression_of(table, genes, positions)
        part = slice(first, first + table.n_spots)
        predicted = {method: values[part] for method, values in predictions.items()}
        predicted["mean_profile"] = np.broadcast_to(mean, measured.shape)
        by_position = _predict_by_position(table, train, genes, positions)
        if by_position is not None:
            predicted["position"] = by_position
        is_scored = np.all([np.isfinite(values).all(axis=1) for values in predicted.values()], 0)
        for method, values in predicted.items():
            scores = _score(measured[is_scored], values[is_scored], scored_genes)
            rows.append(table.row(method, int(is_scored.sum())) | scores)
    text = EXPRESSION_TEXT.format(
        variable=len(scored_genes.variable), expressed=len(scored_genes.expressed)
    )
    notes = []
    has_position = any(row["method"] == "position" for row in rows)
    if not has_position:
        notes.append(
            "No baseline by position: it needs references of the same patient with coordinates in "
            "µm."
        )
    if can_retrieve:
        notes += _note_doubtful(query)
    n_references = sum(table.n_spots for table in train)
    notes.append(f"References: {count(n_references, 'spot')} of {count(len(train), 'slide')}.")
    return make_part(
        "expression",
        "Expression predicted from images",
        text,
        EXPRESSION_METRICS,
        rows,
        tuple(notes),
    )


def _join(scored: Sequence[SpotTable]) -> tuple["AnnData", list[int]]:
    """Return the image vectors of all scored spots in one table, and the first row of each."""
    import anndata

    reps = [keys.IMAGES, keys.aligned(keys.IMAGES), COLOR]
    parts = [table.read(reps) for table in scored]
    joined = anndata.concat(parts)
    joined.uns[keys.IMAGES] = parts[0].uns[keys.IMAGES]  # one model made all
    first_rows = np.cumsum([0, *(part.n_obs for part in parts[:-1])]).tolist()
    return joined, first_rows


def _predict(
    query: "AnnData", train: Sequence[SpotTable], names: list[str], can_retrieve: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each method that learns from references, and what it predicts (n_spots, n_genes)."""
    paths = [table.path for table in train]
    if can_retrieve:
        n_references = sum(table.n_spots for table in train)
        n_neighbors = min(N_NEIGHBORS, n_references)
        tl.predict_expression(
            query, paths, genes=names, n_neighbors=n_neighbors, key_added=RETRIEVED
        )
        yield "expression_by_retrieval", query.obsm[RETRIEVED]
    features = {"ridge_on_images": keys.IMAGES, "ridge_on_color_and_texture": COLOR}
    for method, rep in track(features.items(), "fit baselines", "ridge"):
        tl.regress_expression(query, paths, genes=names, use_rep=rep)
        yield method, query.obsm[keys.EXPRESSION]


def _note_doubtful(query: "AnnData") -> Iterator[str]:
    """Yield how many spots have no similar reference, if any."""
    is_doubtful = query.obs[keys.far(RETRIEVED)] | query.obs[keys.uniform(RETRIEVED)]
    n_doubtful = int(is_doubtful.sum())
    if n_doubtful:
        yield (
            f"{n_doubtful:,} of {count(query.n_obs, 'scored spot')} are far from all references, "
            "so their predictions by retrieval say little."
        )


def _predict_by_position(
    table: SpotTable, train: Sequence[SpotTable], genes: SharedGenes, positions: np.ndarray
) -> np.ndarray | None:
    """Copy the nearest spots of references of the same patient; None if there are none."""
    is_placed = table.is_in_um and keys.SPATIAL in table.open_table().obsm
    sisters = [
        other
        for other in train
        if other.patient and other.patient == table.patient and other.is_in_um
    ]
    if not is_placed or not sisters:
        return None
    references = [
        (other.read([keys.SPATIAL]).obsm[keys.SPATIAL], expression_of(other, genes, positions))
        for other in sisters
    ]
    centers = table.read([keys.SPATIAL]).obsm[keys.SPATIAL]
    return copy_by_position(references, centers, N_NEAREST)


def _score(
    measured: np.ndarray, predicted: np.ndarray, scored_genes: ScoredGenes
) -> dict[str, float]:
    """Return the scores of a slide, NaN if no spot is predicted."""
    if not len(measured):
        return dict.fromkeys(EXPRESSION_METRICS, np.nan)
    scores = expression_scores(measured, predicted, scored_genes)
    values = {NAMES[name]: value for name, value in scores.items()}
    return values | {"pcc": float(gene_pearson(measured, predicted).mean())}
