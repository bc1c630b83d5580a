"""Training on spots much smaller than those of Visium: neighborhoods by distance, few genes."""

import dataclasses
import json

import anndata
import numpy as np
import pytest
import spatialdata
from tests.slides import make_slide
from tests.visium_hd import write_visium_hd

from stp._config import from_dict
from stp.io import from_anndata, read_visium_hd, write_store
from stp.train import Phase, PretrainConfig, pretrain
from stp.train.engine.run_dir import run_settings

NEAR = PretrainConfig(phases=(Phase(objective="neighborhood", batch_size=18),), min_genes=5)


@pytest.fixture
def settings(vocabulary, tiny_config):
    return {"vocabulary": vocabulary, "model": tiny_config.gene}


def test_neighborhoods_by_distance_are_trained_on_and_recorded(stores, settings, tmp_path):
    config = dataclasses.replace(NEAR, radius_um=250)
    pretrain(stores[:2], tmp_path / "out", config=config, **settings)
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["config"]["radius_um"] == 250
    with pytest.raises(ValueError, match=r"a run with other settings \(config\)"):
        pretrain(stores[:2], tmp_path / "out", config=NEAR, **settings)


def test_a_run_without_a_radius_has_the_settings_of_runs_before_it_was_there():
    values = run_settings(NEAR, {})["config"]
    assert "radius_um" not in values
    assert run_settings(dataclasses.replace(NEAR, radius_um=50), {})["config"]["radius_um"] == 50
    saved = json.loads(json.dumps(dataclasses.asdict(NEAR)))
    del saved["radius_um"]
    assert from_dict(PretrainConfig, saved) == NEAR


def test_a_radius_that_reaches_too_few_spots_is_refused(stores, settings, tmp_path):
    # On a hexagonal lattice of 100 µm, six spots are 100 µm away, and the next 173 µm.
    config = dataclasses.replace(NEAR, radius_um=120)
    message = r"radius_um=120 reaches fewer than 8 spots .*slide0.zarr, which are 100 µm apart; .*"
    with pytest.raises(ValueError, match=message + "at least 174"):
        pretrain(stores[:2], tmp_path / "out", config=config, **settings)
    assert not (tmp_path / "out").exists()


def test_a_radius_needs_coordinates_in_um(settings, tmp_path):
    adata, _ = make_slide()
    adata.obs = adata.obs[[]]
    write_store(adata, tmp_path / "unknown.zarr")
    with pytest.raises(ValueError, match="radius_um=250 needs coordinates in µm, and those of"):
        config = dataclasses.replace(NEAR, radius_um=250)
        pretrain([tmp_path / "unknown.zarr"], tmp_path / "out", config=config, **settings)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"radius_um": 0}, "radius_um must be positive, not 0"),
        ({"radius_um": 50, "phases": (Phase(),)}, "radius_um=50 is for neighborhood training"),
    ],
)
def test_a_radius_without_a_meaning_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PretrainConfig(**values)


@pytest.mark.filterwarnings("ignore:there are only")
def test_many_spots_with_few_genes_are_warned_about(settings, tmp_path, capsys):
    adata, image = make_slide()
    n_genes = np.diff(adata.X.indptr)
    limit = int(np.quantile(n_genes, 0.4)) + 1
    n_poor = np.count_nonzero(n_genes < limit)
    write_store(from_anndata(adata, image, um_per_px=1.0), tmp_path / "a.zarr", patch_um_per_px=4)
    config = PretrainConfig(phases=(Phase(batch_size=10),), min_genes=limit)
    message = rf"{n_poor} of 100 spots in tissue \({n_poor}.0%\) detect fewer than {limit} genes"
    with pytest.warns(UserWarning, match=message):
        pretrain([tmp_path / "a.zarr"], tmp_path / "out", config=config, **settings)
    few = int(n_genes.min()) + 1
    n_poor = np.count_nonzero(n_genes < few)
    capsys.readouterr()
    config = dataclasses.replace(config, min_genes=few)
    pretrain([tmp_path / "a.zarr"], tmp_path / "few", config=config, **settings)
    assert f"{n_poor} of 100 spots in tissue ({n_poor}.0%)" in capsys.readouterr().err


def radius_of(path):
    store = spatialdata.read_zarr(path)
    (name,) = store.shapes
    return store[name]["radius"].unique()


def test_spots_of_a_store_are_as_wide_as_those_of_the_slide(sdata, adata, tmp_path):
    write_visium_hd(tmp_path / "hd", 8, 8, um_per_px=2.0)
    bins = read_visium_hd(tmp_path / "hd", image=tmp_path / "hd" / "slide.tif")
    options = {"table_key": "square_008um", "patch_um_per_px": 4}
    write_store(bins, tmp_path / "bins.zarr", **options)
    assert radius_of(tmp_path / "bins.zarr") == pytest.approx(4)
    with pytest.warns(UserWarning, match="um_per_px=2.2 is used although"):
        write_store(bins, tmp_path / "wide.zarr", um_per_px=2.2, **options)
    assert radius_of(tmp_path / "wide.zarr") == pytest.approx(4.4)
    for image in list(bins.images):
        del bins.images[image]
    write_store(bins, tmp_path / "no_image.zarr", table_key="square_008um")
    assert radius_of(tmp_path / "no_image.zarr") == pytest.approx(4)
    sdata["slide"]["radius"] = 50.0
    write_store(sdata, tmp_path / "circles.zarr", patch_um_per_px=4)
    assert radius_of(tmp_path / "circles.zarr") == pytest.approx(50)
    plain = anndata.AnnData(adata.X, obs=adata.obs, var=adata.var, obsm=dict(adata.obsm))
    write_store(plain, tmp_path / "plain.zarr")
    assert radius_of(tmp_path / "plain.zarr") == pytest.approx(27.5)
