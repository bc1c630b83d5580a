import warnings

import anndata
import dask.array
import imagecodecs
import numpy as np
import PIL.Image
import pytest
import spatialdata
import tifffile
from spatialdata.transformations import get_transformation, remove_transformation

from stp.images.slides import find_slides
from stp.io import from_anndata, read_visium, read_wsi


def pixels(sdata, key="slide_full_image"):
    return np.moveaxis(np.asarray(sdata[key].data), 0, -1)


def to_um(element):
    return get_transformation(element, "um").to_affine_matrix(("x", "y"), ("x", "y"))


@pytest.fixture
def bare(adata):
    """Spots without a scale."""
    adata.obs = adata.obs[[]]
    return adata


def test_from_anndata(adata, image):
    sdata = from_anndata(adata, image, um_per_px=1.0, name="mine")
    assert (list(sdata.images), list(sdata.shapes), list(sdata.tables)) == (
        ["mine_full_image"],
        ["mine"],
        ["table"],
    )
    np.testing.assert_array_equal(pixels(sdata, "mine_full_image"), image)
    table = sdata["table"]
    assert table.uns["spatialdata_attrs"] == {
        "region": "mine",
        "region_key": "stp_region",
        "instance_key": "stp_spot",
    }
    assert (table.X != adata.X).nnz == 0
    assert "stp_region" not in adata.obs
    centers = np.column_stack([sdata["mine"].geometry.x, sdata["mine"].geometry.y])
    np.testing.assert_allclose(centers, adata.obsm["spatial"])


def test_spots_and_image_do_not_share_their_coordinate_systems(adata, image):
    sdata = from_anndata(adata, image, um_per_px=1.0)
    remove_transformation(sdata["slide_full_image"], "um")
    assert set(get_transformation(sdata["slide_full_image"], get_all=True)) == {"global"}
    assert set(get_transformation(sdata["slide"], get_all=True)) == {"global", "um"}


@pytest.mark.parametrize("um_per_px", [0.5, 2.0])
def test_both_coordinate_systems(bare, image, um_per_px):
    sdata = from_anndata(bare, image, um_per_px=um_per_px)
    for element in (sdata["slide_full_image"], sdata["slide"]):
        assert set(get_transformation(element, get_all=True)) == {"global", "um"}
        np.testing.assert_allclose(to_um(element), np.diag([um_per_px, um_per_px, 1]))
    assert sdata["slide"]["radius"].unique() * um_per_px == pytest.approx(27.5)
    wide = from_anndata(bare, image, um_per_px=um_per_px, spot_diameter_um=100)
    assert wide["slide"]["radius"].unique() * um_per_px == pytest.approx(50)
    (slide,) = find_slides(sdata, sdata["table"])
    np.testing.assert_allclose(slide.pyramid.to_pixels(slide.centers), bare.obsm["spatial"])


@pytest.mark.parametrize("kind", ["cyx", "rgba", "tiled tiff", "png"])
def test_from_anndata_takes_images_of_any_kind(kind, adata, image, tmp_path):
    if kind == "cyx":
        picture = np.ascontiguousarray(np.moveaxis(image, -1, 0))
    elif kind == "rgba":
        picture = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    elif kind == "png":
        picture = tmp_path / "a.png"
        PIL.Image.fromarray(image).save(picture)
    else:
        picture = str(tmp_path / "a.tif")
        tifffile.imwrite(picture, image, tile=(256, 256), photometric="rgb")
    sdata = from_anndata(adata, picture, um_per_px=1.0)
    assert isinstance(sdata["slide_full_image"].data, dask.array.Array)
    assert sdata["slide_full_image"].shape == (3, *image.shape[:2])
    np.testing.assert_array_equal(pixels(sdata), image)


