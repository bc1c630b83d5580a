"""`read_visium` reads the folders that people have, and names what is wrong with the others."""

import gzip
import json
import logging
import shutil

import h5py
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import scipy.io
import tifffile
from tests.slides import gene_ids_of

from stp.images.slides import find_slides
from stp.io import read_visium


def compress(path):
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def write_text_matrix(folder, adata, features="features.tsv"):
    """Write the counts as Cell Ranger does: genes x barcodes in three text files."""
    folder.mkdir()
    scipy.io.mmwrite(folder / "matrix.mtx", adata.X.T.astype(int))
    ids = gene_ids_of(adata.var_names)
    rows = [
        f"{gene_id}\t{name}\tGene Expression"
        for gene_id, name in zip(ids, adata.var_names, strict=True)
    ]
    if features == "genes.tsv":
        rows = [row.rpartition("\t")[0] for row in rows]
    (folder / features).write_text("\n".join(rows))
    (folder / "barcodes.tsv").write_text("\n".join(adata.obs_names))


def use_text_matrix(folder, adata):
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    write_text_matrix(folder / "filtered_feature_bc_matrix", adata)


def use_compressed_text_matrix(folder, adata):
    use_text_matrix(folder, adata)
    for file in (folder / "filtered_feature_bc_matrix").iterdir():
        compress(file)


def use_partly_compressed_text_matrix(folder, adata):
    use_text_matrix(folder, adata)
    compress(folder / "filtered_feature_bc_matrix" / "matrix.mtx")


def use_genes_of_version_2(folder, adata):
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    write_text_matrix(folder / "filtered_feature_bc_matrix", adata, "genes.tsv")


def use_raw_matrix(folder, _):
    h5 = folder / "filtered_feature_bc_matrix.h5"
    h5.rename(folder / "raw_feature_bc_matrix.h5")


def use_positions_without_header(folder, _):
    positions = folder / "spatial" / "tissue_positions.csv"
    lines = positions.read_text().splitlines(keepends=True)
    (folder / "spatial" / "tissue_positions_list.csv").write_text("".join(lines[1:]))
    positions.unlink()


def use_list_with_header(folder, _):
    positions = folder / "spatial" / "tissue_positions.csv"
    positions.rename(folder / "spatial" / "tissue_positions_list.csv")


def use_parquet(folder, _):
    """Lay the folder out as Space Ranger 3 and 4 do, with the probes next to the counts."""
    positions = folder / "spatial" / "tissue_positions.csv"
    pd.read_csv(positions).to_parquet(folder / "spatial" / "tissue_positions.parquet")
    positions.unlink()
    (folder / "probe_set.csv").write_text(
        "#probe_set_file_format=3.0\ngene_id,probe_seq,probe_id\n"
    )
    with h5py.File(folder / "raw_probe_bc_matrix.h5", "w") as file:
        file.create_group("matrix")


def use_parquet_with_index(folder, _):
    positions = folder / "spatial" / "tissue_positions.csv"
    table = pd.read_csv(positions, index_col="barcode")
    table.to_parquet(folder / "spatial" / "tissue_positions.parquet")
    positions.unlink()


def use_compressed_files(folder, _):
    compress(folder / "spatial" / "tissue_positions.csv")
    compress(folder / "spatial" / "scalefactors_json.json")


def use_cytassist(folder, _):
    picture = PIL.Image.fromarray(np.full((300, 300, 3), 200, np.uint8))
    picture.save(folder / "spatial" / "cytassist_image.tiff")
    picture.save(folder / "spatial" / "aligned_tissue_image.jpg")
    picture.save(folder / "spatial" / "aligned_fiducials.jpg")


def use_geo_names(folder, _):
    """Lay the folder out as GEO does: all files in one place, with the sample in front."""
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        file.rename(folder / f"GSM123_breast_{file.name}")
    (folder / "spatial").rmdir()


def use_geo_text_matrix(folder, adata):
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    write_text_matrix(folder / "parts", adata)
    for file in list((folder / "parts").iterdir()):
        compress(file)
    for file in (folder / "parts").iterdir():
        file.rename(folder / f"GSM123_breast_{file.name}")
    (folder / "parts").rmdir()


def use_prefix_of_matrix_alone(folder, _):
    h5 = folder / "filtered_feature_bc_matrix.h5"
    h5.rename(folder / "V1_Breast_filtered_feature_bc_matrix.h5")


def use_outs(folder, _):
    shutil.move(folder, folder.parent / "moved")
    folder.mkdir()
    shutil.move(folder.parent / "moved", folder / "outs")


