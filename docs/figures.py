"""Figures of the concepts, drawn by the code they explain: `python docs/figures.py FOLDER`."""

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

import stp
from stp.data.neighborhoods import neighborhoods

# Colors that people with any color vision tell apart (Okabe and Ito).
ORANGE, SKY, BLUE = "#E69F00", "#56B4E9", "#0072B2"
STYLE = {
    "font.size": 10,
    "svg.fonttype": "path",
    "svg.hashsalt": "stp",
    "figure.facecolor": "white",
}
GENES = ["EPCAM", "KRT8", "COL1A1", "CD3E", "ACTB", "RPL3", "EEF1A1", "ADIPOQ"]
PATCH_UM, SPOT_UM = 112, 55


def main(folder: Path) -> None:
    """Draw all figures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    slide = stp.datasets.synthetic_visium(seed=1, n_rows=8, n_cols=8, um_per_px=0.5)
    wide = stp.datasets.synthetic_visium(seed=1, n_rows=16, n_cols=16, um_per_px=4)
    with mpl.rc_context(STYLE):
        figures = {
            "flow": flow(),
            "tokens": tokens(wide.tables["table"]),
            "groups": groups(wide.tables["table"].obsm["spatial"] * 4),
            "patch": patch(slide),
            "losses": losses(),
        }
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
            plt.close(figure)


def flow() -> plt.Figure:
    """Draw which call makes what of counts and image."""
    figure, ax = _canvas((9.4, 3.6), (-0.8, 13.0), (0.1, 3.9))
    boxes = {
        "counts": (0.0, 3.0, "counts\nX", "0.93"),
        "image": (0.0, 1.0, "H&E image", "0.93"),
        "tokens": (2.85, 3.0, 'genes by rank\nobsm["stp_tokens"]', "#FFF3DC"),
        "patches": (2.85, 1.0, "patches and regions,\n112 and 336 µm", "#E3F2FB"),
        "genes": (7.05, 3.0, 'obsm["X_stp_genes"],\n["X_stp_genes_aligned"]', "#FFF3DC"),
        "images": (7.05, 1.0, 'obsm["X_stp_images"],\n["X_stp_images_aligned"]', "#E3F2FB"),
        "fused": (11.7, 3.0, 'obsm["X_stp_fused"]', "#DDF1EB"),
        "predicted": (11.7, 1.0, 'obsm["stp_expression"]', "#DDF1EB"),
    }
    boxes = {name: _box(ax, *what) for name, what in boxes.items()}
    for start, end, text in [
        ("counts", "tokens", "tl.tokenize"),
        ("tokens", "genes", "tl.embed_genes"),
        ("image", "patches", "read"),
        ("patches", "images", "tl.embed_images"),
        ("genes", "fused", "tl.fuse"),
        ("images", "predicted", "tl.predict_expression"),
    ]:
        _arrow(ax, boxes[start], boxes[end], text)
    _arrow(ax, boxes["images"], boxes["fused"], "")
    _arrow(ax, boxes["genes"], boxes["predicted"], "")
    ax.text(11.7, 3.5, "sc.pp.neighbors, sc.tl.leiden", ha="center", fontsize=9, color="0.3")
    ax.text(11.7, 0.5, "get.expression", ha="center", va="top", fontsize=9, color="0.3")
    return figure


def tokens(table) -> plt.Figure:
    """Draw how a spot's counts become an order of genes."""
    counts = table.to_df()[GENES]
    means = counts.where(counts > 0).mean()
    spot = counts[(counts > 0).sum(axis=1) == len(GENES) - 2].iloc[0]
    ratio = (spot / means).sort_values(ascending=False, kind="stable")
    figure, axes = plt.subplots(
        1, 3, figsize=(10, 3.2), layout="constrained", width_ratios=[1, 1, 0.9]
    )
    for ax, values, title, color in [
        (axes[0], spot[::-1], "1  counts of one spot (UMI)", SKY),
        (axes[1], ratio[::-1], "2  divided by the gene's mean", ORANGE),
    ]:
        ax.barh(values.index, values, color=color)
        ax.set_title(title, loc="left")
        ax.spines[["top", "right"]].set_visible(False)
    axes[1].axvline(1, color="0.4", linestyle="--", linewidth=1)
    axes[1].text(1.02, 0.6, "mean", fontsize=9, color="0.3")
    detected = ratio[ratio > 0]
    rows = [*(f"{gene}" for gene in detected.index), *["pad"] * (len(GENES) - len(detected))]
    axes[2].set_title("3  tokens, highest first", loc="left")
    for i, name in enumerate(rows):
        y = len(rows) - 1 - i
        face = "0.93" if name == "pad" else "#FFF3DC"
        axes[2].add_patch(Rectangle((0.25, y - 0.4), 0.7, 0.8, facecolor=face, edgecolor="0.4"))
        axes[2].text(0.6, y, name, ha="center", va="center")
        axes[2].text(0.17, y, str(i), ha="right", va="center", color="0.4", fontsize=9)
    axes[2].set(xlim=(0, 1), ylim=(-0.6, len(rows) - 0.4))
    axes[2].axis("off")
    return figure


