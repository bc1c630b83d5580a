"""Assign patients to folds that keep patients, and hospitals, whole."""

import warnings
from typing import TYPE_CHECKING

import numpy as np

from stp._log import count, preview, warn
from stp.tables import keys
from stp.tables.cohort import class_names, patient_labels
from stp.tables.table import record, table_to_annotate

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

NO_FOLD = -1
MAX_CLASSES = 10  # different whole numbers that are classes; more are divided at their quartiles


def assign_folds(
    cohort: "AnnData",
    label_key: str,
    *,
    n_folds: int = 5,
    patient_key: str = keys.PATIENT,
    site_key: str | None = None,
    seed: int = 0,
    key_added: str = keys.FOLD,
    copy: bool = False,
) -> "AnnData | None":
    """Assign each patient of a cohort to a fold, with about the same share of classes in each.

    All slides of a patient are in one fold, and with `site_key` all patients of a hospital are:
    stains and scanners tell the hospital, so a model could learn them instead of the tissue
    (Howard et al., 2021). The folds are those of scikit-learn's `StratifiedGroupKFold`, and do not
    depend on the order of the rows.

    Parameters
    ----------
    cohort
        Table with a row per slide, made by :func:`stp.io.read_cohort`.
    label_key
        Column of `obs` with labels of patients. Text, booleans and up to ten different whole
        numbers are classes, such as the event of survival. Other numbers are divided at their
        quartiles. Patients without a label get no fold, -1, with a warning.
    n_folds
        Number of folds.
    patient_key
        Column of `obs` with the patients.
    site_key
        Column of `obs` with hospitals, each of which is in one fold.
    seed
        Random seed for the folds.
    key_added
        Name under which the results are stored.
    copy
        Return an annotated copy of the table instead of annotating it.

    Returns
    -------
    `None` if `copy=False`, else the annotated table. Sets the following fields:

    `cohort.obs['stp_fold' | key_added]` : int
        Number of the fold of each slide, from 0; -1 without a label.
    `cohort.uns['stp_fold' | key_added]` : dict
        `params`; `table`, the number of patients of each fold and class; `edges`, the quartiles,
        empty for classes.

    Raises
    ------
    KeyError
        A column is missing.
    ValueError
        There is only one class; a class has fewer patients than there are folds; there are fewer
        hospitals than folds, or a class is in one hospital only; or slides of a patient have
        different labels or hospitals.

    Examples
    --------
    >>> stp.tl.assign_folds(cohort, "EGFR", n_folds=3)
    >>> sorted(cohort.obs["stp_fold"].unique().tolist())
    [0, 1, 2]
    """
    adata = table_to_annotate(cohort, keys.TABLE, copy)
    if n_folds < 2:
        raise ValueError(f"n_folds must be at least 2, not {n_folds}")
    labels = patient_labels(adata, label_key, patient_key=patient_key).infer_objects()
    classes, edges = _find_classes(labels, label_key)
    # Sorted, so that the folds do not depend on the order of the slides.
    labeled = classes[classes.notna()].sort_index()
    _check_classes(labeled, label_key, n_folds)
    sites = None
    if site_key is not None:
        sites = _read_sites(adata, site_key, patient_key, labeled.index)
        _check_sites(sites, labeled, site_key, n_folds)
    folds = _divide(labeled, sites, n_folds, seed)
    table = _count_patients(folds, labeled)
    _check_folds(table, n_folds, site_key)
    n_unlabeled = len(classes) - len(labeled)
    if n_unlabeled:
        warn(
            f"{count(n_unlabeled, 'patient')} without a label in obs[{label_key!r}] got no fold "
            f"({NO_FOLD}): {preview(classes.index[classes.isna()])}"
        )
    fold_of = folds.reindex(classes.index, fill_value=NO_FOLD)
    adata.obs[key_added] = fold_of.loc[adata.obs[patient_key].astype(str)].to_numpy(dtype=int)
    params = {
        "label_key": label_key,
        "n_folds": n_folds,
        "patient_key": patient_key,
        "site_key": site_key,
        "seed": seed,
    }
    record(adata, key_added, params, table=table, edges=edges)
    return adata if copy else None


def _find_classes(labels: "pd.Series", label_key: str) -> "tuple[pd.Series, np.ndarray]":
    """Return the class of each patient as text, None without a label, and edges of quartiles."""
    import pandas as pd

    is_number = pd.api.types.is_numeric_dtype(labels) and not pd.api.types.is_bool_dtype(labels)
    if is_number:
        values = labels.to_numpy(dtype=np.float64, na_value=np.nan)
        if np.isinf(values).any():
            raise ValueError(
                f"obs[{label_key!r}] is infinite for {preview(labels.index[np.isinf(values)])}; "
                "correct these values"
            )
        values = values[~np.isnan(values)]
        is_classes = len(np.unique(values)) <= MAX_CLASSES and (values == np.round(values)).all()
        if not is_classes:
            return _find_quartiles(labels)
    return class_names(labels), np.empty(0)


