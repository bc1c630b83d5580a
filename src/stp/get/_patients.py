"""Patients of a cohort as a table, with their labels and predictions."""

from typing import TYPE_CHECKING

import numpy as np

from stp.tables import keys
from stp.tables.cohort import differing_patients, patient_ids
from stp.tables.table import get_table, require

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def patients(cohort: "AnnData", *, key: str = keys.SLIDES) -> "pd.DataFrame":
    """Return a DataFrame with a row per patient: labels, fold and predictions.

    Parameters
    ----------
    cohort
        Table with a row per slide, made by :func:`stp.io.read_cohort`.
    key
        Name of the prediction.

    Returns
    -------
    DataFrame with patients as index, in the order in which the cohort first names them. `n_slides`
    and `n_tiles` count their slides and tiles. Other columns are those of `obs` in which all slides
    of each patient have the same value, such as labels, the fold and predicted classes. If there
    are predictions, a column for each output of the model follows, such as the probability of a
    class: `key`, an underscore, and the name of the output.

    Raises
    ------
    KeyError
        The table is no cohort, or has no prediction of another name than the default.
    ValueError
        Slides of a patient have different predictions, or two columns would have one name.

    Examples
    --------
    >>> stp.get.patients(cohort)[["n_slides", "n_tiles", "EGFR"]].head(2)
             n_slides  n_tiles       EGFR
    patient
    P0              2       12    mutated
    P1              1        6  wild type
    """
    import pandas as pd

    cohort = get_table(cohort)
    ids = patient_ids(cohort)
    n_tiles = require(cohort, "obs", keys.N_TILES, "cohort = stp.io.read_cohort(slides)")
    is_first = ~pd.Series(ids).duplicated().to_numpy()
    index = pd.Index(ids[is_first], name=keys.PATIENT)
    columns = {
        "n_slides": pd.Series(ids).value_counts().loc[index].to_numpy(),
        keys.N_TILES: n_tiles.groupby(ids, sort=False).sum().loc[index].to_numpy(),
    }
    frame = pd.DataFrame(columns, index=index)
    for name in cohort.obs:
        is_shared = name not in (keys.PATIENT, keys.N_TILES)
        if is_shared and not len(differing_patients(cohort.obs[name], ids)):
            _add_column(frame, str(name), cohort.obs[name][is_first].set_axis(index))
    if key in cohort.obsm or key != keys.SLIDES:
        _add_outputs(frame, cohort, key, ids, is_first)
    return frame


def _add_outputs(
    frame: "pd.DataFrame", cohort: "AnnData", key: str, ids: np.ndarray, is_first: np.ndarray
) -> None:
    """Add a column for each output of the model that predicted the patients."""
    import pandas as pd

    call = "stp.tl.predict_slides(cohort, models)"
    outputs = np.asarray(require(cohort, "obsm", key, call))
    details = require(cohort, "uns", key, call)
    if len(details["outputs"]) != outputs.shape[1]:
        raise ValueError(
            f"obsm[{key!r}] has {outputs.shape[1]} columns, and uns[{key!r}]['outputs'] "
            f"{len(details['outputs'])} names; run {call} again"
        )
    for number, name in enumerate(details["outputs"]):
        different = differing_patients(pd.Series(outputs[:, number]), ids)
        if len(different):
            raise ValueError(
                f"the slides of patient {different[0]!r} have different predictions in "
                f"obsm[{key!r}]; run {call} again"
            )
        _add_column(frame, f"{key}_{name}", outputs[is_first, number])


def _add_column(frame: "pd.DataFrame", name: str, values: "pd.Series | np.ndarray") -> None:
    if name in frame:
        raise ValueError(f"two columns of the patients would have the name {name!r}; rename one")
    frame[name] = values
