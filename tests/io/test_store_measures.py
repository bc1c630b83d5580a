"""The measured columns of a collection, compared with slow loops and known pictures."""

from pathlib import Path

import anndata
import numpy as np
import pytest
import scipy.sparse
import zarr
from scipy.ndimage import gaussian_filter

from stp import Vocabulary
from stp.io import from_anndata, write_store
from stp.io._store_measures import MEASURES, measure_store

SIDE = 600  # pixels of 1 µm
GLASS = (244, 243, 245)


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.5, 2.0, (16, 300)))
    counts[3] = 0
    return counts


def table_of(counts, names=None, **obs):
    adata = anndata.AnnData(scipy.sparse.csr_matrix(np.asarray(counts, np.float32)))
    human = Vocabulary.default().gene_ids[:270].tolist()
    adata.var_names = human + [f"OTHER{n}" for n in range(30)] if names is None else names
    x, y = np.meshgrid(np.arange(4), np.arange(4))
    adata.obsm["spatial"] = (np.stack([x, y], -1).reshape(-1, 2) + 0.5)[: len(counts)] * SIDE / 4.0
    for name, values in obs.items():
        adata.obs[name] = values
    return adata


def measure(slide, path, **more):
    write_store(slide, path, patch_um_per_px=1.0, overwrite=True)
    return measure_store(path, **more)


def tissue(rng):
    noise = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 1)
    return np.clip(np.array([190, 110, 170]) + 120 * noise[..., None], 0, 255).astype(np.uint8)


@pytest.mark.parametrize("block_rows", [5, 100])
def test_counts_are_measured_as_by_a_slow_loop(counts, tmp_path, block_rows):
    in_tissue = np.arange(16) > 1
    slide = table_of(counts, in_tissue=in_tissue.astype(int))
    measures = measure(slide, tmp_path / "a.zarr", block_rows=block_rows)
    umis, genes, tokens = [], [], []
    for spot in range(2, 16):
        umis.append(sum(counts[spot]))
        genes.append(sum(count > 0 for count in counts[spot]))
        tokens.append(sum(count > 0 for count in counts[spot, :270]))
    assert (measures["n_spots"], measures["n_genes"]) == (16, 300)
    assert measures["n_trainable"] == sum(number >= 100 for number in genes) > 0
    assert measures["umis_per_spot"] == np.median(umis)
    assert measures["genes_per_spot"] == np.median(genes)
    assert measures["tokens_per_spot"] == np.median(tokens)
    assert measures["share_of_umis_recognized"] == pytest.approx(
        counts[2:, :270].sum() / counts[2:].sum()
    )
    assert list(measures) == list(MEASURES)


def test_the_vocabulary_decides_what_is_recognized(counts, tmp_path):
    slide = table_of(counts)
    default = Vocabulary.default()
    index = np.arange(50)
    few = Vocabulary.from_genes(default.gene_ids[index], default.symbols[index])
    write_store(slide, tmp_path / "a.zarr")
    measures = measure_store(tmp_path / "a.zarr", vocabulary=few)
    assert measures["share_of_umis_recognized"] == pytest.approx(
        counts[:, :50].sum() / counts.sum()
    )
    group = zarr.open_group(tmp_path / "a.zarr", use_consolidated=False)
    group.attrs["stp_store"] = {**group.attrs["stp_store"], "species": "mouse"}
    zarr.consolidate_metadata(tmp_path / "a.zarr")
    measures = measure_store(tmp_path / "a.zarr")
    assert measures["species"] == "mouse"
    assert measures["share_of_umis_recognized"] is measures["tokens_per_spot"] is None


