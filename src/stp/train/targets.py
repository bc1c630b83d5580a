"""What a slide model is trained to predict: columns of a cohort, read once per patient."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stp._log import count, preview
from stp.models.slide_config import SlideTarget
from stp.tables.cohort import class_names
from stp.train.labels import MISSING, Labels, as_numbers, as_series, read_column

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

MAX_NUMERIC_CLASSES = 10  # a column with more distinct numbers is taken for values


@dataclass(frozen=True)
class Classes:
    """Predict one of several classes.

    Parameters
    ----------
    column
        Column of the cohort with the labels. Patients without a label are left out of the loss.
    classes
        Names of the classes, in the order of the outputs; by default the classes of the training
        patients, sorted.
    positive
        One of two classes, for which a threshold is chosen on validation patients.

    Examples
    --------
    >>> stp.train.Classes("EGFR", positive="mutated").column
    'EGFR'
    """

    column: str
    classes: Sequence[Any] | None = None
    positive: Any = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the cohort that are read."""
        return (self.column,)

    def describe(self, cohort: "AnnData", is_training: np.ndarray) -> SlideTarget:
        """Return the target with its classes, as the training patients (n_patients,) have them.

        Raises
        ------
        KeyError
            There is no such column.
        ValueError
            A class has fewer than two training patients, a label is no class, or labels are
            numbers with many values.
        """
        labels = read_column(cohort, self.column)
        names = class_names(labels)
        if self.classes is None:
            self._require_few_numbers(labels)
            classes = sorted(names[is_training].dropna().unique())
        else:
            classes = class_names(as_series(self.classes)).tolist()
        unknown = sorted(set(names.dropna()) - set(classes))
        if unknown:
            raise ValueError(
                f"obs[{self.column!r}] has {preview(unknown)}, which no training patient has and "
                f"which is not in classes={classes}; pass classes=, or remove these labels"
            )
        n_patients = names[is_training].value_counts()
        rare = [name for name in classes if n_patients.get(name, 0) < 2]
        if rare or len(classes) < 2:
            counts = ", ".join(f"{name!r} {n_patients.get(name, 0)}" for name in classes)
            raise ValueError(
                f"obs[{self.column!r}] has too few training patients: {counts or 'none'}; "
                "each of at least two classes needs two patients, so merge or remove classes"
            )
        return SlideTarget("classes", self.column, tuple(classes), self._positive_name(classes))

    def read(self, cohort: "AnnData", target: SlideTarget) -> Labels:
        """Return the number of the class of each patient; -1 if it has none."""
        names = class_names(read_column(cohort, self.column))
        codes = {name: code for code, name in enumerate(target.classes)}
        values = np.array([codes.get(name, MISSING) for name in names], np.int64)
        return Labels(values, np.zeros(len(values), bool), values != MISSING)

    def _positive_name(self, classes: list[str]) -> str | None:
        if self.positive is None:
            return None
        (positive,) = class_names(as_series([self.positive]))
        if positive not in classes:
            raise ValueError(
                f"positive {positive!r} is no class of obs[{self.column!r}], which has {classes}"
            )
        if len(classes) > 2:
            raise ValueError(
                f"positive needs two classes, and obs[{self.column!r}] has {classes}; leave "
                "positive out, or merge the other classes"
            )
        return positive

    def _require_few_numbers(self, labels: "pd.Series") -> None:
        import pandas as pd

        distinct = labels.dropna().unique()
        numbers = pd.to_numeric(pd.Series(np.asarray(distinct, object)), errors="coerce")
        if len(distinct) > MAX_NUMERIC_CLASSES and numbers.notna().all():
            raise ValueError(
                f"obs[{self.column!r}] has {len(distinct)} different numbers; use "
                f"stp.train.Value({self.column!r}) to predict values, or pass classes= if these "
                "are classes"
            )


