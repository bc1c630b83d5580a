"""A synthetic slide whose image and expression follow one law: for tests, tutorials and honest demos.

Public slides need no code of ours: `squidpy.datasets.visium` and `scanpy.datasets.visium_sge` fetch them.
"""

from functools import partial
from io import StringIO
from types import SimpleNamespace

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.random import Generator
from scipy import ndimage, sparse, spatial, special
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Identity, Scale

from stp.datasets._programs import FAMILIES, HOUSEKEEPING, MARKERS

__all__ = ["synthetic_visium"]

_PITCH, _RADIUS, _MARGIN = (
    100.0,
    27.5,
    100.0,
)  # um: distance of spots, radius of a spot, glass around the lattice
_CELL = 2.0  # um: the tissue is laid out on a grid this fine whatever the resolution of the scan

# What a domain looks like: optical densities (eosin; haze, the hematoxylin between nuclei; dark, that of a nucleus),
# contrasts (fibers; grain; nests, the clefts between them; pallor inside a nucleus), nuclei (per mm2; um; ratio), and
# content of RNA. By mean color tumor is near immune, stroma near necrosis: form tells them apart.
_LOOK_TABLE = """
    domain   eosin haze fibers grain nests nuclei radius aspect dark pallor rna
    tumor     0.42 0.15   0.1   0.20   0.8   5200    4.6   1.25 0.80   0.45 1.4
    stroma    0.55 0.03   0.5   0.10   0.0   1700    3.4   3.20 0.85   0.10 0.9
    immune    0.36 0.10   0.1   0.20   0.1  11000    2.8   1.08 0.95   0.05 1.1
    adipose   0.50 0.02   0.1   0.10   0.0   2500    2.6   2.40 0.85   0.10 0.6
    necrosis  0.50 0.07   0.1   0.35   0.1   2600    1.7   1.20 0.95   0.00 0.6"""
_LOOK = pd.read_csv(StringIO(_LOOK_TABLE), sep=r"\s+", index_col="domain")
_DOMAINS = list(_LOOK.index)


def synthetic_visium(
    *,
    seed: int = 0,
    n_rows: int = 26,
    n_cols: int = 26,
    um_per_px: float = 1.0,
    name: str = "slide",
) -> SpatialData:
    """Make a Visium slide: an H&E-like image, hexagonal spots, negative-binomial counts of real human genes.

    Five domains and a continuous activity shape both form (density, size and shape of nuclei, texture) and expression
    (marker programs), by a law that all seeds share. Layout, stain and depth are the seed's own; stains differ so much
    that color says little across slides. A seed is the same tissue with the same counts at every `um_per_px`.

    Parameters
    ----------
    seed
        Decides everything random.
    n_rows, n_cols
        Spots down and across, at least 6; those not wholly on tissue are left out.
    um_per_px
        Pixel size of the image in um.
    name
        Name of the slide: the table's region and the shapes; the image is `f"{name}_full_image"`.

    Returns
    -------
    SpatialData
        `images[f"{name}_full_image"]`: uint8 RGB (c, y, x); `shapes[name]`: circles 55 um wide. Both are in pixels in
        the coordinate system "global", in um in "um". `tables["table"]`: raw counts (float32 CSR) under gene symbols;
        `obs` has `array_row`, `array_col` and the truth: `domain`, which has most of the spot's area, and `activity`;
        `obsm["spatial"]` has pixel positions (x, y), where pixel i covers [i, i + 1).

    Raises
    ------
    ValueError
        If there are fewer than 6 rows or columns, or `um_per_px` is not positive.

    Examples
    --------
    >>> slide = stp.datasets.synthetic_visium(seed=1, n_rows=8, n_cols=8, um_per_px=2.0)
    >>> list(slide.images), list(slide.tables)
    (['slide_full_image'], ['table'])
    """
    if min(n_rows, n_cols) < 6 or not um_per_px > 0:
        raise ValueError(
            f"n_rows and n_cols must be 6 or more, um_per_px positive: {n_rows}, {n_cols}, {um_per_px}"
        )
    # One stream for each part, so that what one draws never moves another.
    layout, cells, scanner, reads = np.random.default_rng(seed).spawn(4)
    lattice, size = _lattice(n_rows, n_cols)
    tissue = _tissue(layout, tuple(np.ceil(size / _CELL).astype(int)))
    spots = _cover(lattice, tissue)
    image = _scan(
        scanner,
        tissue,
        _nuclei(cells, tissue),
        tuple(np.ceil(size / um_per_px).astype(int)),
        um_per_px,
    )
    return _assemble(image, spots, _counts(reads, spots), um_per_px, name)