def groups(um: np.ndarray) -> plt.Figure:
    """Draw groups of nine on a real lattice, and what is predicted from them."""
    drawn = neighborhoods(um, np.random.default_rng(3))
    middle = drawn[np.argmin(np.linalg.norm(um[drawn[:, 0]] - um.mean(axis=0), axis=1))]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 4), layout="constrained", width_ratios=[1, 1.2]
    )
    left.scatter(*um.T, s=40, facecolors="white", edgecolors="0.6", linewidths=0.8)
    for group in drawn:
        one = group is middle
        for neighbor in group[1:]:
            left.plot(
                *um[[group[0], neighbor]].T,
                color=BLUE if one else "0.75",
                linewidth=2 if one else 1,
                zorder=0,
            )
    left.scatter(*um[middle[1:]].T, s=46, color=SKY, edgecolors=BLUE, zorder=3)
    left.scatter(*um[middle[:1]].T, s=60, color=ORANGE, edgecolors="black", zorder=4)
    low = um.max(axis=0)[1] + 120
    left.plot(
        [um[:, 0].min(), um[:, 0].min() + 200],
        [low, low],
        color="black",
        linewidth=3,
        solid_capstyle="butt",
    )
    left.text(um[:, 0].min() + 230, low, "200 µm", va="center")
    left.set(aspect="equal", title="groups of nine: a center, its 8 nearest free spots")
    left.invert_yaxis()
    left.axis("off")
    right.set(xlim=(-0.2, 5.3), ylim=(-0.2, 3.5))
    right.axis("off")
    own = _box(right, 0.9, 2.6, "center: other genes", "#FFE9BF")
    around = _box(right, 0.9, 0.6, "mean output of\nits 8 neighbors", "#E3F2FB")
    masked = _box(right, 4.2, 1.6, "masked genes\nof the center", "#FFF3DC")
    _arrow(right, own, masked, "masked gene loss", above=0.25)
    _arrow(right, around, masked, "neighborhood loss", above=-0.42)
    return figure


def patch(sdata) -> plt.Figure:
    """Draw a spot, its patch and its region as the model reads them, with their sizes."""
    pyramid = stp.images.ImagePyramid.from_spatialdata(sdata, "slide_full_image")
    xy = sdata.tables["table"].obsm["spatial"]
    center = xy[np.argmin(np.linalg.norm(xy - xy.mean(axis=0), axis=1))] * 0.5  # um
    cell = np.array([2, 1])  # of the region, as column and row: drawn anew for each spot and epoch
    middle = center - (cell - 1) * PATCH_UM
    view = 560
    pictures = [
        pyramid.read(point[None], size=px, um_per_px=side / px, allow_upsampling=True)[0]
        for point, side, px in [
            (center, view, 560),
            (center, PATCH_UM, 224),
            (middle, 3 * PATCH_UM, 224),
        ]
    ]
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.9), layout="constrained")
    titles = ["tissue", "patch: 112 µm, 224 px", "region: 336 µm, 224 px"]
    for ax, picture, side, title, bar in zip(
        axes, pictures, (view, PATCH_UM, 3 * PATCH_UM), titles, (100, 25, 50), strict=True
    ):
        ax.imshow(picture, extent=(0, side, side, 0))
        ax.set(title=title, xticks=[], yticks=[])
        ax.add_patch(
            Rectangle(
                (0.03 * side, 0.87 * side),
                bar + 0.06 * side,
                0.11 * side,
                color="white",
                alpha=0.85,
            )
        )
        ax.plot(
            [0.06 * side, 0.06 * side + bar],
            [0.96 * side] * 2,
            color="black",
            linewidth=3,
            solid_capstyle="butt",
        )
        ax.text(0.06 * side, 0.94 * side, f"{bar} µm", va="bottom", fontsize=9)
    origin = center - view / 2
    axes[0].add_patch(
        plt.Circle(center - origin, SPOT_UM / 2, fill=False, linewidth=2, color="black")
    )
    _square(axes[0], center - origin, PATCH_UM, ORANGE)
    _square(axes[0], middle - origin, 3 * PATCH_UM, BLUE)
    axes[1].add_patch(
        plt.Circle((PATCH_UM / 2,) * 2, SPOT_UM / 2, fill=False, linewidth=2, color="black")
    )
    for row, column in np.ndindex(3, 3):
        corner = np.array([column, row]) * PATCH_UM
        axes[2].add_patch(
            Rectangle(corner, PATCH_UM, PATCH_UM, fill=False, edgecolor=BLUE, linewidth=0.8)
        )
        label = {"va": "center", "ha": "center", "fontsize": 11, "fontweight": "bold"}
        box = {
            "boxstyle": "circle,pad=0.2",
            "facecolor": "white",
            "alpha": 0.85,
            "edgecolor": "none",
        }
        axes[2].text(*(corner + PATCH_UM / 2), str(3 * row + column), **label, bbox=box)
    _square(axes[2], cell * PATCH_UM + PATCH_UM / 2, PATCH_UM, ORANGE)
    return figure


