"""Which patients train a slide model, and which choose its epoch, temperature and threshold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stp._log import preview
from stp.models.slide_config import SlideTarget
from stp.tables.cohort import class_names, patient_labels
from stp.train.labels import Labels

if TYPE_CHECKING:
    from anndata import AnnData

N_STRATA = 4  # of values and times


@dataclass(frozen=True)
class Split:
    """Numbers of the patients on each side.

    Parameters
    ----------
    training
        Patients that the weights are trained on.
    validation
        Patients that choose epoch, temperature and threshold; may be empty.
    test
        Patients that the training never reads.
    """

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        """Patients that the model has seen."""
        return np.sort(np.concatenate([self.training, self.validation]))

    def sides(self, n_patients: int) -> np.ndarray:
        """Return the side of each patient (n_patients,); "" for those without a label."""
        sides = np.full(n_patients, "", object)
        sides[self.training] = "train"
        sides[self.validation] = "validation"
        sides[self.test] = "test"
        return sides


def draw_split(
    labels: Labels, patients: np.ndarray, share: float, seed: int, test: np.ndarray
) -> Split:
    """Divide patients at random into training and validation, each class alike.

    Survival is divided by event and time, and values by their quartiles. Every group of two or
    more patients has at least one on each side.

    Parameters
    ----------
    labels
        Labels of all patients for the first target.
    patients
        Numbers of the patients to divide.
    share
        Share of the patients that validate; 0 for none.
    seed
        Random seed of the split.
    test
        Numbers of the patients that the training never reads.
    """
    rng = np.random.default_rng(seed)
    groups = _strata(labels)[patients]
    is_validation = np.zeros(len(patients), bool)
    for group in np.unique(groups) if share else ():
        members = rng.permutation(np.flatnonzero(groups == group))
        n_validation = int(np.clip(round(share * len(members)), 1, max(1, len(members) - 1)))
        is_validation[members[: n_validation if len(members) > 1 else 0]] = True
    return Split(patients[~is_validation], patients[is_validation], test)


def read_split(cohort: "AnnData", key: str, patients: np.ndarray) -> Split:
    """Return the split that a column of the cohort describes: True for validation.

    Parameters
    ----------
    cohort
        Table with a row per slide.
    key
        Column of `obs` with True or 1 for validation patients, and False or 0 for others.
    patients
        Numbers of the patients to divide.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        A value is neither True nor False, or one side has no patient.
    """
    names = class_names(patient_labels(cohort, key)).to_numpy()[patients]
    values = [name not in ("True", "1", "False", "0") for name in names]
    if any(values):
        raise ValueError(
            f"obs[{key!r}] has {preview(sorted(set(map(str, names[values]))))}; write True for "
            "patients that validate, and False for others"
        )
    is_validation = np.isin(names.astype(str), ("True", "1"))
    if is_validation.all() or not is_validation.any():
        raise ValueError(
            f"obs[{key!r}] is {'True' if is_validation.all() else 'False'} for all patients with a "
            "label; both training and validation need patients"
        )
    none = np.array([], np.int64)
    return Split(patients[~is_validation], patients[is_validation], none)


def check_split(targets: Sequence[SlideTarget], labels: Sequence[Labels], split: Split) -> None:
    """Raise ValueError if no patient of a class is left to train on."""
    if not len(split.training):
        raise ValueError("no patient is left to train on; use a smaller validation_share")
    for target, label in zip(targets, labels, strict=True):
        is_labeled = label.has_label[split.training]
        codes = set(label.values[split.training][is_labeled].tolist())
        missing = [name for code, name in enumerate(target.classes) if code not in codes]
        if missing or not is_labeled.any():
            raise ValueError(
                f"no training patient has {preview(missing) or 'a label'} in "
                f"obs[{target.name!r}]: all such patients validate or test; use another seed, "
                "other folds, or fewer classes"
            )


def _strata(labels: Labels) -> np.ndarray:
    """Return a group of each patient (n_patients,); -1 without a label."""
    values = labels.values.astype(np.float64)
    is_integer = np.issubdtype(labels.values.dtype, np.integer)
    groups = labels.values.astype(np.int64) if is_integer else np.zeros(len(values), np.int64)
    if not is_integer:
        for is_event in (False, True):
            members = labels.has_label & (labels.events == is_event)
            if members.any():
                edges = np.quantile(values[members], np.arange(1, N_STRATA) / N_STRATA)
                numbers = np.searchsorted(edges, values[members], side="right")
                groups[members] = numbers + N_STRATA * is_event
    return np.where(labels.has_label, groups, -1)