def test_a_real_section_is_opened_and_not_decoded(real, monkeypatch):
    decoded = []
    decode = imagecodecs.imread
    monkeypatch.setattr(imagecodecs, "imread", lambda path: decoded.append(path) or decode(path))
    adata = anndata.read_h5ad(real("her2st", "C6.h5ad"))
    sdata = from_anndata(adata, real("her2st", "C6.jpg"), um_per_px=adata.uns["um_per_px"])
    (slide,) = find_slides(sdata, sdata["table"])
    assert decoded == []
    patches = slide.pyramid.read(slide.centers[::20], size=64, um_per_px=1.75)
    assert decoded
    means = patches.mean(axis=(1, 2))
    assert (means.max(axis=1) < 235).all()  # spots are on tissue, not on glass
    assert (means[:, 0] > means[:, 1]).all()  # which is pink


def test_from_anndata_without_an_image(adata):
    sdata = from_anndata(adata, None)  # the scale is that of the lattice
    assert list(sdata.images) == []
    np.testing.assert_allclose(to_um(sdata["slide"]), np.eye(3), atol=1e-9)


def test_a_backed_table_is_refused(adata, image, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(
        ValueError, match=r"a backed AnnData would be read whole; call \.to_memory\(\) first"
    ):
        from_anndata(anndata.read_h5ad(tmp_path / "a.h5ad", backed="r"), image, um_per_px=1.0)


def test_from_anndata_survives_the_disk(adata, image, tmp_path):
    from_anndata(adata, image, um_per_px=1.0).write(tmp_path / "a.zarr")
    back = spatialdata.read_zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(pixels(back), image)
    (slide,) = find_slides(back, back["table"])
    np.testing.assert_allclose(slide.centers, adata.obsm["spatial"])


def test_other_coordinates(adata, image):
    adata.obsm["pixels"] = np.column_stack([adata.obsm.pop("spatial"), np.zeros(100)])
    with pytest.raises(KeyError, match=r"adata\.obsm\['spatial'\] is missing.*spatial_key="):
        from_anndata(adata, image, um_per_px=1.0)
    sdata = from_anndata(adata, image, um_per_px=1.0, spatial_key="pixels")
    assert sdata["slide"].geometry.x.to_list() == adata.obsm["pixels"][:, 0].tolist()


def test_the_scale_comes_from_the_file_or_the_scale_factors(bare, image, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, photometric="rgb", description="Aperio|MPP = 0.5", metadata=None)
    assert to_um(from_anndata(bare, path)["slide"])[0, 0] == 0.5
    bare.uns["spatial"] = {"lib": {"scalefactors": {"microns_per_pixel": 0.7}}}
    assert to_um(from_anndata(bare, image)["slide"])[0, 0] == 0.7
    with pytest.raises(
        ValueError, match=r"the file's metadata gives 0\.5 .* scalefactors gives 0\.7"
    ):
        from_anndata(bare, path)
    bare.uns["spatial"]["second"] = {"scalefactors": {"microns_per_pixel": 0.5}}
    with pytest.raises(ValueError, match=r"libraries \['lib', 'second'\] of uns\['spatial'\]"):
        from_anndata(bare, image)


def test_scale_errors(adata, bare, image):
    with pytest.raises(ValueError, match="no physical scale: pass um_per_px="):
        from_anndata(bare, image)
    bare.uns["spatial"] = {"lib": {"scalefactors": {"spot_diameter_fullres": 65.0}}}
    with pytest.warns(UserWarning, match="spot diameter"):
        assert to_um(from_anndata(bare, image)["slide"])[0, 0] == 1.0


def test_the_users_scale_wins_against_each_other_source(adata, image, tmp_path):
    with pytest.warns(UserWarning, match=r"=0\.5 is used although the spot lattice gives 1 "):
        sdata = from_anndata(adata, image, um_per_px=0.5)
    assert to_um(sdata["slide"])[0, 0] == 0.5
    decision = sdata.attrs["stp_scale"]["slide_full_image"]
    assert (decision["um_per_px"], decision["source"]) == (0.5, "um_per_px")
    assert decision["others"] == pytest.approx({"the spot lattice": 1.0})
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image, photometric="rgb", description="Aperio|MPP = 0.25", metadata=None)
    with pytest.warns(
        UserWarning,
        match=r"is used although the file's metadata gives 0\.25 and the spot lattice",
    ):
        sdata = from_anndata(adata, path, um_per_px=0.5)
    (slide,) = find_slides(sdata, sdata["table"])
    assert slide.other_scales == pytest.approx(
        {"the file's metadata": 0.25, "the spot lattice": 1.0}
    )
    with pytest.raises(ValueError, match=r"file's metadata gives 0\.25 .* lattice gives 1;"):
        from_anndata(adata, path)