def losses() -> plt.Figure:
    """Draw the four losses of alignment between the three things they compare."""
    figure, ax = _canvas((9.5, 4.0), (-2.8, 8.2), (-0.2, 3.9))
    boxes = {
        "patch": (1.0, 3.2, "patch\n112 µm of H&E", "#FFE9BF"),
        "region": (1.0, 0.8, "region\n3 x 3 patches", "#E3F2FB"),
        "genes": (7.2, 2.0, "genes\nof the spot", "#DDF1EB"),
    }
    boxes = {name: _box(ax, *what) for name, what in boxes.items()}
    _arrow(
        ax,
        boxes["patch"],
        boxes["genes"],
        "patch-gene\nwhich spot's genes belong to this patch?",
        both=True,
        above=0.3,
    )
    _arrow(
        ax,
        boxes["region"],
        boxes["genes"],
        "region-gene\nand to this region?",
        both=True,
        above=-0.65,
    )
    _arrow(ax, boxes["patch"], boxes["region"], "")
    ax.text(1.15, 2.0, "patch-region\nwhich region does it lie in?", va="center", fontsize=9.5)
    for row, column in np.ndindex(3, 3):
        face = "#FFE9BF" if (row, column) == (0, 2) else "white"
        ax.add_patch(
            Rectangle(
                (-1.9 + 0.3 * column, 1.25 - 0.3 * row), 0.3, 0.3, facecolor=face, edgecolor=BLUE
            )
        )
    ax.text(
        -1.45, 0.5, "localization\nin which of nine cells?", ha="center", va="top", fontsize=9.5
    )
    return figure


def _canvas(size: tuple, xlim: tuple, ylim: tuple) -> tuple[plt.Figure, plt.Axes]:
    figure = plt.figure(figsize=size)
    ax = figure.add_axes((0, 0, 1, 1), xlim=xlim, ylim=ylim)
    ax.axis("off")
    return figure, ax


def _box(ax: plt.Axes, x: float, y: float, text: str, color: str) -> plt.Text:
    box = {"boxstyle": "round,pad=0.5", "facecolor": color, "edgecolor": "0.4"}
    return ax.text(x, y, text, ha="center", va="center", bbox=box, zorder=3)


def _square(ax: plt.Axes, center: np.ndarray, side: float, color: str) -> None:
    corner = np.asarray(center) - side / 2
    ax.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=color, linewidth=2.5))


def _arrow(
    ax: plt.Axes,
    start: plt.Text,
    end: plt.Text,
    text: str,
    *,
    both: bool = False,
    above: float = 0.1,
) -> None:
    """Draw an arrow between two boxes, its text over or under the middle."""
    arrow = {
        "arrowstyle": "<|-|>" if both else "-|>",
        "color": "0.3",
        "linewidth": 1.4,
        "shrinkA": 2,
        "shrinkB": 2,
    }
    arrow |= {"patchA": start.get_bbox_patch(), "patchB": end.get_bbox_patch()}
    ax.annotate(
        "", end.get_position(), start.get_position(), arrowprops=arrow, zorder=4
    )  # after the boxes: they know their outline once drawn
    x, y = (np.array(start.get_position()) + np.array(end.get_position())) / 2
    ax.text(x, y + above, text, ha="center", va="bottom", fontsize=8.6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