def use_no_pictures(folder, _):
    for picture in (folder / "spatial").glob("*.png"):
        picture.unlink()


LAYOUTS = [change for name, change in globals().items() if name.startswith("use_")]


@pytest.mark.parametrize("change", LAYOUTS, ids=lambda change: change.__name__)
def test_every_layout_gives_the_same_slide(change, space_ranger, adata):
    change(space_ranger, adata)
    sdata = read_visium(space_ranger, image=space_ranger.parent / "full.tif")
    table = sdata["table"]
    assert table.obs_names.tolist() == adata.obs_names.tolist()
    assert table.var_names.tolist() == adata.var_names.tolist()
    assert table.var["gene_ids"].iloc[3] == "ENSG00000141736"
    assert set(table.var["feature_types"]) == {"Gene Expression"}
    assert (table.X != adata.X).nnz == 0
    np.testing.assert_allclose(table.obsm["spatial"], adata.obsm["spatial"])
    for column in ("array_row", "array_col"):
        assert table.obs[column].tolist() == adata.obs[column].tolist()
    (slide,) = find_slides(sdata, table)
    assert slide.image_key == "sample_full_image"
    assert slide.pyramid.um_per_px == pytest.approx(1.0)
    assert table.uns["spatial"]["sample"]["scalefactors"]["tissue_hires_scalef"] == 0.5


REAL = {
    "SFE/sample01": (12, 5),
    "SFE/sample02": (13, 5),
    "Spaniel_sr1": (3352, 815),
    "SpatialExperiment_10xVisium/section1": (50, 50),
    "SpatialExperiment_10xVisium/section2": (49, 50),
    "VisiumIO/10xVisium/section1": (50, 49),
    "VisiumIO/10xVisium/section2": (49, 49),
    "scanpy_visium_data/1.0.0": (100, 100),
    "seurat_visium": (2695, 100),
}


@pytest.mark.filterwarnings("ignore:only .* spot centers lie on tissue_")  # cropped pictures of SFE
@pytest.mark.parametrize("folder", REAL)
def test_real_folders_of_several_versions(folder, real):
    sdata = read_visium(real("space_ranger", *folder.split("/")), name="slide")
    table = sdata["table"]
    assert table.shape == REAL[folder]
    assert np.isfinite(table.obsm["spatial"]).all()
    assert table.X.sum() > 0
    assert "um" in sdata.coordinate_systems


@pytest.mark.parametrize(
    ("folder", "error", "message"),
    [
        (
            "scanpy_visium_data/2.1.0",
            FileNotFoundError,
            r"2\.1\.0 lacks filtered_feature_bc_matrix\.h5, spatial/tissue_positions\.csv, "
            r"spatial/scalefactors_json\.json; raw_probe_bc_matrix\.h5 counts probes, not genes",
        ),
        ("SFE", FileNotFoundError, "it has folders of samples, pass one of sample01, sample02"),
        ("seurat_visium_hd", ValueError, r"Visium HD; read it with stp\.io\.read_visium_hd"),
        ("VisiumIO", ValueError, r"Visium HD; read it with stp\.io\.read_visium_hd"),
    ],
)
def test_errors_of_real_folders_name_what_they_lack(folder, error, message, real):
    with pytest.raises(error, match=message):
        read_visium(real("space_ranger", *folder.split("/")))


@pytest.mark.parametrize(
    "name",
    [
        "filtered_feature_bc_matrix.h5",
        "spatial/tissue_positions.csv",
        "spatial/scalefactors_json.json",
    ],
)
def test_a_missing_file_is_named_with_its_folder(name, space_ranger):
    (space_ranger / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"sample lacks {name}"):
        read_visium(space_ranger)


def test_the_missing_part_of_a_matrix_folder_is_named(space_ranger, adata):
    use_text_matrix(space_ranger, adata)
    (space_ranger / "filtered_feature_bc_matrix" / "barcodes.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks filtered_feature_bc_matrix/barcodes\.tsv$"):
        read_visium(space_ranger)


def test_an_archive_is_to_be_unpacked(space_ranger):
    shutil.make_archive(space_ranger / "spatial", "gztar", space_ranger / "spatial")
    shutil.rmtree(space_ranger / "spatial")
    with pytest.raises(FileNotFoundError, match=r"unpack spatial\.tar\.gz first"):
        read_visium(space_ranger)