def test_a_scale_within_five_percent_of_the_lattice_is_used_in_silence(adata, image):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_um(from_anndata(adata, image, um_per_px=1.04)["slide"])[0, 0] == 1.04


def test_indices_of_other_spots_give_no_scale(adata, image):
    adata.obsm["spatial"] = np.random.default_rng(0).permutation(adata.obsm["spatial"])
    with (
        pytest.warns(UserWarning, match="array_row and array_col do not belong to the spot coord"),
        pytest.raises(ValueError, match="no physical scale: pass um_per_px="),
    ):
        from_anndata(adata, image)
    with pytest.warns(UserWarning, match="array_row and array_col do not belong to the spot coord"):
        assert to_um(from_anndata(adata, image, um_per_px=1.0)["slide"])[0, 0] == 1.0


@pytest.mark.parametrize("pitch_um", [20.0, 200.0])
def test_a_square_grid_needs_its_pitch(adata, image, pitch_um):
    row, col = np.divmod(np.arange(100), 10)
    adata.obs["array_row"], adata.obs["array_col"] = row, col
    adata.obsm["spatial"] = np.column_stack([col, row]) * 50.0 + 25
    with pytest.raises(ValueError, match=r"no physical scale: .* square grid.* spot_pitch_um= "):
        from_anndata(adata, image)
    sdata = from_anndata(adata, image, spot_pitch_um=pitch_um)
    np.testing.assert_allclose(to_um(sdata["slide"]), np.diag([pitch_um / 50, pitch_um / 50, 1]))
    with pytest.raises(ValueError, match=r"spot_pitch_um=0 is no distance"):
        from_anndata(adata, image, spot_pitch_um=0)


@pytest.mark.parametrize("section", ["C2", "C6"])
def test_a_real_section_of_spatial_transcriptomics_with_its_pitch(section, real):
    adata = anndata.read_h5ad(real("her2st", f"{section}.h5ad"))
    picture = real("her2st", f"{section}.jpg")
    with pytest.raises(ValueError, match=r"no physical scale: .* square grid.* spot_pitch_um= "):
        from_anndata(adata, picture)
    sdata = from_anndata(adata, picture, spot_pitch_um=200)
    assert to_um(sdata["slide"])[0, 0] == pytest.approx(adata.uns["um_per_px"], rel=0.01)


def test_what_is_no_rgb_image_is_refused(adata, image):
    with pytest.raises(ValueError, match="convert the image to uint8"):
        from_anndata(adata, image.astype(np.uint16))
    with pytest.raises(ValueError, match="expected an RGB image"):
        from_anndata(adata, image[..., 0])
    with pytest.raises(FileNotFoundError, match=r"no image at nothing\.jpg"):
        from_anndata(adata, "nothing.jpg")


def test_read_visium(space_ranger, adata, image):
    sdata = read_visium(space_ranger, image=space_ranger.parent / "full.tif")
    table = sdata["table"]
    assert table.obs_names.tolist() == adata.obs_names.tolist()
    assert (table.X != adata.X).nnz == 0
    assert table.var["gene_ids"].iloc[3] == "ENSG00000141736"
    (slide,) = find_slides(sdata, table)
    assert (slide.region, slide.image_key, slide.coordinate_system) == (
        "sample",
        "sample_full_image",
        "um",
    )
    assert slide.pyramid.um_per_px == pytest.approx(1.0)
    np.testing.assert_allclose(slide.centers, adata.obsm["spatial"], rtol=1e-6)
    patches = slide.pyramid.read(slide.centers, size=32, um_per_px=1.0)
    for patch, (x, y) in zip(
        patches, np.floor(adata.obsm["spatial"] - 15.5).astype(int), strict=True
    ):
        np.testing.assert_array_equal(patch, image[y : y + 32, x : x + 32])
    for key, factor in (("sample_hires_image", 2), ("sample_lowres_image", 10)):
        np.testing.assert_allclose(to_um(sdata[key]), np.diag([factor, factor, 1]), rtol=0.01)


