"""Train a linear probe: logistic regression of classes on frozen features."""

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from stp._log import warn
from stp.metrics._folds import folds
from stp.tables import keys
from stp.tables.table import table_to_annotate
from stp.tl._probe import Fold, predict_folds, read_spots, write_probe

if TYPE_CHECKING:
    from anndata import AnnData
    from sklearn.pipeline import Pipeline
    from spatialdata import SpatialData

# Inverse strengths of the penalty; the smaller, the stronger.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
N_INNER_FOLDS = 3
MAX_STEPS = 10_000  # of the solver; standardized features need a few hundred


def linear_probe(
    adata: "AnnData | SpatialData",
    label_key: str,
    *,
    group_key: str | None = None,
    n_folds: int = 5,
    use_rep: str = keys.IMAGES,
    seed: int = 0,
    table_key: str = "table",
    key_added: str = keys.PROBE,
    copy: bool = False,
) -> "AnnData | None":
    """Predict classes from frozen features by logistic regression, in folds.

    For each fold, features are standardized on the training spots, and a multinomial logistic
    regression of scikit-learn is fitted to them. Its L2 penalty is chosen on the training spots
    alone: from six strengths, the one with the best balanced accuracy in up to three inner folds.
    Inner folds keep groups whole if the training spots are of two groups or more.
    :func:`stp.tl.linear_probe_paper` follows the paper instead.

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
    seed
        Random seed for the folds.
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
        and prediction (columns); `inverse_penalty` (n_folds,), the parameter C of scikit-learn
        that was chosen in each fold.

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
    >>> stp.tl.linear_probe(sdata, "domain")
    >>> list(sdata.tables["table"].uns["stp_probe"]["scores"])
    ['n_spots', 'balanced_accuracy', 'weighted_f1']
    """
    adata = table_to_annotate(adata, table_key, copy)
    spots = read_spots(adata, label_key, group_key, use_rep)
    splits = folds(spots.labels, spots.groups, n_folds=n_folds, seed=seed)
    penalties: list[float] = []

    def predict(train: np.ndarray, codes: np.ndarray, test: np.ndarray) -> np.ndarray:
        if len(np.unique(codes[train])) == 1:
            fold_name = spots.fold_name(len(penalties), test)
            warn(
                f"all training spots of fold {fold_name!r} are {str(spots.labels[train[0]])!r}, "
                f"so its {len(test)} spots are predicted as this class"
            )
            penalties.append(np.nan)
            return np.full(len(test), codes[train[0]])
        probe, penalty = fit_linear_probe(
            spots.features[train], codes[train], spots.groups_of(train), seed
        )
        penalties.append(penalty)
        return probe.predict(spots.features[test])

    result = predict_folds(spots, splits, predict)
    params = {
        "label_key": label_key,
        "group_key": group_key,
        "n_folds": len(splits),
        "use_rep": use_rep,
        "seed": seed,
    }
    write_probe(adata, key_added, params, result)
    adata.uns[key_added]["inverse_penalty"] = np.array(penalties)
    return adata if copy else None


def fit_linear_probe(
    features: np.ndarray, codes: np.ndarray, groups: np.ndarray | None, seed: int
) -> tuple["Pipeline", float]:
    """Fit the probe of `linear_probe` to some spots; also return its inverse penalty.

    Parameters
    ----------
    features
        Features of the spots (n, d).
    codes
        Number of the class of each spot (n,); there are two or more.
    groups
        Slide or patient of each spot (n,), which inner folds keep whole; None without.
    seed
        Random seed for the folds.
    """
    with warnings.catch_warnings():
        # A class may be rare, or missing in an inner fold; a weak penalty may converge slowly.
        warnings.filterwarnings("ignore", module="sklearn")
        return _fit_probe(features, codes, _inner_folds(codes, groups, seed))


def _inner_folds(codes: np.ndarray, groups: np.ndarray | None, seed: int) -> list[Fold]:
    """Divide training spots into folds with two classes to train on; none if that is impossible.

    Groups stay whole if there are two or more. If then no fold has two classes to train on, the
    folds divide groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if groups is not None and len(np.unique(groups)) > 1:
        n_folds = min(N_INNER_FOLDS, len(np.unique(groups)))
        by_group = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
        splits = _with_two_classes(by_group.split(codes, codes, groups), codes)
        if splits:
            return splits
    n_folds = min(N_INNER_FOLDS, np.bincount(codes).max())
    if n_folds < 2:
        return []
    by_spot = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    return _with_two_classes(by_spot.split(codes, codes), codes)


def _with_two_classes(splits: Iterable[Fold], codes: np.ndarray) -> list[Fold]:
    """Return the folds whose training spots are of two classes or more."""
    return [(train, test) for train, test in splits if len(np.unique(codes[train])) > 1]


def _fit_probe(
    features: np.ndarray, codes: np.ndarray, inner_folds: list[Fold]
) -> tuple["Pipeline", float]:
    """Fit a logistic regression on standardized features; also return its inverse penalty.

    Without inner folds, the penalty is that of scikit-learn.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_STEPS))
    features = features.astype(np.float64)
    if not inner_folds:
        return probe.fit(features, codes), 1.0
    # Of equally good penalties, the strongest is chosen.
    search = GridSearchCV(
        probe,
        {"logisticregression__C": PENALTIES},
        scoring="balanced_accuracy",
        cv=inner_folds,
        error_score="raise",
    )
    search.fit(features, codes)
    return search.best_estimator_, search.best_params_["logisticregression__C"]