@pytest.mark.parametrize("kind", ["matrix", "positions", "one without prefix", "mixed"])
def test_two_samples_in_a_folder_are_refused(kind, space_ranger):
    h5 = space_ranger / "filtered_feature_bc_matrix.h5"
    positions = space_ranger / "spatial" / "tissue_positions.csv"
    prefixes = "A_, B_"
    if kind == "matrix":
        shutil.copy(h5, space_ranger / f"B_{h5.name}")
        h5.rename(space_ranger / f"A_{h5.name}")
    elif kind == "positions":
        shutil.copy(positions, positions.with_name(f"B_{positions.name}"))
        positions.rename(positions.with_name(f"A_{positions.name}"))
    elif kind == "one without prefix":
        prefixes = r"\(no prefix\), B_"
        shutil.copy(h5, space_ranger / f"B_{h5.name}")
    else:
        h5.rename(space_ranger / f"A_{h5.name}")
        positions.rename(positions.with_name(f"B_{positions.name}"))
    with pytest.raises(ValueError, match=f"several samples, with the prefixes {prefixes};"):
        read_visium(space_ranger)


@pytest.mark.parametrize("entry", ["binned_outputs", "square_008um", "feature_slice.h5"])
def test_a_folder_of_visium_hd_names_its_reader(entry, space_ranger):
    (space_ranger / entry).mkdir()
    with pytest.raises(ValueError, match=r"stp\.io\.read_visium_hd\(path, bin_um=8\)"):
        read_visium(space_ranger)


def change_positions(folder, change):
    positions = folder / "spatial" / "tissue_positions.csv"
    change(pd.read_csv(positions)).to_csv(positions, index=False)


def test_spots_without_a_position_are_counted_and_named(space_ranger):
    change_positions(space_ranger, lambda table: table[~table["barcode"].isin(["spot4", "spot7"])])
    with pytest.raises(ValueError, match=r"2 of 100 spots have no position in .*: spot4, spot7;"):
        read_visium(space_ranger)


def test_an_empty_position_is_none(space_ranger):
    change_positions(
        space_ranger,
        lambda table: table.assign(
            pxl_row_in_fullres=table["pxl_row_in_fullres"].where(table["barcode"] != "spot9")
        ),
    )
    with pytest.raises(ValueError, match="1 of 100 spots have no position in .*: spot9;"):
        read_visium(space_ranger)


def test_raw_counts_are_read_if_there_are_no_others(space_ranger, adata, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("stp"), "propagate", True)
    use_raw_matrix(space_ranger, adata)
    change_positions(space_ranger, lambda table: table[table["barcode"] != "spot4"])
    with caplog.at_level(logging.INFO, "stp"):
        table = read_visium(space_ranger)["table"]
    assert table.obs_names.tolist() == [name for name in adata.obs_names if name != "spot4"]
    assert (table.X != adata[table.obs_names].X).nnz == 0
    assert "so raw_feature_bc_matrix.h5 was read, in which 99 of 100 barcodes" in caplog.text


def test_filtered_counts_come_before_raw_ones(space_ranger, adata):
    h5 = space_ranger / "filtered_feature_bc_matrix.h5"
    shutil.copy(h5, space_ranger / "raw_feature_bc_matrix.h5")
    with h5py.File(space_ranger / "raw_feature_bc_matrix.h5", "r+") as file:
        file["matrix"]["data"][:] = 1
    assert (read_visium(space_ranger)["table"].X != adata.X).nnz == 0


def test_antibodies_keep_their_type(space_ranger, adata):
    with h5py.File(space_ranger / "filtered_feature_bc_matrix.h5", "r+") as file:
        types = file["matrix"]["features"]["feature_type"]
        values = types[:].astype("S20")
        values[-1] = b"Antibody Capture"
        del file["matrix"]["features"]["feature_type"]
        file["matrix"]["features"]["feature_type"] = values
    table = read_visium(space_ranger)["table"]
    assert table.shape == adata.shape
    assert table.var["feature_types"].iloc[-1] == "Antibody Capture"


def test_bad_files_are_named(space_ranger):
    change_positions(space_ranger, lambda table: table.drop(columns="in_tissue"))
    with pytest.raises(ValueError, match=r"tissue_positions\.csv lacks the columns"):
        read_visium(space_ranger)
    factors = space_ranger / "spatial" / "scalefactors_json.json"
    factors.write_text(json.dumps({"tissue_hires_scalef": 0.5}))
    with pytest.raises(ValueError, match="has no spot_diameter_fullres"):
        read_visium(space_ranger)
    factors.write_text("not json")
    with pytest.raises(ValueError, match="has no scale factors of Space Ranger"):
        read_visium(space_ranger)


