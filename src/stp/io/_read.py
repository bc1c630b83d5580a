"""Make a SpatialData of an AnnData and an image, of a Space Ranger folder, or of a whole-slide image."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stp.images.files import open_file
from stp.images.levels import Level, open_array
from stp.images.pyramid import ImagePyramid
from stp.images.scale import lattice_um_per_unit, resolve, scale_factors
from stp.images.slides import annotate_shapes

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

VISIUM_SPOT_UM = 55.0
CHUNK = 512  # pixels per side of the chunks of an image held in memory
THUMBNAIL_UM = 16.0  # um per pixel at which tissue is looked for


def from_anndata(
    adata: "AnnData",
    image: Any,
    *,
    um_per_px: float | None = None,
    spatial_key: str = "spatial",
    spot_diameter_um: float | None = None,
    name: str = "slide",
) -> "SpatialData":
    """Join an AnnData and its H&E image in a SpatialData.

    Parameters
    ----------
    adata
        Spots with their centers in `obsm[spatial_key]`, as x, y pixels of the full-resolution image.
    image
        Path of a TIFF, SVS, OME-TIFF, JPEG or PNG file (opened lazily), an RGB array (y, x, 3) or (3, y, x), or
        None for counts without an image.
    um_per_px
        um per pixel of the image. Left out, it is taken from the file, the scale factors or the spot lattice;
        sources that differ by more than 5 % are an error.
    spatial_key
        Where the centers are.
    spot_diameter_um
        Diameter of a spot in um, 55 unless given; it is drawn, never computed with.
    name
        Name of the slide: its spots are shapes `name`, its image is `f"{name}_full_image"`.

    Returns
    -------
    SpatialData with the coordinate systems "global" (pixels) and "um".

    Raises
    ------
    KeyError
        `obsm[spatial_key]` is missing.
    ValueError
        The physical scale is unknown or contradicted, the image is not 8-bit RGB, or the AnnData is backed.

    Examples
    --------
    >>> import numpy as np
    >>> picture = np.full((2500, 2700, 3), 255, dtype=np.uint8)  # or "slide.tif"
    >>> sdata = stp.io.from_anndata(adata, picture, um_per_px=1.0, name="mine")
    >>> list(sdata.images), list(sdata.shapes)
    (['mine_full_image'], ['mine'])
    """
    if adata.isbacked:
        raise ValueError(
            "a backed AnnData would be read whole; call .to_memory() first and pass its result"
        )
    if spatial_key not in adata.obsm:
        raise KeyError(
            f"adata.obsm[{spatial_key!r}] is missing: put spot centers there, x and y in pixels of the full-resolution "
            f"image, or pass spatial_key= one of {list(adata.obsm)}"
        )
    centers = np.asarray(adata.obsm[spatial_key], dtype=float)[:, :2]
    levels, tagged = _open(image)
    factors = scale_factors(adata.uns)
    scale, _ = resolve(
        {
            "um_per_px": um_per_px,
            "the file's metadata": tagged,
            "microns_per_pixel of the scalefactors": factors.get("microns_per_pixel"),
            "the spot lattice": lattice_um_per_unit(adata.obs, centers),
        },
        factors.get("spot_diameter_fullres"),
    )
    radius = (spot_diameter_um or VISIUM_SPOT_UM) / scale / 2
    return _assemble(adata.copy(), centers, radius, levels, scale, name)


def _open(image: Any) -> tuple[tuple[Level, ...], float | None]:
    if image is None:
        return (), None
    arrays, tagged = open_file(image) if isinstance(image, str | Path) else ([image], None)
    return tuple(map(open_array, arrays)), tagged


def _assemble(adata, centers, radius, levels, scale, name) -> "SpatialData":
    """Build shapes, table and image, each in pixels and um."""
    import spatialdata
    from spatialdata.models import ShapesModel

    systems = _systems(scale)
    shapes = ShapesModel.parse(centers, geometry=0, radius=radius, transformations=systems)
    images = {f"{name}_full_image": _image(levels, systems)} if levels else {}
    return spatialdata.SpatialData(
        images=images, shapes={name: shapes}, tables={"table": annotate_shapes(adata, name)}
    )


def _systems(scale: float) -> dict:
    from spatialdata.transformations import Identity, Scale

    return {"global": Identity(), "um": Scale([scale, scale], axes=("x", "y"))}


def _image(levels: tuple[Level, ...], transformations: dict) -> Any:
    """Make an image of one level, or a multiscale one of the levels that a file holds."""
    from spatialdata.transformations import set_transformation
    from xarray import DataTree

    images = [_one_level(level) for level in levels]
    image = images[0]
    if len(images) > 1:
        for reduced in images[1:]:
            for axis in ("y", "x"):
                at = (
                    (np.arange(reduced.sizes[axis]) + 0.5)
                    * images[0].sizes[axis]
                    / reduced.sizes[axis]
                )
                reduced.coords[axis] = at
        image = DataTree.from_dict(
            {f"scale{i}": one.to_dataset(name="image") for i, one in enumerate(images)}
        )
    set_transformation(image, dict(transformations), set_all=True)  # not shared with the spots
    return image


def _one_level(level: Level) -> Any:
    import dask.array
    from spatialdata.models import Image2DModel

    array = level.array
    if not isinstance(array, dask.array.Array):
        chunks = getattr(array, "chunks", None) or tuple(
            min(CHUNK, n) if n > 4 else n for n in array.shape
        )
        array = dask.array.from_array(array, chunks=chunks, meta=np.empty((0, 0, 0), np.uint8))
    array = array[:3] if level.channels_first else array[..., :3]
    dims = ("c", "y", "x") if level.channels_first else ("y", "x", "c")
    return Image2DModel.parse(array, dims=dims, c_coords=["r", "g", "b"])


def read_visium(
    path: str | Path,
    *,
    image: str | Path | None = None,
    um_per_px: float | None = None,
    name: str | None = None,
) -> "SpatialData":
    """Read a Space Ranger folder through spatialdata-io, with its full-resolution slide and its scale in um.

    Parameters
    ----------
    path
        The `outs` folder.
    image
        The full-resolution image given to Space Ranger; without it there is only a hires picture, on which no
        patches can be cut.
    um_per_px
        um per pixel of the full-resolution image; left out, it is fitted to the spot lattice.
    name
        Name of the slide, by default the folder's.

    Returns
    -------
    SpatialData with the coordinate systems of spatialdata-io and "um".

    Examples
    --------
    >>> sdata = stp.io.read_visium("slide/outs", image="slide/full_resolution.tif", name="mine")
    >>> "um" in sdata.coordinate_systems, "mine_full_image" in sdata.images
    (True, True)
    """
    import spatialdata_io

    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no Space Ranger folder at {path}")
    if image is not None and not Path(image).is_file():
        raise FileNotFoundError(f"no image at {image}")
    name = name or path.resolve().name
    whole = (
        None if image is None else Path(image).resolve()
    )  # spatialdata-io looks for relative ones in its folder
    sdata = spatialdata_io.visium(path, dataset_id=name, fullres_image_file=whole)
    table = sdata.tables["table"]
    table.var_names_make_unique()
    centers = np.asarray(table.obsm["spatial"], dtype=float)
    scale, _ = resolve(
        {"um_per_px": um_per_px, "the spot lattice": lattice_um_per_unit(table.obs, centers)}
    )
    _add_um(sdata, name, scale)
    return sdata


def _add_um(sdata: "SpatialData", name: str, scale: float) -> None:
    """Put spots and images in um: `scale` um per unit of the spots' own coordinates."""
    from spatialdata.transformations import Scale, Sequence, get_transformation, set_transformation

    to_um = Scale([scale, scale], axes=("x", "y"))
    spots = get_transformation(sdata.shapes[name], get_all=True)
    set_transformation(sdata.shapes[name], to_um, "um")
    for image in sdata.images.values():
        system = next((s for s in get_transformation(image, get_all=True) if s in spots), None)
        if system is not None:
            steps = [get_transformation(image, system), spots[system].inverse(), to_um]
            set_transformation(image, Sequence(steps), "um")


