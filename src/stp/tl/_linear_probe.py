"""Train a linear probe: a linear layer that predicts classes from frozen features."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from stp.metrics import classification_scores
from stp.metrics._folds import check_whole, folds
from stp.tables import keys
from stp.tables.embeddings import read_embedding
from stp.tables.table import has_value, record, require_column, table_to_annotate

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

# The paper's.
MAX_EPOCHS = 100
PATIENCE = 5

BATCH_SIZE = 256  # spots per step; fewer if an epoch would otherwise have less than MIN_STEPS
MIN_STEPS = 10
VALIDATION_SHARE = 0.1  # of the training spots; their loss decides when training stops


def linear_probe(
    adata: "AnnData | SpatialData",
    label_key: str,
    *,
    group_key: str | None = None,
    n_folds: int = 5,
    use_rep: str = keys.IMAGES,
    learning_rate: float = 1e-4,
    seed: int = 0,
    table_key: str = "table",
    key_added: str = keys.PROBE,
    copy: bool = False,
) -> "AnnData | None":
    """Predict classes from frozen features by one linear layer, in folds (paper, section A.3.3).

    The layer is trained with cross-entropy and Adam for at most 100 epochs. A tenth of the training
    spots is used for validation. Training stops after five epochs without a lower validation loss,
    and the best layer is used. Features are not standardized.

    Parameters
    ----------
    adata
        Table with features and labels.
    label_key
        Column of `obs` with tissue labels. Spots without a label (missing or "") are neither used
        for training nor scored.
    group_key
        Column of `obs` with slides or patients. Each is predicted by a probe that was trained on
        all others, and spots without one are ignored. Without `group_key` the folds are random,
        which is only allowed for a single slide.
    n_folds
        Number of random folds, if there is no `group_key`.
    use_rep
        Name of the features in `obsm`.
    learning_rate
        Learning rate of Adam; the paper uses 1e-4 for images and 1e-3 for genes.
    seed
        Random seed for the folds and the initial weights.
    table_key
        Name of the table in a SpatialData.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.obs['stp_probe' | key_added]` : categorical
        Class of each spot, predicted by a probe that was not trained on its fold. Missing for spots
        without a label, a group or features.
    `adata.uns['stp_probe' | key_added]` : dict
        `params`; `scores`, one row per fold with the number of spots, balanced accuracy and
        weighted F1; `classes`; `confusion` (n_classes, n_classes), number of spots by label (rows)
        and prediction (columns).

    Raises
    ------
    KeyError
        Labels, groups or features are missing.
    ValueError
        No spot has a label, a group and features; there is only one class; a class has fewer spots
        than there are folds; or spots of one slide would be on both sides of a split.

    Examples
    --------
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.linear_probe(sdata, "domain", learning_rate=1e-2)
    >>> list(sdata.tables["table"].uns["stp_probe"]["scores"])
    ['n_spots', 'balanced_accuracy', 'weighted_f1']
    """
    adata = table_to_annotate(adata, table_key, copy)
    spots = _read_spots(adata, label_key, group_key, use_rep)
    splits = folds(spots.labels, spots.groups, n_folds=n_folds, seed=seed)
    result = _probe(spots, splits, learning_rate, seed)
    params = {
        "label_key": label_key,
        "group_key": group_key,
        "n_folds": len(splits),
        "use_rep": use_rep,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    adata.obs[key_added] = result.predicted_column(adata.n_obs)
    record(
        adata,
        key_added,
        params,
        scores=result.scores,
        classes=result.classes.astype(object),
        confusion=result.confusion(),
    )
    return adata if copy else None


class _Spots(NamedTuple):
    """The spots that have a label, a group and features."""

    rows: np.ndarray  # (n,) rows of the table
    features: np.ndarray  # (n, width) float32
    labels: np.ndarray  # (n,) str
    groups: np.ndarray | None  # (n,) str


class ProbeResult(NamedTuple):
    """Predictions of a linear probe and their scores."""

    rows: np.ndarray  # (n,) rows of the table
    classes: np.ndarray  # (n_classes,) str
    true_codes: np.ndarray  # (n,) position of the label in `classes`
    predicted_codes: np.ndarray  # (n,) position of the predicted class in `classes`
    scores: "pd.DataFrame"  # one row per fold

    def predicted_column(self, n_obs: int) -> "pd.Categorical":
        """Return the class of each row of the table (n_obs,), missing if it has no prediction."""
        import pandas as pd

        codes = np.full(n_obs, -1)
        codes[self.rows] = self.predicted_codes
        return pd.Categorical.from_codes(codes, self.classes)

    def confusion(self) -> np.ndarray:
        """Return the number of spots by label (rows) and prediction (columns)."""
        from sklearn.metrics import confusion_matrix

        labels = np.arange(len(self.classes))
        return confusion_matrix(self.true_codes, self.predicted_codes, labels=labels)


def _read_spots(adata: "AnnData", label_key: str, group_key: str | None, use_rep: str) -> _Spots:
    """Return the spots that a probe can use, or raise an error that names what is missing."""
    features = read_embedding(adata, use_rep).astype(np.float32, copy=False)
    labels = _read_labels(adata, label_key)
    groups = None if group_key is None else require_column(adata, group_key, "group_key")
    usable = labels.notna().to_numpy() & np.isfinite(features).all(axis=1)
    if groups is not None:
        usable &= has_value(groups)
    rows = np.flatnonzero(usable)
    if not len(rows):
        columns = [f"obs[{key!r}]" for key in (label_key, group_key) if key]
        needed = ", ".join([*columns, f"obsm[{use_rep!r}]"])
        raise ValueError(f"no spot has all of {needed}")
    group_names = None if groups is None else groups.astype(str).to_numpy()[rows]
    check_whole(_slides(adata)[rows], group_names)
    return _Spots(rows, features[rows], labels.to_numpy()[rows].astype(str), group_names)


def _read_labels(adata: "AnnData", label_key: str) -> "pd.Series":
    """Return the labels of all spots, None if a spot has none."""
    column = require_column(adata, label_key, "label_key")
    labels = column.astype(object).where(has_value(column), None)
    n_classes = labels.nunique()
    if n_classes == 0:
        raise ValueError(f"no spot has a label in obs[{label_key!r}]; a probe needs two classes")
    if n_classes == 1:
        label = labels.dropna().iloc[0]
        raise ValueError(
            f"all labels are {label!r} in obs[{label_key!r}]; a probe needs two classes"
        )
    return labels


def _slides(adata: "AnnData") -> np.ndarray:
    """Return the region of each row (n_obs,) if the table annotates regions, else one for all."""
    key = adata.uns.get("spatialdata_attrs", {}).get("region_key")
    return adata.obs[key].to_numpy() if key in adata.obs else np.zeros(adata.n_obs)


def _probe(
    spots: _Spots,
    splits: list[tuple[np.ndarray, np.ndarray]],
    learning_rate: float,
    seed: int,
) -> ProbeResult:
    """Predict each fold by a layer that was trained on the others."""
    import pandas as pd

    classes, codes = np.unique(spots.labels, return_inverse=True)
    predicted = np.empty_like(codes)
    scores = {}
    for number, (train, test) in enumerate(splits):
        layer = _train_layer(
            spots.features[train],
            codes[train],
            n_classes=len(classes),
            learning_rate=learning_rate,
            seed=seed,
        )
        predicted[test] = _predict(layer, spots.features[test])
        name = str(number) if spots.groups is None else spots.groups[test[0]]
        fold_scores = classification_scores(codes[test], predicted[test])
        scores[name] = {"n_spots": len(test), **fold_scores}
    table = pd.DataFrame.from_dict(scores, orient="index")
    return ProbeResult(spots.rows, classes, codes, predicted, table)


def _train_layer(
    features: np.ndarray, codes: np.ndarray, *, n_classes: int, learning_rate: float, seed: int
) -> torch.nn.Linear:
    """Train until the validation loss has not fallen for some epochs, and return the best layer."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(codes))
    n_validation = max(1, round(VALIDATION_SHARE * len(codes)))
    validation = torch.from_numpy(order[:n_validation])
    train = torch.from_numpy(order[n_validation:])
    x = torch.from_numpy(features)
    y = torch.from_numpy(codes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(x.shape[1], n_classes)
    optimizer = torch.optim.Adam(layer.parameters(), lr=learning_rate)
    batch_size = min(BATCH_SIZE, max(1, len(train) // MIN_STEPS))
    best_loss = np.inf
    best_state = layer.state_dict()
    n_epochs_without_gain = 0
    for _ in range(MAX_EPOCHS):
        shuffled = train[torch.from_numpy(rng.permutation(len(train)))]
        for batch in shuffled.split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(layer(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = float(F.cross_entropy(layer(x[validation]), y[validation]))
        if loss < best_loss:
            best_loss = loss
            best_state = {name: value.clone() for name, value in layer.state_dict().items()}
            n_epochs_without_gain = 0
        else:
            n_epochs_without_gain += 1
            if n_epochs_without_gain == PATIENCE:
                break
    layer.load_state_dict(best_state)
    return layer


@torch.no_grad()
def _predict(layer: torch.nn.Linear, features: np.ndarray) -> np.ndarray:
    """Return the predicted class of each spot, as a position in the classes."""
    return layer(torch.from_numpy(features)).argmax(dim=1).numpy()