def _lattice(n_rows: int, n_cols: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Lay out all spots (array_row, array_col; x, y in um) and the slide's size (y, x) in um."""
    row, col = np.divmod(np.arange(n_rows * n_cols), n_cols)
    spots = pd.DataFrame({"array_row": row, "array_col": 2 * col + row % 2})
    steps = spots[["array_col", "array_row"]].to_numpy() * _PITCH / 2
    spots[["x", "y"]] = _MARGIN + steps * [1, np.sqrt(3)]
    return spots, spots[["y", "x"]].max().to_numpy() + _MARGIN


def _noise(rng: Generator, shape: tuple[int, int], length: float) -> np.ndarray:
    """Draw a map of about N(0, 1) that varies over `length` um: Gaussian bumps of random height, `length` apart."""
    at = [np.arange(n)[:, None] * _CELL / length for n in shape]
    bumps = [np.exp(-0.5 * (a - np.arange(-3, a.max() + 4)) ** 2).astype(np.float32) for a in at]
    white = rng.standard_normal([b.shape[1] for b in bumps], dtype=np.float32)
    return bumps[0] @ white @ bumps[1].T / np.float32(np.sqrt(np.pi))


def _at(field: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Look a map (..., height, width) up at points (..., 2) in um."""
    x, y = np.moveaxis((xy / _CELL).astype(int), -1, 0)
    return field[..., y.clip(0, field.shape[-2] - 1), x.clip(0, field.shape[-1] - 1)]


def _tissue(rng: Generator, shape: tuple[int, int]) -> SimpleNamespace:
    """Draw the layout of a slide: maps (height, width) on a grid of `_CELL` um."""
    # The fine part of the score makes borders ragged and lets domains infiltrate each other.
    score = np.stack([_noise(rng, shape, 160) + 0.22 * _noise(rng, shape, 28) for _ in _DOMAINS])
    score -= score.mean(axis=(1, 2), keepdims=True)  # so that no slide lacks a domain
    shares = special.softmax(score / 0.12 / score.std(axis=(1, 2), keepdims=True), axis=0)
    y, x = np.ogrid[: shape[0], : shape[1]]
    turned = np.exp(1j * rng.uniform(0, np.pi)) * (x + 1j * y) * _CELL
    return SimpleNamespace(
        shares=shares,  # (domains, height, width): of sum 1
        mask=_outline(rng, shape),  # 1 on tissue, 0 on glass
        activity=_noise(rng, shape, 240),
        along=turned.real + 110 * _noise(rng, shape, 130),  # um along the fibers, and across them
        across=turned.imag + 110 * _noise(rng, shape, 130) + 5 * _noise(rng, shape, 22),
        clefts=np.exp(-((_noise(rng, shape, 30) / 0.16) ** 2)),  # 1 in the middle of a cleft
        fat=_fat(rng, shares[_DOMAINS.index("adipose")]),  # 1 inside a vacuole
        thickness=np.exp(0.12 * _noise(rng, shape, 300)),  # of the section, about 1
    )


def _outline(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw a rounded piece of tissue with an irregular border, all of it inside the slide."""
    y, x = (np.linspace(-1, 1, n) ** 4 for n in shape)
    wave = np.tanh(_noise(rng, shape, 160) + 0.4 * _noise(rng, shape, 20))
    return ((0.9 + 0.06 * wave - (x + y[:, None]) ** 0.25) * min(shape) / 2).clip(0, 1)


def _fat(rng: Generator, share: np.ndarray) -> np.ndarray:
    """Draw fat vacuoles: Voronoi cells of a jittered grid with rounded corners, less their walls, where adipose is."""
    pitch = 42 / _CELL
    grid = np.mgrid[tuple(slice(-pitch, n + pitch, pitch) for n in share.shape)].reshape(2, -1).T
    seeds = grid + rng.uniform(-0.36, 0.36, grid.shape) * pitch
    near = np.argwhere(share > 0.05)
    distance, which = spatial.cKDTree(seeds).query(near, k=4)
    gap = np.linalg.norm(seeds[which[:, 1:]] - seeds[which[:, :1]], axis=-1)
    wall = (
        (distance[:, 1:] ** 2 - distance[:, :1] ** 2) / (2 * gap) * _CELL
    )  # um to the border with each neighbor
    inside = ((wall.clip(0.1) ** -2).sum(axis=1) ** (-1 / 2) - 1.2).clip(
        0, 1
    )  # a soft minimum rounds the corners
    fat = np.zeros(share.shape)
    fat[tuple(near.T)] = inside * (_at(share, seeds[:, ::-1] * _CELL) > 0.5)[which[:, 0]]
    return fat


def _nuclei(rng: Generator, tissue: SimpleNamespace) -> np.ndarray:
    """Draw nuclei (n, 7): x, y, long and short half axis in um, angle, optical density, pallor."""
    size = np.array(tissue.mask.shape[::-1]) * _CELL
    most = (
        2 * _LOOK["nuclei"].max() * 1e-6
    )  # per um2: a Poisson process, thinned to the density of each place
    xy = rng.uniform(0, size, (rng.poisson(most * size.prod()), 2))
    domain = (rng.random(len(xy)) > _at(tissue.shares, xy)[:-1].cumsum(axis=0)).sum(axis=0)
    look = _LOOK.iloc[domain].reset_index(drop=True)
    activity = _at(tissue.activity, xy).clip(-2, 2)
    dense = look["nuclei"] * 1e-6 * 2 ** (activity / 2) / most
    room = (
        (1 - look["nests"] * _at(tissue.clefts, xy))
        * (1 - _at(tissue.fat, xy))
        * (_at(tissue.mask, xy) == 1)
    )
    kept = (rng.random(len(xy)) < dense * room).to_numpy()
    xy, look = xy[kept], look[kept]
    radius = look["radius"].to_numpy() * 1.06 ** activity[kept] * rng.lognormal(0, 0.15, len(xy))
    aspect = 1 + (look["aspect"].to_numpy() - 1) * rng.lognormal(0, 0.3, len(xy))
    dy, dx = _at(np.stack(np.gradient(tissue.across)), xy)
    angle = np.arctan2(dx, -dy) + 2 / aspect**2 * rng.standard_normal(
        len(xy)
    )  # with the fibers, the longer the more
    dark, stretch = look["dark"] * rng.lognormal(0, 0.2, len(xy)), np.sqrt(aspect)
    return np.column_stack([xy, radius * stretch, radius / stretch, angle, dark, look["pallor"]])[
        _apart(xy, radius)
    ]


def _apart(xy: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Select discs that hardly overlap: of each pair too close, the later is dropped."""
    pairs = spatial.cKDTree(xy).query_pairs(2 * radius.max(), output_type="ndarray")
    distance = np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1)
    return np.setdiff1d(np.arange(len(xy)), pairs[distance < 0.85 * radius[pairs].sum(axis=1), 1])


def _draw(nuclei: np.ndarray, shape: tuple[int, int], um_per_px: float) -> np.ndarray:
    """Draw nuclei as optical density (y, x), in chunks of like size so that small ones need small patches only."""
    canvas = np.zeros(shape[0] * shape[1], dtype=np.float32)
    nuclei = nuclei[np.argsort(nuclei[:, 2])]
    for chunk in np.array_split(nuclei, len(nuclei) // 2000 + 1):
        x, y, long, short, angle, dark, pallor = chunk.astype(np.float32).T[..., None, None]
        reach = int(np.ceil(chunk[:, 2].max() / um_per_px)) + 1
        step = np.arange(-reach, reach + 1)
        col, row = (x // um_per_px).astype(int) + step, (y // um_per_px).astype(int) + step[:, None]
        dx, dy, cos, sin = (
            (col + 0.5) * um_per_px - x,
            (row + 0.5) * um_per_px - y,
            np.cos(angle),
            np.sin(angle),
        )
        r2 = ((dx * cos + dy * sin) / long) ** 2 + ((dy * cos - dx * sin) / short) ** 2
        body = ((1 - np.sqrt(r2)) * short / max(1.0, um_per_px) + 0.5).clip(0, 1)
        # Tissue ends well before the image, so that only empty corners of a patch are moved by the clipping.
        pixel = row.clip(0, shape[0] - 1) * shape[1] + col.clip(0, shape[1] - 1)
        np.maximum.at(canvas, pixel, dark * body * (1 - pallor * (1 - r2).clip(0, 1)))
    return canvas.reshape(shape)


def _enlarge(field: np.ndarray, shape: tuple[int, int], um_per_px: float) -> np.ndarray:
    """Interpolate a map linearly at the pixel centers of an image."""
    for n in shape:  # one axis, then the other: the transpose brings the next to the front
        at = ((np.arange(n) + 0.5) * um_per_px / _CELL - 0.5).clip(0, len(field) - 1.001)
        low, pixel = at.astype(int), np.arange(n)
        part = np.r_[1 - at + low, at - low].astype(np.float32)
        weights = sparse.csr_array(
            (part, (np.r_[pixel, pixel], np.r_[low, low + 1])), (n, len(field))
        )
        field = (weights @ field.astype(np.float32)).T
    return field


def _scan(
    rng: Generator, tissue: SimpleNamespace, nuclei: np.ndarray, shape: tuple, um_per_px: float
) -> np.ndarray:
    """Stain and scan a slide: uint8 RGB (3, y, x)."""
    pixels = partial(_enlarge, shape=shape, um_per_px=um_per_px)
    look = {column: np.tensordot(_LOOK[column], tissue.shares, axes=1) for column in _LOOK}
    grain = _noise(rng, tissue.mask.shape, 3)
    solid = (1 - tissue.fat) * (1 - 0.8 * look["nests"] * tissue.clefts)
    section, ground = (
        pixels(tissue.mask * tissue.thickness),
        pixels(solid * np.exp(look["grain"] * grain)),
    )
    # Fibers: smooth noise looked up along and across them, so that it bends and stretches as they do.
    noise = ndimage.gaussian_filter(
        rng.standard_normal((1024, 1024), dtype=np.float32), (16, 8), mode="wrap"
    )
    along, across = (
        (pixels(tissue.along) / 3).astype(int) % 1024,
        (pixels(tissue.across) / 0.4).astype(int) % 1024,
    )
    fibers = np.exp(pixels(look["fibers"]) * noise[along, across] / noise.std())
    ink = _draw(nuclei, shape, um_per_px) * pixels(1 + 0.15 * grain)
    eosin = ground * fibers * pixels(look["eosin"]) * (1 - 0.4 * ink.clip(0, 1))
    return _stain(rng, section * (ink + ground * pixels(look["haze"])), section * eosin)


def _stain(rng: Generator, hematoxylin: np.ndarray, eosin: np.ndarray) -> np.ndarray:
    """Turn optical densities (y, x) into RGB by Beer and Lambert's law, with this slide's own stains and light."""
    stains = np.array([[0.65, 0.70, 0.29], [0.16, 0.88, 0.40]]) + 0.05 * rng.standard_normal((2, 3))
    stains *= rng.lognormal(0, 0.25, (2, 1)) / np.linalg.norm(stains, axis=1, keepdims=True)
    light, stains = 242 + 3 * rng.standard_normal(3, dtype=np.float32), stains.astype(np.float32)
    image = np.empty((3, *eosin.shape), dtype=np.uint8)
    for c, (h, e) in enumerate(stains.T):
        rgb = light[c] * np.exp(-h * hematoxylin - e * eosin) + 2 * rng.standard_normal(
            eosin.shape, dtype=np.float32
        )
        image[c] = rgb.clip(0, 255)
    return image


def _cover(spots: pd.DataFrame, tissue: SimpleNamespace) -> pd.DataFrame:
    """Keep the spots wholly on tissue; add what lies under them: shares of the domains, domain, activity."""
    disc = np.mgrid[-_RADIUS : _RADIUS + 1 : 2.5, -_RADIUS : _RADIUS + 1 : 2.5].reshape(2, -1).T
    under = spots[["x", "y"]].to_numpy()[:, None] + disc[np.linalg.norm(disc, axis=1) <= _RADIUS]
    spots[_DOMAINS] = _at(tissue.shares, under).mean(axis=-1).T
    spots["domain"] = pd.Categorical(spots[_DOMAINS].idxmax(axis=1), categories=_DOMAINS)
    spots["activity"] = _at(tissue.activity, under).mean(axis=-1)
    return spots[_at(tissue.mask, under).min(axis=-1) == 1]


def _law() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return genes, base rates (genes,) and log folds (programs, genes): the same for every seed."""
    rng = np.random.default_rng(0)
    background = [stem + end for stem, ends in FAMILIES.items() for end in ends.split()]
    groups = [*(genes.split() for genes in MARKERS.values()), HOUSEKEEPING.split(), background]
    genes, group = (
        np.concatenate(groups),
        np.repeat(np.arange(len(groups)), [len(g) for g in groups]),
    )
    fold = np.log(rng.uniform(3, 8, len(genes))) * (group == np.arange(len(MARKERS))[:, None])
    level = 2.0 * np.isin(genes, groups[-2]) + 1.5 * np.char.startswith(genes, "RP")
    return list(genes), np.exp(level + 0.7 * rng.standard_normal(len(genes))), fold


def _counts(rng: Generator, spots: pd.DataFrame) -> AnnData:
    """Draw negative-binomial counts: domains contribute by area and RNA content, activity scales its own program."""
    genes, base, fold = _law()
    rate = (spots[_DOMAINS] * _LOOK["rna"]).to_numpy() @ (base / base.sum() * np.exp(fold[:-1]))
    rate *= np.exp(spots[["activity"]].to_numpy() * fold[-1] * 0.4)
    depth = 1400 * rng.lognormal(0, 0.15) * rng.lognormal(0, 0.35, (len(spots), 1))
    counts = rng.poisson(rng.gamma(3, depth * rate / 3))
    return AnnData(sparse.csr_matrix(counts.astype(np.float32)), var=pd.DataFrame(index=genes))


def _assemble(
    image: np.ndarray, spots: pd.DataFrame, table: AnnData, um_per_px: float, name: str
) -> SpatialData:
    """Put image, spots and counts together."""
    to = {"global": Identity(), "um": Scale([um_per_px, um_per_px], axes=("x", "y"))}
    xy = spots[["x", "y"]].to_numpy() / um_per_px
    obs = spots[["array_row", "array_col", "domain", "activity"]].set_axis(
        name + "_" + spots.index.astype(str)
    )
    table.obs = obs.assign(region=pd.Categorical([name] * len(xy)), spot_id=spots.index)
    table.obsm["spatial"] = xy
    # As Space Ranger writes it, the diameter is 65 um: the spot with its rim.
    scalefactors = {"spot_diameter_fullres": 65 / um_per_px, "microns_per_pixel": um_per_px}
    table.uns["spatial"] = {name: {"images": {}, "scalefactors": scalefactors}}
    image = Image2DModel.parse(
        image, dims=("c", "y", "x"), c_coords=list("rgb"), transformations=to
    )
    circles = ShapesModel.parse(
        xy, geometry=0, radius=_RADIUS / um_per_px, index=spots.index, transformations=to
    )
    table = TableModel.parse(table, region=name, region_key="region", instance_key="spot_id")
    return SpatialData(
        images={f"{name}_full_image": image}, shapes={name: circles}, tables={"table": table}
    )
