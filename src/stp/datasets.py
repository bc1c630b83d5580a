"""A synthetic slide whose image and expression follow one law, for tests, tutorials and honest demos.

Public slides need no code of ours: `squidpy.datasets.visium` and `scanpy.datasets.visium_sge` fetch them.

Everything random about the tissue is a function of position in um, so a slide is the same tissue at every resolution.
"""

from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
from scipy import ndimage, sparse, spatial
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Identity, Scale

__all__ = ["synthetic_visium"]

_PITCH, _RADIUS, _MARGIN = 100.0, 27.5, 100.0  # um: distance of spots, radius of a spot, glass around the lattice
_MAP = 2.0  # um: grid on which tissue is mapped before it is drawn at the wanted resolution

# Marker programs: one for each domain, one ("activity") for the gradient that runs through all domains.
_MARKERS = {
    "tumor": "EPCAM KRT7 KRT8 KRT18 KRT19 ERBB2 GRB7 MUC1 CDH1 ESR1 GATA3 FOXA1 XBP1 TFF1 TFF3 AGR2 CLDN3 CLDN4 ELF3",
    "stroma": "COL1A1 COL1A2 COL3A1 COL5A1 COL6A3 DCN LUM POSTN FN1 SPARC FBLN1 MMP2 THY1 PDGFRB VCAN TAGLN BGN FAP",
    "immune": "PTPRC CD3D CD3E CD2 CD4 CD8A IL7R CCR7 CXCR4 TRAC MS4A1 CD79A CD19 BANK1 CCL19 CCL21 LTB CXCL13 NKG7",
    "adipose": "ADIPOQ PLIN1 PLIN4 FABP4 LEP LPL CIDEC CD36 GPD1 LIPE ADIRF G0S2 PCK1 AQP7 CFD RBP4 THRSP DGAT2 ADH1B",
    "necrosis": "CA9 VEGFA NDRG1 ADM SLC2A1 ANGPTL4 BNIP3 PGK1 LDHA ENO1 HK2 PFKFB3 EGLN3 P4HA1 S100A8 S100A9 CXCL8",
    "activity": "MKI67 TOP2A PCNA MCM2 MCM3 MCM5 CCNB1 CCNB2 CDK1 CDC20 TYMS RRM2 UBE2C BIRC5 CENPF STMN1 TPX2 AURKA",
}
_HOUSEKEEPING = (
    "ACTB ACTG1 GAPDH B2M TMSB4X TMSB10 EEF1A1 EEF2 TPT1 FTL FTH1 UBC UBB PPIA PPIB PFN1 CFL1 HSP90AA1 HSP90AB1 HSPA8 "
    "MYL6 CALM1 CALM2 PKM ALDOA TPI1 VIM LGALS1 S100A6 S100A11 CD63 CD81 HLA-A HLA-B HLA-C CTSB CTSD PSAP APP ITM2B "
    "MT-CO1 MT-CO2 MT-CO3 MT-ATP6 MT-ND1 MT-ND2 MT-ND4 MT-CYB"
)
# Background genes by family: stem and endings.
_FAMILIES = {
    "RPL": "3 4 5 6 7 7A 8 9 10 10A 11 12 13 13A 14 15 18 18A 19 21 22 23 23A 24 26 27 27A 28 29 30 31 32 34 35 36 37 38",
    "RPS": "2 3 3A 5 6 7 8 9 10 11 12 13 14 15 15A 16 17 18 19 20 21 23 24 25 26 27 27A 28 29",
    "NDUF": "A1 A2 A3 A4 A5 A6 A8 A9 A10 A11 A12 A13 B1 B2 B3 B4 B5 B6 B7 B8 B9 B10 B11 C1 C2 S1 S2 S3 S5 S7 V1 V2",
    "COX": "4I1 5A 5B 6A1 6B1 6C 7A2 7B 7C 8A",
    "ATP5": "F1A F1B F1C F1D F1E MC1 MC2 MC3 ME MF MG PB PD PF PO",
    "PSM": "A1 A2 A3 A4 A5 A6 A7 B1 B2 B3 B4 B5 B6 B7 C1 C2 C3 C4 C5 C6 D1 D2 D3 D4 D6 D7 D8 D11 D12 D13 D14 E1 E2",
    "EIF": "1 1AX 2A 2S1 2S2 2S3 3A 3B 3C 3D 3E 3F 3G 3H 3I 3J 3K 3L 3M 4A1 4A2 4A3 4B 4E 4G1 4G2 4H 5 5A 5B 6",
    "HNRNP": "A0 A1 A2B1 A3 AB C D DL F H1 H2 H3 K L M R U UL1 UL2",
    "SRSF": "1 2 3 4 5 6 7 8 9 10 11",
    "RAB": "1A 1B 2A 4A 5A 5B 5C 6A 7A 8A 8B 9A 10 11A 11B 13 14 18 21 22A 25 31 35",
    "UBE2": "A B D1 D2 D3 E1 E3 G1 G2 H I J1 K L3 M N R2 V1 V2 Z",
    "VPS": "4A 4B 11 16 18 25 26A 28 29 33A 35 36 37A 39 41 45 51 52 53",
    "SEC": "11A 13 16A 22B 23A 23B 24A 24B 24C 31A 61A1 61B 61G 62 63",
    "CCT": "2 3 4 5 6A 7 8",
    "ARF": "1 3 4 5 6 GAP1 GAP2 GEF1 GEF2",
    "SNRP": "A B B2 C D1 D2 D3 E F G N",
    "POLR2": "A B C D E F G H I J K L",
    "TMED": "1 2 3 4 5 7 9 10",
    "DNAJ": "A1 A2 A3 B1 B2 B4 B6 B9 B11 C1 C3 C5 C7 C8 C10",
}