def _find_quartiles(labels: "pd.Series") -> "tuple[pd.Series, np.ndarray]":
    """Return the quartile of each patient as text, and the edges of the quartiles."""
    import pandas as pd

    numbers = labels.astype(np.float64)
    bins, edges = pd.qcut(numbers, 4, duplicates="drop", retbins=True)
    names = [f"{low:.4g} to {high:.4g}" for low, high in zip(edges[:-1], edges[1:], strict=True)]
    if len(set(names)) < len(names):  # which differ in later digits
        names = [f"quartile {number}" for number in range(1, len(names) + 1)]
    codes = bins.cat.codes.to_numpy()
    classes = [names[code] if code >= 0 else None for code in codes]
    return pd.Series(classes, index=labels.index, dtype=object), edges


def _check_classes(labeled: "pd.Series", label_key: str, n_folds: int) -> None:
    """Raise ValueError if there is one class, or one is rarer than folds."""
    counts = labeled.value_counts()
    if len(counts) < 2:
        shown = f"only the class {counts.index[0]!r}" if len(counts) else "no label"
        raise ValueError(f"obs[{label_key!r}] has {shown}; folds need two classes")
    rare = counts[counts < n_folds]
    if len(rare):
        listed = preview(f"{name!r} with {count(n, 'patient')}" for name, n in rare.items())
        raise ValueError(
            f"classes of obs[{label_key!r}] have fewer patients than the {n_folds} folds: "
            f"{listed}; lower n_folds, join classes, or remove these labels"
        )


def _read_sites(
    cohort: "AnnData", site_key: str, patient_key: str, patients: "pd.Index"
) -> "pd.Series":
    """Return the hospital of each of these patients as text."""
    sites = class_names(patient_labels(cohort, site_key, patient_key=patient_key)).loc[patients]
    if sites.isna().any():
        raise ValueError(
            f"patients have no hospital in obs[{site_key!r}]: "
            f"{preview(sites.index[sites.isna()])}; write one for each"
        )
    return sites


def _check_sites(sites: "pd.Series", labeled: "pd.Series", site_key: str, n_folds: int) -> None:
    """Raise ValueError if hospitals are too few for the folds or for a class."""
    if sites.nunique() < n_folds:
        raise ValueError(
            f"obs[{site_key!r}] has {count(sites.nunique(), 'hospital')} for {n_folds} folds; "
            "lower n_folds"
        )
    n_sites = sites.groupby(labeled).nunique()
    alone = n_sites.index[n_sites < 2]
    if len(alone):
        raise ValueError(
            f"all patients of the class {alone[0]!r} are of one hospital of obs[{site_key!r}], so "
            "no model is trained on it when it is tested; leave site_key= or this class out"
        )


def _divide(
    labeled: "pd.Series", sites: "pd.Series | None", n_folds: int, seed: int
) -> "pd.Series":
    """Return the number of the fold of each patient."""
    import pandas as pd
    from sklearn.model_selection import StratifiedGroupKFold

    groups = labeled.index if sites is None else sites
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    folds = pd.Series(NO_FOLD, index=labeled.index)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", module="sklearn"
        )  # of hospitals that divide a class badly
        splits = list(splitter.split(labeled, labeled.astype(str), groups.astype(str)))
    for number, (_, test) in enumerate(splits):
        folds.iloc[test] = number
    return folds


def _count_patients(folds: "pd.Series", labeled: "pd.Series") -> "pd.DataFrame":
    """Return the number of patients of each fold and class, one pair a row."""
    counts = folds.groupby([folds.rename("fold"), labeled.rename("class")]).size()
    counts = counts.unstack(fill_value=0).stack().rename("n_patients").reset_index()
    counts.index = counts.index.astype(str)
    return counts


def _check_folds(table: "pd.DataFrame", n_folds: int, site_key: str | None) -> None:
    """Raise ValueError if hospitals leave a fold empty, or all of a class in one; else warn."""
    n_filled = table["fold"].nunique()
    if n_filled < n_folds:
        raise ValueError(
            f"the hospitals of obs[{site_key!r}] fill {n_filled} of {n_folds} folds, because some "
            "are large; lower n_folds, or try another seed"
        )
    n_with_class = table[table["n_patients"] > 0].groupby("class").size()
    alone = n_with_class.index[n_with_class < 2]
    if len(alone):
        raise ValueError(
            f"all patients of the class {alone[0]!r} are in one fold, because hospitals stay "
            "whole; lower n_folds, or try another seed"
        )
    lacking = table[table["n_patients"] == 0]
    if len(lacking):
        pairs = (f"{row['class']!r} in fold {row['fold']}" for _, row in lacking.iterrows())
        warn(f"classes are missing in folds, because hospitals stay whole: {preview(pairs)}")
