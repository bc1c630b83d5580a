import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy import stats

from stp.datasets import synthetic_cohort
from stp.io import read_wsi


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cohort")


@pytest.fixture(scope="module")
def slides(folder):
    return synthetic_cohort(folder, n_patients=12, size_um=600, um_per_px=2.0)


@pytest.fixture(scope="module")
def clinical(folder, slides):
    return pd.read_csv(folder / "clinical.csv", index_col="patient")


def tissue_pixels(path):
    """Return the optical densities (n_pixels, 3) of what is no glass."""
    density = -np.log((tifffile.imread(path).reshape(-1, 3) + 1.0) / 256)
    return density[density.mean(axis=1) > 0.15]


def test_every_sixth_patient_has_two_slides(folder, slides):
    n_slides = slides.groupby("patient").size()
    assert n_slides[n_slides == 2].index.tolist() == ["P01", "P07"]
    assert n_slides.sum() == 14
    table = pd.read_csv(folder / "slides.csv")
    pd.testing.assert_frame_equal(table, slides[["patient", "slide"]])
    assert sorted(path.stem for path in (folder / "slides").iterdir()) == sorted(slides["slide"])


def test_each_hospital_has_both_classes_alike(clinical):
    counts = clinical.groupby(["hospital", "msi"]).size()
    assert counts.to_dict() == {("A", "MSI"): 4, ("A", "MSS"): 4, ("B", "MSI"): 2, ("B", "MSS"): 2}


def test_slides_record_their_scale(slides):
    sdata = read_wsi(slides["path"][0], tile_um=112)
    assert sdata.attrs["stp_slide"]["um_per_px"] == pytest.approx(2.0)
    assert len(sdata.tables["table"]) > 4


def test_infiltrate_shows_in_the_pictures(slides):
    """Lymphocytes are the darkest nuclei, and the densest."""
    dark = [(tissue_pixels(path)[:, 0] > 0.55).mean() for path in slides["path"]]
    assert stats.spearmanr(dark, slides["infiltrate"]).statistic > 0.7


def test_patients_with_msi_have_more_infiltrate(slides, clinical):
    msi = slides["patient"].map(clinical["msi"])
    means = slides.groupby(msi)["infiltrate"].mean()
    assert means["MSI"] > means["MSS"] + 0.1
    assert slides["infiltrate"].between(0, 0.6).all()


def test_hospitals_stain_differently(slides, clinical):
    colors = np.array([tissue_pixels(path).mean(axis=0) for path in slides["path"]])
    tint = colors / colors.sum(axis=1, keepdims=True)  # without the density of the tissue
    is_a = (slides["patient"].map(clinical["hospital"]) == "A").to_numpy()
    assert stats.ttest_ind(tint[is_a], tint[~is_a]).pvalue.min() < 0.01
    glass = np.array([tifffile.imread(path)[:20, :20].mean(axis=(0, 1)) for path in slides["path"]])
    assert glass[is_a].std(axis=0).max() < 0.5
    assert np.abs(glass[is_a].mean(axis=0) - glass[~is_a].mean(axis=0)).max() > 2


def test_patients_with_more_infiltrate_live_longer(tmp_path):
    """The labels of many patients do not need large slides."""
    slides = synthetic_cohort(tmp_path, n_patients=36, size_um=500, um_per_px=8.0)
    clinical = pd.read_csv(tmp_path / "clinical.csv", index_col="patient")
    infiltrate = slides.groupby("patient")["infiltrate"].mean()
    assert clinical["os_event"].between(0, 1).all() and clinical["os_days"].min() >= 1
    assert 0.3 < clinical["os_event"].mean() < 0.9
    assert stats.spearmanr(infiltrate, clinical["os_days"]).statistic > 0.25
    assert clinical["tumor_percent"].between(0, 100).all()


def test_a_seed_gives_the_same_cohort(folder, slides, tmp_path):
    again = synthetic_cohort(tmp_path / "again", n_patients=12, size_um=600, um_per_px=2.0)
    other = synthetic_cohort(tmp_path / "other", n_patients=4, size_um=500, um_per_px=4.0, seed=1)
    for name in ("slides.csv", "clinical.csv", "slides/P01-1.tif", "slides/P12-1.tif"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    pd.testing.assert_series_equal(again["infiltrate"], slides["infiltrate"])
    assert other["infiltrate"][0] != slides["infiltrate"][0]


@pytest.mark.parametrize(
    "arguments", [{"n_patients": 3}, {"size_um": 400}, {"size_um": np.nan}, {"um_per_px": 0}]
)
def test_a_cohort_that_cannot_be_drawn_is_an_error(tmp_path, arguments):
    with pytest.raises(ValueError, match="n_patients must be at least 4"):
        synthetic_cohort(tmp_path / "none", **arguments)
    assert not (tmp_path / "none").exists()