class _Look(NamedTuple):
    """How a domain is drawn: optical densities (od), lengths in um, nuclei per mm2; shares without unit."""

    eosin: float  # od of eosin
    haze: float  # od of hematoxylin between nuclei
    fibers: float  # contrast of wavy bundles
    grain: float  # contrast of granules
    nests: float  # depth of the clefts between cell nests
    vacuoles: float  # share of fat vacuoles
    nuclei: float  # density
    radius: float  # geometric mean of a nucleus' half axes
    aspect: float  # long over short half axis
    dark: float  # od of a nucleus
    pallor: float  # share by which the middle of a nucleus is paler than its rim
    rna: float  # relative amount of RNA


# Tumor and immune, stroma and necrosis are near each other in mean color: what tells them apart is form.
_LOOKS = {
    "tumor": _Look(0.42, 0.15, 0.1, 0.2, 0.8, 0, 5200, 4.6, 1.25, 0.80, 0.45, 1.4),
    "stroma": _Look(0.55, 0.03, 0.6, 0.1, 0.0, 0, 1700, 3.4, 3.2, 0.85, 0.10, 0.9),
    "immune": _Look(0.36, 0.10, 0.1, 0.2, 0.1, 0, 11000, 2.8, 1.08, 0.95, 0.05, 1.1),
    "adipose": _Look(0.50, 0.02, 0.1, 0.1, 0.0, 1, 2500, 2.6, 2.4, 0.85, 0.10, 0.6),
    "necrosis": _Look(0.50, 0.07, 0.1, 0.35, 0.1, 0, 2600, 1.7, 1.2, 0.95, 0.00, 0.6),
}
_DOMAINS = np.array(list(_LOOKS))
_LOOK = _Look(*np.array(list(_LOOKS.values())).T)  # the same table by column: arrays over domains


