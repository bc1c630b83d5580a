"""A linear probe: what a linear layer reads off frozen features."""

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from stp.metrics import classification_scores
from stp.metrics._folds import check_whole, folds
from stp.tables import keys
from stp.tables.table import has_value, record, require, require_column, table_to_annotate

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

EPOCHS, PATIENCE = 100, 5  # the paper's
BATCH, MIN_STEPS = 256, 10  # spots of a step, halved for few spots: steps of an epoch
HELD_OUT = 0.1  # share of the training spots that tells when to stop


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

    Cross-entropy, Adam, 100 epochs; it stops after five epochs without a lower loss on a tenth of the training spots,
    and keeps the best. Features are taken as they are.

    Parameters
    ----------
    adata
        Table with features and labels.
    label_key
        Classes in `obs`. Spots without one (missing or "") are neither trained on nor scored.
    group_key
        Slides or patients in `obs`: each in turn is predicted from all others; spots without one are left out like
        those without a label. Without `group_key` folds are random, which is for a single slide only.
    n_folds
        Random folds.
    use_rep
        Features in `obsm`.
    learning_rate
        Of Adam; the paper takes 1e-4 for images and 1e-3 for genes.
    seed
        Of folds and start.
    table_key
        Table of a SpatialData.
    key_added
        Name of the results.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `adata.obs['stp_probe' | key_added]` : categorical
        The class predicted for each spot by the probe that never saw its fold; missing where there is no label,
        no group or no embedding.
    `adata.uns['stp_probe' | key_added]` : dict
        `params`; `scores`, a row per fold with spots, balanced accuracy and weighted F1; `classes`; `confusion`
        (n_classes, n_classes), spots by label (rows) and prediction.

    Raises
    ------
    KeyError
        Labels, groups or features are missing.
    ValueError
        No spot has label, group and features, there is one class, a class is rarer than there are folds, or a slide
        would be in both sides of a split.

    Examples
    --------
    >>> stp.tl.embed_images(sdata, model)
    >>> stp.tl.linear_probe(sdata, "domain", learning_rate=1e-2)
    >>> list(sdata.tables["table"].uns["stp_probe"]["scores"])
    ['n_spots', 'balanced_accuracy', 'weighted_f1']
    """
    adata = table_to_annotate(adata, table_key, copy)
    features = np.asarray(
        require(adata, "obsm", use_rep, keys.maker_call(use_rep)), dtype=np.float32
    )
    labels = _labels(adata, label_key)
    column = None if group_key is None else require_column(adata, group_key, "group_key")
    known = labels.notna().to_numpy() & np.isfinite(features).all(axis=1)
    rows = np.flatnonzero(known if column is None else known & has_value(column))
    if not len(rows):
        needed = [f"obs[{key!r}]" for key in (label_key, group_key) if key]
        raise ValueError(f"no spot has all of {', '.join([*needed, f'obsm[{use_rep!r}]'])}")
    groups = None if column is None else column.astype(str).to_numpy()[rows]
    check_whole(_slides(adata)[rows], groups)
    classes, codes = np.unique(labels.to_numpy()[rows].astype(str), return_inverse=True)
    parts = folds(classes[codes], groups, n_folds=n_folds, seed=seed)
    found, scores = np.empty_like(codes), {}
    for number, (train, test) in enumerate(parts):
        layer = _fit(features[rows[train]], codes[train], len(classes), learning_rate, seed)
        found[test] = _predict(layer, features[rows[test]])
        name = str(number) if groups is None else groups[test[0]]
        scores[name] = {"n_spots": len(test), **classification_scores(codes[test], found[test])}
    _write(
        adata,
        key_added,
        rows,
        classes,
        codes,
        found,
        scores,
        {
            "label_key": label_key,
            "group_key": group_key,
            "n_folds": len(parts),
            "use_rep": use_rep,
            "learning_rate": learning_rate,
            "seed": seed,
        },
    )
    return adata if copy else None


def _labels(adata: "AnnData", key: str) -> "pd.Series":
    labels = require_column(adata, key, "label_key")
    labels = labels.astype(object).where(has_value(labels), None)
    if (n := labels.nunique()) < 2:
        what = "no spot has a label" if n == 0 else f"all labels are {labels.dropna().iloc[0]!r}"
        raise ValueError(f"{what} in obs[{key!r}]; a probe needs two classes")
    return labels


def _slides(adata: "AnnData") -> np.ndarray:
    """Return the region of each row (n_obs,), where the table annotates regions."""
    key = adata.uns.get("spatialdata_attrs", {}).get("region_key")
    return adata.obs[key].to_numpy() if key in adata.obs else np.zeros(adata.n_obs)


def _fit(
    features: np.ndarray, codes: np.ndarray, n_classes: int, learning_rate: float, seed: int
) -> torch.nn.Linear:
    """Train until the loss of the held-out part has not fallen for some epochs; return the best."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(codes))
    n_held = max(1, round(HELD_OUT * len(codes)))
    x, y = torch.from_numpy(features), torch.from_numpy(codes)
    held, train = (torch.from_numpy(part) for part in (order[:n_held], order[n_held:]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(x.shape[1], n_classes)
    optimizer = torch.optim.Adam(layer.parameters(), lr=learning_rate)
    size = min(BATCH, max(1, len(train) // MIN_STEPS))
    best, state, waited = np.inf, layer.state_dict(), 0
    for _ in range(EPOCHS):
        for batch in train[torch.from_numpy(rng.permutation(len(train)))].split(size):
            optimizer.zero_grad()
            F.cross_entropy(layer(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = float(F.cross_entropy(layer(x[held]), y[held]))
        if loss < best:
            best, state, waited = (
                loss,
                {name: value.clone() for name, value in layer.state_dict().items()},
                0,
            )
        elif (waited := waited + 1) == PATIENCE:
            break
    layer.load_state_dict(state)
    return layer


@torch.no_grad()
def _predict(layer: torch.nn.Linear, features: np.ndarray) -> np.ndarray:
    return layer(torch.from_numpy(features)).argmax(dim=1).numpy()


def _write(adata: "AnnData", key: str, rows, classes, codes, found, scores, params) -> None:
    import pandas as pd
    from sklearn.metrics import confusion_matrix

    all_codes = np.full(adata.n_obs, -1)
    all_codes[rows] = found
    adata.obs[key] = pd.Categorical.from_codes(all_codes, classes)
    table = pd.DataFrame.from_dict(scores, orient="index")
    confusion = confusion_matrix(codes, found, labels=np.arange(len(classes)))
    record(adata, key, params, scores=table, classes=classes.astype(object), confusion=confusion)