def test_paths_from_here(space_ranger, monkeypatch):
    """Relative paths start at the current folder, though spatialdata-io starts in its own."""
    monkeypatch.chdir(space_ranger.parent)
    assert "mine_full_image" in read_visium("sample", image="full.tif", name="mine").images


def test_read_visium_without_the_slide(space_ranger):
    sdata = read_visium(str(space_ranger), name="mine")
    assert sorted(sdata.images) == ["mine_hires_image", "mine_lowres_image"]
    (slide,) = find_slides(sdata, sdata["table"])
    assert (slide.image_key, slide.pyramid.um_per_px) == ("mine_hires_image", pytest.approx(2.0))
    with pytest.raises(ValueError, match="give the full-resolution slide"):
        slide.pyramid.read(slide.centers, size=32, um_per_px=0.5)


def test_read_visium_errors(space_ranger, tmp_path):
    with pytest.raises(FileNotFoundError, match="no Space Ranger folder"):
        read_visium(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="no image at"):
        read_visium(space_ranger, image=tmp_path / "nothing.tif")
    with pytest.warns(UserWarning, match=r"um_per_px=0\.5 is used .* the spot lattice gives 1 "):
        assert to_um(read_visium(space_ranger, um_per_px=0.5)["sample"])[0, 0] == 0.5


SLIDES = {
    "CMU-1-Small-Region.svs": (0.499, (2967, 2220)),
    "TCGA-CR-7395-01A-01-TS1.svs": (None, (3567, 4443)),
    "kidney-48-5.tif": (None, (901, 1493)),
}


@pytest.mark.parametrize("name", SLIDES)
def test_read_wsi_of_real_slides(name, real):
    stated, shape = SLIDES[name]
    path = real("wsi", name)
    if stated is None:
        with pytest.raises(ValueError, match="no physical scale: pass um_per_px="):
            read_wsi(path)
    sdata = read_wsi(path, um_per_px=stated or 0.25)
    assert (list(sdata.images), list(sdata.shapes), list(sdata.tables)) == (
        ["wsi_full_image"],
        [],
        [],
    )
    element = sdata["wsi_full_image"]
    if name.startswith("TCGA"):  # two levels
        assert [element[scale]["image"].shape for scale in element.children] == [
            (3, *shape),
            (3, 1783, 2221),
        ]
        np.testing.assert_allclose(to_um(element), np.diag([0.25, 0.25, 1]))
        element = element["scale0"]["image"]
    assert element.shape == (3, *shape)
    np.testing.assert_allclose(to_um(element), np.diag([stated or 0.25] * 2 + [1]))
    window = element[:, 300:400, 500:620].to_numpy()
    np.testing.assert_array_equal(
        np.moveaxis(window, 0, -1), tifffile.imread(path, series=0)[300:400, 500:620]
    )


@pytest.mark.parametrize(
    ("name", "n_tiles"), [("CMU-1-Small-Region.svs", 48), ("TCGA-CR-7395-01A-01-TS1.svs", 47)]
)
def test_tiles_of_real_slides_are_on_tissue(name, n_tiles, real):
    um_per_px = SLIDES[name][0] or 0.25
    sdata = read_wsi(real("wsi", name), um_per_px=um_per_px, tile_um=112, name="case")
    table = sdata["table"]
    assert table.shape == (n_tiles, 0)  # counted on the picture
    (slide,) = find_slides(sdata, table)
    assert (slide.region, slide.image_key) == ("case", "case_full_image")
    assert slide.pyramid.inside(slide.centers, size=224, um_per_px=0.5).all()
    steps = slide.centers / 112 - 0.5
    np.testing.assert_allclose(steps, steps.round(), atol=1e-6)
    patches = slide.pyramid.read(
        slide.centers, size=56, um_per_px=2.0, allow_upsampling=True
    ).astype(int)
    stained = np.ptp(patches, axis=-1) > 20
    assert stained.mean(axis=(1, 2)).min() > 0.35
    assert stained.mean() > 0.7


