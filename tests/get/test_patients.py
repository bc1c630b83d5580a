import anndata
import numpy as np
import pandas as pd
import pytest

import stp


@pytest.fixture
def cohort() -> anndata.AnnData:
    obs = pd.DataFrame(
        {
            "patient": ["P2", "P1", "P2"],
            "slide": ["a", "b", "c"],
            "path": ["a.h5", "b.h5", "c.h5"],
            "n_tiles": [3, 5, 4],
            "EGFR": pd.Categorical(["mutated", None, "mutated"]),
            "stain": ["HE", "HE", "IHC"],
            "purity": [0.5, np.nan, 0.5],
            "stp_fold": [0, 1, 0],
        },
        index=["a", "b", "c"],
    )
    return anndata.AnnData(obs=obs)


def test_a_patient_is_a_row_with_what_its_slides_share(cohort):
    table = stp.get.patients(cohort)
    assert table.index.name == "patient"
    assert table.index.tolist() == ["P2", "P1"]
    assert list(table) == ["n_slides", "n_tiles", "EGFR", "purity", "stp_fold"]
    assert table["n_slides"].tolist() == [2, 1]
    assert table["n_tiles"].tolist() == [7, 5]
    assert table["EGFR"].isna().tolist() == [False, True]
    assert table["purity"].isna().tolist() == [False, True]
    assert table["stp_fold"].tolist() == [0, 1]


def predict(cohort: anndata.AnnData, key: str = "stp_slides") -> None:
    cohort.obs[f"{key}_EGFR"] = pd.Categorical(["mutated", "wild type", "mutated"])
    values = np.array([[0.75, 0.25, -2.0], [0.125, 0.875, np.nan], [0.75, 0.25, -2.0]], np.float32)
    cohort.obsm[key] = values
    cohort.uns[key] = {"outputs": ["EGFR_mutated", "EGFR_wild type", "risk"]}


@pytest.mark.parametrize("key", ["stp_slides", "other"])
def test_predictions_are_columns_with_the_names_of_the_outputs(cohort, key):
    predict(cohort, key)
    table = stp.get.patients(cohort, key=key)
    assert table[f"{key}_EGFR"].tolist() == ["mutated", "wild type"]
    assert table[f"{key}_EGFR_mutated"].tolist() == [0.75, 0.125]
    assert table[f"{key}_EGFR_wild type"].tolist() == [0.25, 0.875]
    assert table[f"{key}_risk"].fillna(9).tolist() == [-2, 9]


def test_the_table_is_the_same_from_a_saved_cohort(cohort, tmp_path):
    predict(cohort)
    before = stp.get.patients(cohort)
    cohort.write_h5ad(tmp_path / "cohort.h5ad")
    after = stp.get.patients(anndata.read_h5ad(tmp_path / "cohort.h5ad"))
    pd.testing.assert_frame_equal(after, before, check_dtype=False, check_index_type=False)


def test_predictions_that_are_missing_or_contradict_are_refused(cohort):
    with pytest.raises(KeyError, match=r"obsm\['mine'\] is missing; run stp.tl.predict_slides"):
        stp.get.patients(cohort, key="mine")
    predict(cohort)
    wrong = cohort.copy()
    wrong.obsm["stp_slides"][2, 0] = 0.5
    with pytest.raises(ValueError, match="slides of patient 'P2' have different predictions"):
        stp.get.patients(wrong)
    wrong = cohort.copy()
    wrong.uns["stp_slides"]["outputs"] = ["a", "b"]
    with pytest.raises(ValueError, match="has 3 columns, and .* 2 names"):
        stp.get.patients(wrong)
    wrong = cohort.copy()
    wrong.obs["stp_slides_risk"] = 1
    with pytest.raises(ValueError, match="would have the name 'stp_slides_risk'"):
        stp.get.patients(wrong)
    with pytest.raises(KeyError, match=r"obs\['patient'\] is missing"):
        stp.get.patients(anndata.AnnData(obs=cohort.obs.drop(columns="patient")))
