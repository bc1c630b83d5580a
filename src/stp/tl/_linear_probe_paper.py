"""Train a linear probe as the paper does: by Adam, for at most 100 epochs."""

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from stp._log import warn
from stp.metrics._folds import folds
from stp.tables import keys
from stp.tables.table import table_to_annotate
from stp.tl._probe import predict_folds, read_spots, write_probe

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

# The paper's.
MAX_EPOCHS = 100
PATIENCE = 5

BATCH_SIZE = 256  # spots per step; fewer if an epoch would otherwise have less than MIN_STEPS
MIN_STEPS = 10
VALIDATION_SHARE = 0.1  # of the training spots; their loss decides when training stops


def linear_probe_paper(
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
    """Predict classes from frozen features as the paper does (section A.3.3), in folds.

    One linear layer is trained with cross-entropy and Adam for at most 100 epochs. A tenth of the
    training spots is used for validation. Training stops after five epochs without a lower
    validation loss, and the best layer is used. Features are not standardized. A warning says if
    100 epochs were too few, as they often are at the paper's learning rates;
    :func:`stp.tl.linear_probe` has no such limit.

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
    >>> stp.tl.linear_probe_paper(sdata, "domain", learning_rate=1e-2)
    >>> list(sdata.tables["table"].uns["stp_probe"]["scores"])
    ['n_spots', 'balanced_accuracy', 'weighted_f1']
    """
    adata = table_to_annotate(adata, table_key, copy)
    spots = read_spots(adata, label_key, group_key, use_rep)
    splits = folds(spots.labels, spots.groups, n_folds=n_folds, seed=seed)
    n_falling = 0

    def predict(train: np.ndarray, codes: np.ndarray, test: np.ndarray) -> np.ndarray:
        nonlocal n_falling
        layer, is_falling = _train_layer(
            spots.features[train],
            codes[train],
            n_classes=codes.max() + 1,
            learning_rate=learning_rate,
            seed=seed,
        )
        n_falling += is_falling
        return _predict(layer, spots.features[test])

    result = predict_folds(spots, splits, predict)
    if n_falling:
        warn(
            f"the validation loss still falls at epoch {MAX_EPOCHS} in {n_falling} of "
            f"{len(splits)} folds, so the scores are too low; raise learning_rate="
            f"{learning_rate:g}, or use stp.tl.linear_probe"
        )
    params = {
        "label_key": label_key,
        "group_key": group_key,
        "n_folds": len(splits),
        "use_rep": use_rep,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    write_probe(adata, key_added, params, result)
    return adata if copy else None


def _train_layer(
    features: np.ndarray, codes: np.ndarray, *, n_classes: int, learning_rate: float, seed: int
) -> tuple[torch.nn.Linear, bool]:
    """Train until the validation loss has not fallen for some epochs.

    Return the best layer, and whether the loss still fell at the last epoch.
    """
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
    return layer, n_epochs_without_gain == 0


@torch.no_grad()
def _predict(layer: torch.nn.Linear, features: np.ndarray) -> np.ndarray:
    """Return the predicted class of each spot, as a position in the classes."""
    return layer(torch.from_numpy(features)).argmax(dim=1).numpy()
