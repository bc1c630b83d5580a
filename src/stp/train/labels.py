"""Labels of patients, read from columns of a cohort."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.tables.cohort import class_names, patient_labels

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

MISSING = -1  # code of a class that a patient lacks


@dataclass(frozen=True)
class Labels:
    """The labels of all patients for one target.

    Parameters
    ----------
    values
        Number of the class, value or time of each patient (n_patients,).
    events
        Whether the event was observed (n_patients,), for survival.
    has_label
        Whether a patient has a label (n_patients,).
    """

    values: np.ndarray
    events: np.ndarray
    has_label: np.ndarray

    def of(self, patients: np.ndarray) -> "Labels":
        """Return the labels of some patients, by number."""
        return Labels(self.values[patients], self.events[patients], self.has_label[patients])


def read_column(cohort: "AnnData", column: str) -> "pd.Series":
    """Return one value per patient, or raise a KeyError that names the nearest column."""
    if column not in cohort.obs:
        nearest = difflib.get_close_matches(column, map(str, cohort.obs.columns), n=1)
        advice = f"did you mean {nearest[0]!r}?" if nearest else f"it has {list(cohort.obs)}"
        raise KeyError(f"the cohort has no column obs[{column!r}]; {advice}")
    return patient_labels(cohort, column)


def as_numbers(labels: "pd.Series", column: str) -> np.ndarray:
    """Return labels as numbers (n_patients,); NaN if there is none."""
    import pandas as pd

    names = class_names(labels)
    numbers = pd.to_numeric(names.replace({"True": "1", "False": "0"}), errors="coerce")
    values = numbers.to_numpy(np.float64, na_value=np.nan)
    is_wrong = names.notna().to_numpy() & ~np.isfinite(values)
    if is_wrong.any():
        example = labels.index[is_wrong][0]
        raise ValueError(
            f"obs[{column!r}] has {names[is_wrong].iloc[0]!r} for patient {example}, which is no "
            "finite number; write a number, or none to leave the patient out"
        )
    return values


def as_series(values: Sequence[Any]) -> "pd.Series":
    """Return values of any types as a column."""
    import pandas as pd

    return pd.Series(list(values), dtype=object)