class _Maps(NamedTuple):
    """The tissue on a grid of `_MAP` um."""

    weights: np.ndarray  # (n_domains, h, w): what share of a place belongs to each domain
    tissue: np.ndarray  # (h, w): 1 on tissue, 0 on glass
    activity: np.ndarray  # (h, w): about N(0, 1)
    along: np.ndarray  # (h, w) um: distance along the fibers
    across: np.ndarray  # (h, w) um: distance across the fibers
    clefts: np.ndarray  # (h, w): 1 in the middle of a cleft between cell nests
    fat: np.ndarray  # (h, w): 1 inside a fat vacuole
    thickness: np.ndarray  # (h, w): relative thickness of the section

    def at(self, name: str, xy: np.ndarray) -> np.ndarray:
        """Look the map `name` up at points (..., 2) in um."""
        field = getattr(self, name)
        x, y = np.moveaxis((xy / _MAP).astype(int), -1, 0)
        return field[..., y.clip(0, field.shape[-2] - 1), x.clip(0, field.shape[-1] - 1)]


class _Nuclei(NamedTuple):
    """Ellipses, one entry each: center in um, half axes in um, angle in radians, od and pallor."""

    xy: np.ndarray
    long: np.ndarray
    short: np.ndarray
    angle: np.ndarray
    dark: np.ndarray
    pallor: np.ndarray

    def take(self, index: np.ndarray) -> "_Nuclei":
        """Select nuclei."""
        return _Nuclei(*(column[index] for column in self))


def synthetic_visium(
    *, seed: int = 0, n_rows: int = 26, n_cols: int = 26, um_per_px: float = 1.0, name: str = "slide"
) -> SpatialData:
    """Make a Visium slide: H&E-like image, hexagonal spots, negative-binomial counts of real human gene symbols.

    Five domains and a continuous activity field decide both form (density, size, shape of nuclei, texture) and
    expression (marker programs), by a law that all seeds share. Layout, stain and depth differ from seed to seed;
    the stain differs more between slides than between domains, so color alone says little. A seed is the same tissue,
    with the same counts, at every `um_per_px`.

    Parameters
    ----------
    seed
        Seed of everything random.
    n_rows, n_cols
        Spots down and across, at least 6; the spots on glass are then left out.
    um_per_px
        Pixel size of the image in um.
    name
        Name of the slide: region of the table, name of the shapes, and the image is `f"{name}_full_image"`.

    Returns
    -------
    SpatialData
        `images[f"{name}_full_image"]`: uint8 RGB (c, y, x). `shapes[name]`: circles of 55 um. Both are in pixels in
        the coordinate system "global" and in um in "um". `tables["table"]`: raw counts of the spots on tissue
        (float32 CSR); `obs` has `array_row`, `array_col`, and the truth: `domain` (that of most of the spot's area)
        and `activity`; `obsm["spatial"]` holds pixel positions (x, y), where pixel i covers [i, i + 1).

    Raises
    ------
    ValueError
        If the lattice has fewer than 6 rows or columns, or `um_per_px` is not positive.
    """
    if min(n_rows, n_cols) < 6 or not um_per_px > 0:
        raise ValueError(
            f"need n_rows and n_cols of at least 6 and um_per_px > 0, not {n_rows}, {n_cols} and {um_per_px}"
        )
    # One stream for each part: what one part draws never moves another.
    layout, cells, scanner, reads = np.random.default_rng(seed).spawn(4)
    spots, size = _lattice(n_rows, n_cols)
    maps = _tissue(layout, size)
    spots = _cover(spots, maps)
    image = _scan(scanner, maps, _nuclei(cells, maps, size), np.ceil(size / um_per_px).astype(int), um_per_px)
    return _assemble(image, spots, _counts(reads, spots), um_per_px, name)


