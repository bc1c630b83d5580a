"""Score how well embeddings tell labels apart: a linear probe, and clusters of each slide."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import preview
from stp._progress import track
from stp.metrics import classification_scores
from stp.tables import keys
from stp.tl._leiden import RESOLUTION, cluster_agreement
from stp.tl._linear_probe import fit_linear_probe
from stp.workflows.evaluation_baselines import SharedGenes, expression_of, fit_components
from stp.workflows.evaluation_options import TRAIN
from stp.workflows.evaluation_parts import Part, make_part
from stp.workflows.evaluation_tables import COLOR, COMPONENTS, LABEL, MIN_SPOTS, SpotTable

if TYPE_CHECKING:
    from anndata import AnnData

METHODS = {
    keys.GENES: "genes",
    keys.IMAGES: "images",
    keys.FUSED: "fused",
    COMPONENTS: "components_of_expression",
    COLOR: "color_and_texture",
}
GROUP = "group"
IS_SCORED = "is_scored"
SLIDE = "slide"
N_SEEDS = 3
PROBE_METRICS = {"balanced_accuracy": "balanced accuracy", "weighted_f1": "weighted F1"}
CLUSTER_METRICS = {
    "ari_matched": "ARI",
    "nmi_matched": "NMI",
    "ari": f"ARI at resolution {RESOLUTION:g}",
    "nmi": f"NMI at resolution {RESOLUTION:g}",
}
PROBE_TEXT = (
    "A logistic regression learns obs[{label!r}] from the spots of the side 'train' and predicts "
    "the spots of each scored slide. Balanced accuracy is the mean recall of the classes of a "
    "slide. All methods are scored on the same spots."
)
CLUSTER_TEXT = (
    "The labeled spots of each scored slide are clustered by Leiden and compared with "
    "obs[{label!r}]. ARI and NMI are of as many clusters as the slide has classes, as nearly as "
    "possible, and of the fixed resolution of the paper. They are means over {n} seeds. "
    "ARI is 0 by chance and 1 at best."
)


def read_labeled(tables: Sequence[SpotTable], reps: Sequence[str], genes: SharedGenes) -> "AnnData":
    """Return the labeled spots of all tables that have all embeddings, in one table.

    `obs` has the label, the slide, its patient or name as the group, and whether it is scored.
    """
    import anndata

    positions, mean, components = fit_components(tables, genes)
    parts = []
    for table in tables:
        adata = table.read(reps)
        adata.obsm[COMPONENTS] = (expression_of(table, genes, positions) - mean) @ components
        is_used = (adata.obs[LABEL].astype(str) != "").to_numpy()
        for values in adata.obsm.values():
            is_used &= np.isfinite(values).all(axis=1)
        part = adata[is_used].copy()
        part.obs[SLIDE] = table.name
        part.obs[GROUP] = table.patient or table.name
        part.obs[IS_SCORED] = table.side != TRAIN
        parts.append(part)
    joined = anndata.concat(parts, join="inner")
    joined.obs[LABEL] = joined.obs[LABEL].astype(str)
    return joined


def score_probe(spots: "AnnData", tables: Sequence[SpotTable], label: str, seed: int) -> Part:
    """Score a linear probe of each embedding, trained on one side and scored on the other."""
    rows: list[dict[str, Any]] = []
    scored = spots.obs[spots.obs[IS_SCORED]]
    for method, predicted in _predict_labels(spots, seed):
        for table, obs in _slides(tables, scored.assign(**{keys.PROBE: predicted})):
            scores = classification_scores(obs[LABEL].to_numpy(), obs[keys.PROBE].to_numpy())
            rows.append(table.row(method, len(obs)) | scores)
    text = PROBE_TEXT.format(label=label)
    notes = tuple(_note_classes(spots))
    return make_part("linear_probe", "Linear probe", text, PROBE_METRICS, rows, notes)


def _predict_labels(spots: "AnnData", seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each method and the class that it predicts for each scored spot, if there are two."""
    is_scored = spots.obs[IS_SCORED].to_numpy(dtype=bool)
    train = spots.obs[~is_scored]
    classes, codes = np.unique(train[LABEL].to_numpy(dtype=str), return_inverse=True)
    if len(classes) < 2:
        return
    groups = train[GROUP].to_numpy(dtype=str)
    for rep, method in track(list(_reps(spots)), "fit probes", "embedding"):
        features = np.asarray(spots.obsm[rep], np.float32)
        probe, _ = fit_linear_probe(features[~is_scored], codes, groups, seed)
        yield method, classes[probe.predict(features[is_scored])]
    yield "largest_class", np.full(is_scored.sum(), classes[np.bincount(codes).argmax()])


def _note_classes(spots: "AnnData") -> Iterator[str]:
    """Yield the classes of both sides, and what is wrong with them."""
    is_scored = spots.obs[IS_SCORED].to_numpy(dtype=bool)
    train = spots.obs[LABEL][~is_scored].value_counts()
    scored = spots.obs[LABEL][is_scored].value_counts()
    for side, numbers in (("training", train), ("scored", scored)):
        classes = ", ".join(f"{name} ({number:,})" for name, number in numbers.items())
        yield f"Classes of {side} spots: {classes or 'none'}."
    unknown = [name for name in scored.index if name not in train.index]
    if unknown:
        names = preview(unknown, 10)
        yield f"Classes that no slide of 'train' has, so no probe finds them: {names}."
    if len(train) < 2:
        yield "Not scored: the spots of 'train' that are used have fewer than two classes."


def score_clusters(spots: "AnnData", tables: Sequence[SpotTable], label: str, seed: int) -> Part:
    """Score the clusters of each slide in each embedding against labels."""
    from sklearn.preprocessing import StandardScaler

    rows: list[dict[str, Any]] = []
    too_few: list[str] = []
    seeds = range(seed, seed + N_SEEDS)
    slides = list(_slides(tables, spots.obs[spots.obs[IS_SCORED]]))
    for table, obs in track(slides, "cluster slides", "slide"):
        labels = obs[LABEL].to_numpy()
        if len(labels) < MIN_SPOTS or len(np.unique(labels)) < 2:
            too_few.append(table.name)
            continue
        places = spots.obs_names.get_indexer(obs.index)
        for rep, method in _reps(spots):
            embedding = np.asarray(spots.obsm[rep])[places]
            if rep == COLOR:  # its columns have different units
                embedding = StandardScaler().fit_transform(embedding)
            scores = cluster_agreement(embedding, labels, seeds)
            rows.append(table.row(method, len(labels)) | scores)
    notes = []
    if too_few:
        notes.append(
            f"Not clustered, because they have fewer than {MIN_SPOTS} labeled spots or one class: "
            f"{preview(too_few, 10)}."
        )
    text = CLUSTER_TEXT.format(label=label, n=N_SEEDS)
    return make_part("clusters", "Clusters", text, CLUSTER_METRICS, rows, tuple(notes))


def _reps(spots: "AnnData") -> Iterator[tuple[str, str]]:
    """Yield the name in `obsm` and the method of each embedding."""
    for rep, method in METHODS.items():
        if rep in spots.obsm:
            yield rep, method


def _slides(tables: Sequence[SpotTable], obs: Any) -> Iterator[tuple[SpotTable, Any]]:
    """Yield each scored table with the rows of its labeled spots, if it has any."""
    for table in tables:
        rows = obs[obs[SLIDE] == table.name]
        if table.side != TRAIN and len(rows):
            yield table, rows