@dataclass(frozen=True)
class Value:
    """Predict a number.

    Parameters
    ----------
    column
        Column of the cohort with the labels. Patients without a label are left out of the loss.

    Examples
    --------
    >>> stp.train.Value("purity").column
    'purity'
    """

    column: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the cohort that are read."""
        return (self.column,)

    def describe(self, cohort: "AnnData", is_training: np.ndarray) -> SlideTarget:
        """Return the target with mean and standard deviation of the training patients.

        Raises
        ------
        KeyError
            There is no such column.
        ValueError
            A label is no finite number, or the training patients have fewer than two values.
        """
        labels = self._read_numbers(cohort)
        values = labels[is_training & np.isfinite(labels)]
        if len(np.unique(values)) < 2:
            raise ValueError(
                f"obs[{self.column!r}] of the training patients has {len(np.unique(values))} "
                "different values; a value to predict needs two"
            )
        return SlideTarget(
            "value", self.column, value_mean=float(values.mean()), value_sd=float(values.std())
        )

    def read(self, cohort: "AnnData", target: SlideTarget) -> Labels:
        """Return the standardized value of each patient."""
        values = (self._read_numbers(cohort) - target.value_mean) / target.value_sd
        has_label = np.isfinite(values)
        return Labels(np.where(has_label, values, 0.0), np.zeros(len(values), bool), has_label)

    def _read_numbers(self, cohort: "AnnData") -> np.ndarray:
        return as_numbers(read_column(cohort, self.column), self.column)


@dataclass(frozen=True)
class Survival:
    """Predict survival by hazards in intervals of time (Zadeh and Schmid 2020).

    Parameters
    ----------
    time
        Column of the cohort with the time to the event, or to the end of the observation.
    event
        Column with 1 or True if the event was observed, and 0 or False if not.
    n_intervals
        Number of intervals. Their edges are quantiles of the times of events of the training
        patients.

    Examples
    --------
    >>> stp.train.Survival("os_days", "os_event").n_intervals
    4
    """

    time: str
    event: str
    n_intervals: int = 4

    def __post_init__(self) -> None:
        if self.n_intervals < 2:
            raise ValueError(f"n_intervals must be at least 2, not {self.n_intervals}")

    @property
    def column(self) -> str:
        """Column that names the target."""
        return self.time

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the cohort that are read."""
        return (self.time, self.event)

    def describe(self, cohort: "AnnData", is_training: np.ndarray) -> SlideTarget:
        """Return the target with the edges of its intervals.

        Raises
        ------
        KeyError
            There is no such column.
        ValueError
            An event is not 0 or 1, a time is not positive, only one of both is there, or there
            are fewer events than intervals.
        """
        times, events = self._read_both(cohort)
        event_times = times[is_training & (events == 1)]
        if len(event_times) < self.n_intervals:
            raise ValueError(
                f"obs[{self.event!r}] has {count(len(event_times), 'event')} in training patients; "
                f"{self.n_intervals} intervals need as many, so set n_intervals, or add patients"
            )
        edges = np.quantile(event_times, np.arange(1, self.n_intervals) / self.n_intervals)
        if (np.diff(edges, prepend=0) <= 0).any():
            raise ValueError(
                f"the times of events in obs[{self.time!r}] are so alike that intervals are empty: "
                f"edges {edges.tolist()}; set a smaller n_intervals"
            )
        return SlideTarget("survival", self.time, event=self.event, edges=tuple(edges.tolist()))

    def read(self, cohort: "AnnData", target: SlideTarget) -> Labels:
        """Return the time of each patient, and whether the event was observed."""
        times, events = self._read_both(cohort)
        has_label = np.isfinite(times)
        return Labels(np.where(has_label, times, 0.0), events == 1, has_label)

    def _read_both(self, cohort: "AnnData") -> tuple[np.ndarray, np.ndarray]:
        """Return times and events (n_patients,); both are NaN if a patient has none of them."""
        column = read_column(cohort, self.time)
        times = as_numbers(column, self.time)
        events = as_numbers(read_column(cohort, self.event), self.event)
        patients = column.index.to_numpy()
        is_wrong = np.isfinite(events) & ~np.isin(events, (0, 1))
        if is_wrong.any():
            raise ValueError(
                f"obs[{self.event!r}] has {events[is_wrong][0]:g} for patient "
                f"{patients[is_wrong][0]}; write 1 or True if the event was observed, else 0 or "
                "False"
            )
        is_half = np.isfinite(times) != np.isfinite(events)
        if is_half.any():
            raise ValueError(
                f"these patients have only one of obs[{self.time!r}] and obs[{self.event!r}]: "
                f"{preview(patients[is_half])}; write both, or none to leave them out"
            )
        is_wrong = times <= 0
        if is_wrong.any():
            raise ValueError(
                f"obs[{self.time!r}] is {times[is_wrong][0]:g} for patient "
                f"{patients[is_wrong][0]}; times must be positive, so correct or remove them"
            )
        return times, events


Target = Classes | Value | Survival