def test_tiles_of_a_small_piece_of_kidney(real):
    path = real("wsi", "kidney-48-5.tif")  # one piece, 117 x 65 px, on a slide of glass
    with pytest.raises(
        ValueError, match=r"no tile of 112 µm is 50% tissue, the fullest is \d+%: check um_per_px"
    ):
        read_wsi(path, um_per_px=0.5, tile_um=112)
    centers = read_wsi(path, um_per_px=12.0, tile_um=112)["table"].obsm["spatial"]
    assert len(centers) == 46
    assert ((centers > (280, 500)) & (centers < (405, 575))).all()
    few = read_wsi(path, um_per_px=0.5, tile_um=112, min_tissue=0.02)["table"].obsm["spatial"]
    assert len(few) and (np.abs(few - (342, 535)) < 224).all()
    with pytest.raises(
        ValueError, match="min_tissue is a share of a tile, above 0 and up to 1, not 50"
    ):
        read_wsi(path, um_per_px=12.0, tile_um=112, min_tissue=50)


def test_tiles_by_hand(tmp_path):
    slide = np.full((500, 700, 3), 240, np.uint8)  # glass
    slide[100:400, 200:500] = (200, 120, 180)  # tissue
    slide[100:200, 200:275] = 235  # a tile of which a quarter is tissue
    slide[0:100, 600:700] = 20  # black ink is gray
    PIL.Image.fromarray(slide).save(tmp_path / "a.png")
    sdata = read_wsi(tmp_path / "a.png", um_per_px=0.5, tile_um=50)
    expected = [[x + 50, y + 50] for y in (100, 200, 300) for x in (200, 300, 400)][1:]
    assert sdata["table"].obsm["spatial"].tolist() == expected
    assert sdata["table"].obs_names[0] == "wsi_350_150"
    assert (sdata["wsi"]["radius"] == 50).all()
    sdata.write(tmp_path / "a.zarr")
    assert spatialdata.read_zarr(tmp_path / "a.zarr")["table"].shape == (8, 0)


def test_a_scan_may_be_black_beside_its_tissue(tmp_path):
    slide = np.full((512, 512, 3), (200, 120, 180), np.uint8)
    slide[:256, :256] = 0
    tifffile.imwrite(tmp_path / "a.tif", slide, tile=(128, 128), photometric="rgb")
    centers = read_wsi(tmp_path / "a.tif", um_per_px=0.5, tile_um=64)["table"].obsm["spatial"]
    assert len(centers) == 12 and (centers > 256).any(axis=1).all()


def test_a_real_picture_of_xenium(real):
    adata = anndata.read_h5ad(real("xenium_lung", "NCBI858.h5ad"))
    picture = real("xenium_lung", "NCBI858.jpg")
    tissue = {}
    for order in (["y_pixel", "x_pixel"], ["x_pixel", "y_pixel"]):  # x_pixel is the row
        adata.obsm["spatial"] = adata.obs[order].to_numpy()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sdata = from_anndata(adata, picture, um_per_px=2.125)
            (slide,) = find_slides(sdata, sdata["table"])
        texts = [str(w.message) for w in caught if "only 92% of 200 spot centers" in str(w.message)]
        assert len(texts) == (0 if order[0] == "y_pixel" else 2)
        assert all("with x and y swapped, 100% of them would: swap" in text for text in texts)
        window = {"size": 8, "um_per_px": 2.125}
        tissue[order[0]] = slide.pyramid.read(slide.centers, **window).mean(axis=-1) < 200
        tissue[order[0], "inside"] = slide.pyramid.inside(slide.centers, **window).all()
    assert tissue["y_pixel"].mean() > 0.65 and tissue["y_pixel", "inside"]
    assert tissue["x_pixel"].mean() < 0.35 and not tissue["x_pixel", "inside"]
    assert slide.pyramid.um_per_px == 2.125
    with pytest.raises(
        ValueError,
        match=r"has 2\.12 µm per pixel, patches of 0\.5 are wanted: give the full-resolution",
    ):
        slide.pyramid.read(slide.centers, size=224, um_per_px=0.5)