def test_the_digest_of_counts_depends_on_counts_alone(counts, tmp_path):
    slide = table_of(counts)
    digest = measure(slide, tmp_path / "a.zarr")["counts_digest"]
    rng = np.random.default_rng(1)
    shuffled = slide[rng.permutation(16)][:, rng.permutation(300)].copy()
    assert measure(shuffled, tmp_path / "b.zarr")["counts_digest"] == digest
    assert (
        measure(slide[:, ::-1].copy(), tmp_path / "b.zarr", block_rows=3)["counts_digest"] == digest
    )
    exchanged = counts.copy()
    exchanged[0] = counts[0][::-1]
    one_more = counts.copy()
    one_more[5, 7] += 1
    fewer = counts[:15]
    others = [
        measure(table_of(other), tmp_path / "c.zarr")["counts_digest"]
        for other in (exchanged, one_more, fewer)
    ]
    assert len({digest, *others}) == 4


def test_images_are_measured(counts, tmp_path):
    picture = tissue(np.random.default_rng(0))
    picture[:, SIDE // 2 :] = GLASS
    slide = from_anndata(table_of(counts), picture, um_per_px=1.0)
    measures = measure(slide, tmp_path / "a.zarr")
    assert measures["share_on_tissue"] == 0.5
    assert measures["share_on_image"] == 1
    assert (measures["image_height_px"], measures["image_width_px"]) == (SIDE, SIDE)
    assert (measures["um_per_px"], measures["patch_um_per_px"]) == (1, 1)
    store_files = [file for file in (tmp_path / "a.zarr").rglob("*") if file.is_file()]
    assert measures["n_bytes"] == sum(len(file.read_bytes()) for file in store_files)
    picture[500, 500, 1] -= 40
    other = measure(from_anndata(table_of(counts), picture, um_per_px=1.0), tmp_path / "b.zarr")
    assert other["image_digest"] != measures["image_digest"]
    assert other["counts_digest"] == measures["counts_digest"]


def test_a_blurred_image_is_less_sharp(counts, tmp_path):
    picture = tissue(np.random.default_rng(0))
    values = []
    for sigma in (0, 1, 3):
        blurred = gaussian_filter(picture.astype(float), (sigma, sigma, 0)).astype(np.uint8)
        slide = from_anndata(table_of(counts), blurred, um_per_px=1.0)
        values.append(measure(slide, tmp_path / "a.zarr")["sharpness"])
    assert values[0] > 3 * values[1] > 9 * values[2] > 0


def test_the_source_of_the_scale_is_that_of_the_reader(counts, tmp_path):
    picture = tissue(np.random.default_rng(0))
    slide = from_anndata(table_of(counts), picture, um_per_px=1.0)
    assert measure(slide, tmp_path / "a.zarr")["scale_source"] == "um_per_px"
    row, column = np.divmod(np.arange(16), 4)
    slide = from_anndata(
        table_of(counts, array_row=row, array_col=column), picture, spot_pitch_um=150
    )
    assert measure(slide, tmp_path / "a.zarr")["scale_source"] == "spot_pitch_um"
    group = zarr.open_group(tmp_path / "a.zarr", use_consolidated=False)
    source = dict(group.attrs["stp_source"])
    del source["scale_source"]
    group.attrs["stp_source"] = source  # as in a store that was written earlier
    zarr.consolidate_metadata(tmp_path / "a.zarr")
    measures = measure_store(tmp_path / "a.zarr")
    assert measures["scale_source"] == "the coordinate system um"


def test_what_a_store_does_not_have_is_none(counts, tmp_path):
    measures = measure(table_of(counts, in_tissue=[0] * 16), tmp_path / "a.zarr")
    unknown = {name for name, value in measures.items() if value is None}
    assert unknown == {
        *("umis_per_spot", "genes_per_spot", "tokens_per_spot", "share_of_umis_recognized"),
        *("um_per_px", "scale_source", "patch_um_per_px", "image_height_px", "image_width_px"),
        *("share_on_image", "share_on_tissue", "sharpness", "image_digest"),
    }
    assert measures["n_trainable"] == 0


def test_the_page_of_outputs_describes_each_column():
    page = Path(__file__).parents[2] / "docs" / "outputs.md"
    section = page.read_text(encoding="utf-8").split("## Collections")[1].split("###")[0]
    rows = [
        line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")
    ]
    assert {name.strip("`"): text for name, text in rows} == MEASURES