def _lattice(n_rows: int, n_cols: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return all spots (array_row, array_col; x, y in um) and the size (x, y) of the slide in um."""
    row, col = np.divmod(np.arange(n_rows * n_cols), n_cols)
    spots = pd.DataFrame({"array_row": row, "array_col": 2 * col + row % 2})
    spots["x"] = _MARGIN + spots["array_col"] * _PITCH / 2
    spots["y"] = _MARGIN + spots["array_row"] * _PITCH * np.sqrt(3) / 2
    return spots, spots[["x", "y"]].max().to_numpy() + _MARGIN


def _noise(rng: np.random.Generator, shape: tuple[int, int], length: float) -> np.ndarray:
    """Draw a map of about N(0, 1) that varies over `length` um: Gaussian bumps of random height, `length` apart."""
    n_bumps = [int(np.ceil(n * _MAP / length)) + 6 for n in shape]  # three beyond each border
    where = [
        (np.arange(n) + 0.5)[:, None] * _MAP / length - np.arange(k) + 2.5 for n, k in zip(shape, n_bumps, strict=True)
    ]
    down, across = (np.exp(-0.5 * w**2).astype(np.float32) for w in where)
    return down @ rng.standard_normal(n_bumps, dtype=np.float32) @ across.T / np.float32(np.sqrt(np.pi))


def _tissue(rng: np.random.Generator, size: np.ndarray) -> _Maps:
    """Draw the layout of a slide of `size` (x, y) um."""
    shape = tuple(np.ceil(size[::-1] / _MAP).astype(int))
    # A fine part makes borders ragged and lets domains infiltrate each other.
    score = np.stack([_noise(rng, shape, 160) + 0.22 * _noise(rng, shape, 28) for _ in _DOMAINS])
    weights = np.exp((score - score.max(axis=0)) / 0.12)
    weights /= weights.sum(axis=0)
    y, x = ((np.arange(n, dtype=np.float32) + 0.5) * _MAP for n in shape)
    turn = rng.uniform(0, np.pi)
    return _Maps(
        weights=weights,
        tissue=_outline(rng, shape),
        activity=_noise(rng, shape, 240),
        along=x * np.cos(turn) + y[:, None] * np.sin(turn) + 110 * _noise(rng, shape, 130),
        across=y[:, None] * np.cos(turn)
        - x * np.sin(turn)
        + 110 * _noise(rng, shape, 130)
        + 5 * _noise(rng, shape, 22),
        clefts=np.exp(-((_noise(rng, shape, 30) / 0.16) ** 2)),
        fat=_fat(rng, weights[_DOMAINS == "adipose"][0]),
        thickness=np.exp(0.12 * _noise(rng, shape, 300)),
    )


def _outline(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw a rounded piece of tissue with an irregular border, all of it inside the slide."""
    y, x = (np.linspace(-1, 1, n) ** 4 for n in shape)
    wave = np.tanh(_noise(rng, shape, 160) + 0.4 * _noise(rng, shape, 20))
    inside = 0.9 + 0.06 * wave - (x + y[:, None]) ** 0.25
    return (inside * min(shape) / 2).clip(0, 1).astype(np.float32)


def _fat(rng: np.random.Generator, weight: np.ndarray) -> np.ndarray:
    """Draw the vacuoles of fat cells: the cells of a jittered grid, less a thin wall, where `weight` says adipose."""
    pitch = 58 / _MAP
    y, x = np.meshgrid(*(np.arange(-pitch, n + pitch, pitch) for n in weight.shape), indexing="ij")
    seeds = np.stack([y, x], axis=-1).reshape(-1, 2)
    seeds += rng.uniform(-0.36, 0.36, seeds.shape) * pitch
    near = np.argwhere(weight > 0.05)
    distance, which = spatial.cKDTree(seeds).query(near, k=4)
    gap = np.linalg.norm(seeds[which[:, 1:]] - seeds[which[:, :1]], axis=-1)
    walls = (distance[:, 1:] ** 2 - distance[:, :1] ** 2) / (2 * gap) * _MAP  # um to the border with each neighbor
    wall = (np.maximum(walls, 0.1) ** -3.0).sum(axis=1) ** (-1 / 3)  # the nearest one, corners rounded
    row, col = (seeds.astype(int).clip(0, np.array(weight.shape) - 1)).T
    fat = np.zeros(weight.shape, dtype=np.float32)
    fat[tuple(near.T)] = (wall - 1.2).clip(0, 1) * (weight[row, col] > 0.5)[which[:, 0]]
    return fat


def _nuclei(rng: np.random.Generator, maps: _Maps, size: np.ndarray) -> _Nuclei:
    """Draw the nuclei of the whole slide: a Poisson process thinned to the density of its place, without overlaps."""
    most = 2 * _LOOK.nuclei.max() * 1e-6  # per um2
    xy = rng.uniform(0, size, (rng.poisson(most * size.prod()), 2))
    share = maps.at("weights", xy).T.cumsum(axis=1)
    kind = (rng.random((len(xy), 1)) > share[:, :-1]).sum(axis=1)
    density = _LOOK.nuclei[kind] * 1e-6 * 2 ** (0.5 * maps.at("activity", xy)).clip(-1, 1)
    density = density * (1 - _LOOK.nests[kind] * maps.at("clefts", xy)) * (1 - maps.at("fat", xy))
    kept = rng.random(len(xy)) < density / most * (maps.at("tissue", xy) == 1)
    xy, kind = xy[kept], kind[kept]
    radius = _LOOK.radius[kind] * rng.lognormal(0, 0.15, len(xy))
    aspect = 1 + (_LOOK.aspect[kind] - 1) * rng.lognormal(0, 0.3, len(xy))
    slope = np.stack(np.gradient(maps.across))  # fibers run where `across` does not change
    dy, dx = maps._replace(across=slope).at("across", xy)
    angle = np.arctan2(dy, dx) + np.pi / 2 + 2 / aspect**2 * rng.standard_normal(len(xy))
    dark = _LOOK.dark[kind] * rng.lognormal(0, 0.2, len(xy))
    nuclei = _Nuclei(xy, radius * np.sqrt(aspect), radius / np.sqrt(aspect), angle, dark, _LOOK.pallor[kind])
    return nuclei.take(_apart(xy, radius))


def _apart(xy: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Select discs so that hardly any overlap: of each pair too close, the later is dropped."""
    pairs = spatial.cKDTree(xy).query_pairs(2 * radius.max(), output_type="ndarray")
    distance = np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1)
    close = distance < 0.85 * radius[pairs].sum(axis=1)
    return np.setdiff1d(np.arange(len(xy)), pairs[close, 1])


def _stamp(nuclei: _Nuclei, shape: tuple[int, int], um_per_px: float) -> np.ndarray:
    """Draw nuclei as optical density (y, x), patch by patch; patches of one chunk have one size."""
    canvas = np.zeros(shape, dtype=np.float32)
    order = np.argsort(nuclei.long)
    for chunk in np.array_split(order, max(1, len(order) // 2000)):
        some = _Nuclei(*(column.astype(np.float32)[..., None, None] for column in nuclei.take(chunk)))
        half = int(np.ceil(some.long.max() / um_per_px)) + 1
        offset = np.arange(-half, half + 1)
        x, y = np.moveaxis(some.xy, 1, 0)
        col, row = (x // um_per_px).astype(int) + offset, (y // um_per_px).astype(int) + offset[:, None]
        dx, dy = (col + 0.5) * um_per_px - x, (row + 0.5) * um_per_px - y
        cos, sin = np.cos(some.angle), np.sin(some.angle)
        rho2 = ((dx * cos + dy * sin) / some.long) ** 2 + ((dy * cos - dx * sin) / some.short) ** 2
        edge = ((1 - np.sqrt(rho2)) * some.short / max(1.0, um_per_px) + 0.5).clip(0, 1)
        od = some.dark * edge * (1 - some.pallor * (1 - rho2).clip(0, 1))
        # Tissue ends before the image does, so clipping never moves a pixel that has ink.
        flat = row.clip(0, shape[0] - 1) * shape[1] + col.clip(0, shape[1] - 1)
        np.maximum.at(canvas.reshape(-1), flat, od)
    return canvas


def _enlarge(field: np.ndarray, shape: tuple[int, int], um_per_px: float) -> np.ndarray:
    """Interpolate a map linearly at the pixel centers of an image."""

    def weights(n_out: int, n_in: int) -> sparse.csr_array:
        at = (((np.arange(n_out) + 0.5) * um_per_px) / _MAP - 0.5).clip(0, n_in - 1.001).astype(np.float32)
        low = at.astype(int)
        part, row = at - low, np.arange(n_out)
        return sparse.csr_array((np.r_[1 - part, part], (np.r_[row, row], np.r_[low, low + 1])), (n_out, n_in))

    return (weights(shape[1], field.shape[1]) @ (weights(shape[0], field.shape[0]) @ field).T).T


def _fibers(rng: np.random.Generator, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Texture of mean 0 and variance 1 along bent coordinates: streaks of about 4 x 50 um."""
    streaks = ndimage.gaussian_filter(rng.standard_normal((512, 512), dtype=np.float32), (4, 4), mode="wrap")
    streaks /= streaks.std()
    return streaks[(along / 12).astype(int) % 512, (across / 0.8).astype(int) % 512]


def _scan(rng: np.random.Generator, maps: _Maps, nuclei: _Nuclei, size: np.ndarray, um_per_px: float) -> np.ndarray:
    """Stain and scan the slide: uint8 (3, y, x), by the law of Beer and Lambert."""
    shape = (int(size[1]), int(size[0]))

    def pixels(field: np.ndarray) -> np.ndarray:
        return _enlarge(field.astype(np.float32), shape, um_per_px)

    def look(column: str) -> np.ndarray:
        return np.tensordot(getattr(_LOOK, column), maps.weights, axes=1)

    section = pixels(maps.tissue * maps.thickness)
    grain = _noise(rng, maps.fat.shape, 3)
    gaps = (1 - maps.fat) * (1 - look("nests") * 0.8 * maps.clefts)
    ground = pixels(gaps * np.exp(look("grain") * grain))
    fibers = np.exp(pixels(look("fibers")) * _fibers(rng, pixels(maps.along), pixels(maps.across)))
    ink = _stamp(nuclei, shape, um_per_px) * pixels(1 + 0.15 * grain)
    eosin = section * ground * fibers * pixels(look("eosin")) * (1 - 0.4 * ink.clip(0, 1))
    hematoxylin = section * (ink + ground * pixels(look("haze")))
    return _stain(rng, hematoxylin, eosin)


def _stain(rng: np.random.Generator, hematoxylin: np.ndarray, eosin: np.ndarray) -> np.ndarray:
    """Turn optical densities into RGB (3, y, x) with the stains, strengths and light of this slide."""
    stains = np.array([[0.65, 0.70, 0.29], [0.16, 0.88, 0.40]]) + 0.05 * rng.standard_normal((2, 3))
    stains *= rng.lognormal(0, 0.25, (2, 1)) / np.linalg.norm(stains, axis=1, keepdims=True)
    light = 242 + 3 * rng.standard_normal(3)
    image = np.empty((3, *eosin.shape), dtype=np.uint8)
    for channel, (h, e), full in zip(image, stains.T.astype(np.float32), light.astype(np.float32), strict=True):
        rgb = full * np.exp(-h * hematoxylin - e * eosin) + 2 * rng.standard_normal(eosin.shape, dtype=np.float32)
        channel[:] = rgb.clip(0, 255)
    return image


def _cover(spots: pd.DataFrame, maps: _Maps) -> pd.DataFrame:
    """Keep the spots on tissue, and add the truth about the tissue under each."""
    step = np.arange(-_RADIUS, _RADIUS + 1, 2.5)
    disc = np.stack(np.meshgrid(step, step), axis=-1).reshape(-1, 2)
    disc = disc[np.linalg.norm(disc, axis=1) <= _RADIUS]
    under = spots[["x", "y"]].to_numpy()[:, None] + disc  # (n, positions, 2)
    shares = maps.at("weights", under).mean(axis=-1).T
    spots = spots.assign(
        activity=maps.at("activity", under).mean(axis=-1), **dict(zip(_DOMAINS, shares.T, strict=True))
    )
    spots["domain"] = pd.Categorical(_DOMAINS[shares.argmax(axis=1)], categories=_DOMAINS)
    return spots[maps.at("tissue", under).min(axis=-1) == 1].reset_index(drop=True)


def _law() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the genes, their base rates (genes,) and the log fold of each program (programs, genes): same for all seeds."""
    rng = np.random.default_rng(0)
    background = [stem + end for stem, ends in _FAMILIES.items() for end in ends.split()]
    groups = [*((genes.split(), 0.0) for genes in _MARKERS.values()), (_HOUSEKEEPING.split(), 2.0), (background, 0.0)]
    genes = [gene for group, _ in groups for gene in group]
    level = np.concatenate([np.full(len(group), level) for group, level in groups])
    level += 1.5 * np.array([gene.startswith(("RPL", "RPS")) for gene in genes])
    program = np.repeat(np.arange(len(groups)), [len(group) for group, _ in groups])
    fold = np.log(rng.uniform(3, 8, len(genes))) * (program == np.arange(len(_MARKERS))[:, None])
    return genes, np.exp(level + 0.7 * rng.standard_normal(len(genes))), fold


def _counts(rng: np.random.Generator, spots: pd.DataFrame) -> ad.AnnData:
    """Draw negative-binomial counts: domains contribute by area and RNA content, activity scales its program."""
    genes, base, fold = _law()
    rate = (spots[_DOMAINS].to_numpy() * _LOOK.rna) @ (base * np.exp(fold[:-1]))
    rate *= np.exp(spots["activity"].to_numpy()[:, None] * fold[-1] / 3)
    depth = rng.lognormal(np.log(1300), 0.35, (len(spots), 1)) * rng.lognormal(0, 0.15)
    counts = rng.poisson(rng.gamma(3, depth * rate / base.sum() / 3))
    return ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)), var=pd.DataFrame(index=genes))


def _assemble(image: np.ndarray, spots: pd.DataFrame, table: ad.AnnData, um_per_px: float, name: str) -> SpatialData:
    """Put image, spots and counts together; spots and image share pixel coordinates."""
    to = {"global": Identity(), "um": Scale([um_per_px, um_per_px], axes=("x", "y"))}
    xy = spots[["x", "y"]].to_numpy() / um_per_px
    keep = spots[["array_row", "array_col", "domain", "activity"]]
    table.obs = keep.assign(region=pd.Categorical([name] * len(keep)), spot_id=np.arange(len(keep)))
    table.obs_names = [f"{name}_{row}x{col}" for row, col in zip(keep["array_row"], keep["array_col"], strict=True)]
    table.obsm["spatial"] = xy
    # Space Ranger writes 65 um, the spot with its rim, as the diameter.
    scalefactors = {"spot_diameter_fullres": 65 / um_per_px, "microns_per_pixel": um_per_px}
    table.uns["spatial"] = {name: {"images": {}, "scalefactors": scalefactors}}
    return SpatialData(
        images={
            f"{name}_full_image": Image2DModel.parse(
                image, dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations=to
            )
        },
        shapes={
            name: ShapesModel.parse(
                xy, geometry=0, radius=_RADIUS / um_per_px, index=np.arange(len(xy)), transformations=to
            )
        },
        tables={"table": TableModel.parse(table, region=name, region_key="region", instance_key="spot_id")},
    )
