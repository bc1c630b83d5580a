"""What linear probes share: the spots they use, their folds, and how results are stored."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stp._progress import track
from stp.metrics import classification_scores
from stp.metrics._folds import check_whole
from stp.tables.embeddings import read_embedding
from stp.tables.table import has_value, record, require_column

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

Fold = tuple[np.ndarray, np.ndarray]  # rows to train on, rows to test


class ProbeSpots(NamedTuple):
    """The spots that have a label, a group and features."""

    rows: np.ndarray  # (n,) rows of the table
    features: np.ndarray  # (n, width) float32
    labels: np.ndarray  # (n,) str
    groups: np.ndarray | None  # (n,) str

    def fold_name(self, number: int, test: np.ndarray) -> str:
        """Return the group that a fold tests, or the number of a random fold."""
        return str(number) if self.groups is None else str(self.groups[test[0]])

    def groups_of(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the group of each of these spots, or None if there are no groups."""
        return None if self.groups is None else self.groups[rows]


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


def read_spots(adata: "AnnData", label_key: str, group_key: str | None, use_rep: str) -> ProbeSpots:
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
    if group_names is not None:
        _check_classes_recur(labels.to_numpy()[rows], group_names, label_key, group_key)
    return ProbeSpots(rows, features[rows], labels.to_numpy()[rows].astype(str), group_names)


def _check_classes_recur(
    labels: np.ndarray, groups: np.ndarray, label_key: str, group_key: str | None
) -> None:
    """Raise ValueError if each class is in one group: no probe would learn what it is tested on."""
    classes, codes = np.unique(labels.astype(str), return_inverse=True)
    group_codes = np.unique(groups, return_inverse=True)[1]
    if len(np.unique(np.stack([codes, group_codes]), axis=1).T) == len(classes):
        raise ValueError(
            f"each class of obs[{label_key!r}] is in one group of obs[{group_key!r}] only, so no "
            "probe is trained on the class that it is tested on; group_key= is a column of slides "
            "or patients"
        )


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


def predict_folds(
    spots: ProbeSpots,
    splits: list[Fold],
    predict: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> ProbeResult:
    """Predict each fold by a probe that was trained on the others.

    Parameters
    ----------
    spots
        Spots with features and labels.
    splits
        Rows to train on and rows to test, for each fold.
    predict
        Function of the rows to train on, the positions (n,) of all labels in the classes, and the
        rows to test. It returns the predicted positions of the rows to test.
    """
    import pandas as pd

    classes, codes = np.unique(spots.labels, return_inverse=True)
    predicted = np.empty_like(codes)
    scores = {}
    for number, (train, test) in enumerate(track(splits, "fit probes", "fold")):
        predicted[test] = predict(train, codes, test)
        fold_scores = classification_scores(codes[test], predicted[test])
        scores[spots.fold_name(number, test)] = {"n_spots": len(test), **fold_scores}
    table = pd.DataFrame.from_dict(scores, orient="index")
    return ProbeResult(spots.rows, classes, codes, predicted, table)


def write_probe(
    adata: "AnnData", key_added: str, params: dict[str, Any], result: ProbeResult
) -> None:
    """Write the predicted classes to `obs`, and scores and confusion to `uns`."""
    adata.obs[key_added] = result.predicted_column(adata.n_obs)
    record(
        adata,
        key_added,
        params,
        scores=result.scores,
        classes=result.classes.astype(object),
        confusion=result.confusion(),
    )