def test_a_truncated_matrix_is_named(space_ranger):
    h5 = space_ranger / "filtered_feature_bc_matrix.h5"
    h5.write_bytes(h5.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"matrix\.h5 cannot be read .* is the file complete\?"):
        read_visium(space_ranger)


def test_repeated_barcodes_are_named(space_ranger):
    change_positions(space_ranger, lambda table: pd.concat([table, table[:1]]))
    with pytest.raises(ValueError, match="lists barcodes several times: spot"):
        read_visium(space_ranger)


def test_an_image_of_another_size_is_refused(space_ranger, image, tmp_path):
    tifffile.imwrite(tmp_path / "half.tif", image[::2, ::2], photometric="rgb")
    with pytest.raises(ValueError, match=r"half\.tif"):
        read_visium(space_ranger, image=tmp_path / "half.tif")
    (space_ranger / "spatial" / "tissue_hires_image.png").unlink()
    with pytest.raises(ValueError, match=r"half\.tif"):  # the lowres picture tells it too
        read_visium(space_ranger, image=tmp_path / "half.tif")


def test_spots_beside_the_image_are_refused(space_ranger, image, tmp_path):
    use_no_pictures(space_ranger, None)
    tifffile.imwrite(tmp_path / "corner.tif", image[:300, :300], photometric="rgb")
    with pytest.raises(ValueError, match=r"spot centers lie on corner\.tif"):
        read_visium(space_ranger, image=tmp_path / "corner.tif")


def test_the_tag_of_the_image_is_a_source_of_the_scale(space_ranger, image, tmp_path):
    tagged = {"resolution": (10_000, 10_000), "resolutionunit": 3}
    tifffile.imwrite(tmp_path / "tagged.tif", image, photometric="rgb", **tagged)
    sdata = read_visium(space_ranger, image=tmp_path / "tagged.tif")  # 1 µm, as the lattice
    assert "sample_full_image" in sdata.images
    tagged["resolution"] = (40_000, 40_000)
    tifffile.imwrite(tmp_path / "tagged.tif", image, photometric="rgb", **tagged)
    with pytest.raises(
        ValueError, match=r"the file's metadata gives 0\.25 .* the spot lattice gives 1"
    ):
        read_visium(space_ranger, image=tmp_path / "tagged.tif")


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_a_grayscale_image_is_refused_as_such(ending, space_ranger, image, tmp_path):
    path = tmp_path / f"gray.{ending}"
    if ending == "tif":
        tifffile.imwrite(path, image[..., 0])
    else:
        PIL.Image.fromarray(image[..., 0]).save(path)
    with pytest.raises(ValueError, match=r"expected an RGB image, but .*gray.* is grayscale"):
        read_visium(space_ranger, image=path)


def test_a_slide_of_a_scanner_is_opened(space_ranger, image, tmp_path):
    path = tmp_path / "slide.svs"
    tiles = {"tile": (256, 256), "photometric": "rgb", "metadata": None}
    tifffile.imwrite(path, image, description="Aperio Image|MPP = 1.0", **tiles)
    sdata = read_visium(space_ranger, image=path)
    pixels = np.asarray(sdata["sample_full_image"].data)
    np.testing.assert_array_equal(np.moveaxis(pixels, 0, -1), image)


def test_a_picture_that_does_not_show_the_spots_is_left_out(space_ranger, image):
    picture = space_ranger / "spatial" / "tissue_hires_image.png"
    PIL.Image.fromarray(image[:60, :60]).save(picture)
    with pytest.warns(UserWarning, match=r"tissue_hires_image\.png .*; the picture is left out"):
        sdata = read_visium(space_ranger, image=space_ranger.parent / "full.tif")
    assert sorted(sdata.images) == ["sample_full_image", "sample_lowres_image"]


def test_a_gray_picture_is_not_taken_for_a_stain(space_ranger, image):
    for picture in (space_ranger / "spatial").glob("*.png"):
        PIL.Image.open(picture).convert("L").save(picture)
    sdata = read_visium(space_ranger)
    assert sdata["sample_hires_image"].sizes["c"] == 1
    with pytest.raises(ValueError, match="no RGB image"):
        find_slides(sdata, sdata["table"])


def test_the_name_of_a_slide_becomes_valid(space_ranger):
    sdata = read_visium(space_ranger, name="my slide (1)")
    (name,) = sdata.shapes
    assert " " not in name and f"{name}_hires_image" in sdata.images