def read_wsi(
    path: str | Path,
    *,
    um_per_px: float | None = None,
    tile_um: float | None = None,
    min_tissue: float = 0.5,
    name: str = "wsi",
) -> "SpatialData":
    """Open a whole-slide image lazily, with a grid of tiles on tissue as spots without counts.

    Parameters
    ----------
    path
        A TIFF, SVS, OME-TIFF, JPEG or PNG file.
    um_per_px
        um per pixel of the finest level; left out, it is read from the file.
    tile_um
        Side of a tile in um; without it there are no tiles and no table, only the image.
    min_tissue
        Share of a tile that must be tissue, stained and not white, above 0 and up to 1.
    name
        Name of the slide.

    Returns
    -------
    SpatialData whose table has a row per tile and no genes; `stp.tl.embed_images` embeds a patch at each center.

    Raises
    ------
    ValueError
        The scale is unknown or contradicted, or no tile holds enough tissue.

    Examples
    --------
    >>> slide = stp.io.read_wsi("slide.tif", um_per_px=1.0, tile_um=112)
    >>> slide.tables["table"].n_vars
    0
    """
    import anndata
    import spatialdata

    if not 0 < min_tissue <= 1:
        raise ValueError(f"min_tissue is a share of a tile, above 0 and up to 1, not {min_tissue}")
    pyramid = ImagePyramid.from_path(path, um_per_px=um_per_px)
    levels, scale = pyramid.levels, pyramid.um_per_px
    if tile_um is None:
        return spatialdata.SpatialData(
            images={f"{name}_full_image": _image(levels, _systems(scale))}
        )
    centers, side = _tiles(pyramid, tile_um, min_tissue)
    adata = anndata.AnnData(
        np.empty((len(centers), 0), dtype=np.float32), obsm={"spatial": centers}
    )
    adata.obs_names = [f"{name}_{int(x)}_{int(y)}" for x, y in centers]
    return _assemble(adata, centers, side / 2, levels, scale, name)


def _tiles(pyramid: ImagePyramid, tile_um: float, min_tissue: float) -> tuple[np.ndarray, float]:
    """Lay a grid of tiles and keep those on tissue: centers (n, 2) in pixels, and the side of a tile."""
    height, width = pyramid.levels[0].shape
    side = tile_um / pyramid.um_per_px
    x, y = np.arange(side / 2, width, side), np.arange(side / 2, height, side)
    centers = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    size = max(4, round(tile_um / THUMBNAIL_UM))
    small = pyramid.read(centers, size=size, um_per_px=tile_um / size, allow_upsampling=True)
    share = _is_tissue(small).mean(axis=(1, 2)) * pyramid.inside(centers, size=1, um_per_px=tile_um)
    on_tissue = share >= min_tissue
    if not on_tissue.any():
        raise ValueError(
            f"no tile of {tile_um:g} um holds {min_tissue:.0%} tissue, the fullest {share.max(initial=0):.0%}: check "
            f"um_per_px ({pyramid.um_per_px:g}), or choose a smaller tile_um or min_tissue"
        )
    return centers[on_tissue], side


def _is_tissue(rgb: np.ndarray) -> np.ndarray:
    """Tell stained pixels from the white or gray of glass by their saturation."""
    high, low = rgb.max(axis=-1).astype(int), rgb.min(axis=-1).astype(int)
    return (high - low > 0.07 * np.maximum(high, 1)) & (low < 230)
