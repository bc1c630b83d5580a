"""Write the tables of docs/howto/backbones.md: `python -m tests.models.published.backbone_page`."""

from pathlib import Path

from stp.models.published.backbone import Backbone
from stp.models.published.backbones import BACKBONES
from stp.models.published.unfit import UNFIT
from stp.models.saved.hub import HUB

PAGE = Path(__file__).parents[3] / "docs" / "howto" / "backbones.md"
BEGIN = "<!-- begin of the generated tables -->\n"
END = "<!-- end of the generated tables -->\n"
HEADER = (
    "| name | features | input | scale | license | accept terms | commercial use | publication "
    "| facts from |\n|---|---|---|---|---|---|---|---|---|\n"
)
POOLINGS = {
    "class": "class token",
    "class+mean": "class token and mean of the patch tokens",
    "attention": "attention pooling",
}


def row(name: str, backbone: Backbone) -> str:
    """Return the line of an encoder."""
    sources = ", ".join(backbone.sources)
    if len(backbone.sources) < 2:
        sources += " (one source only)"
    cells = (
        f"[{name}]({HUB}/{backbone.hub_id})",
        f"{backbone.width}: {POOLINGS[backbone.pooling]}",
        f"{backbone.image_size} px at {backbone.um_per_px:.3g} µm",
        backbone.scale,
        backbone.license,
        "yes" if backbone.gated else "no",
        "yes" if backbone.commercial else "no",
        link(backbone.citation),
        sources,
    )
    return f"| {' | '.join(cells)} |\n"


def link(citation: str) -> str:
    """Return a citation as a link."""
    scheme, _, rest = citation.partition(":")
    if scheme == "doi":
        return f"[{rest}](https://doi.org/{rest})"
    if scheme == "arXiv":
        return f"[arXiv {rest}](https://arxiv.org/abs/{rest})"
    return f"[{citation}](https://{citation})"


def tables() -> str:
    """Return what stands between the two marks of the page."""
    known = HEADER + "".join(row(name, backbone) for name, backbone in sorted(BACKBONES.items()))
    unfit = "".join(f"| {name} | {reason} |\n" for name, reason in UNFIT.items())
    text = "\nThese encoders have no name here; wrap them as [](#any-other-module).\n\n"
    return f"\n{known}{text}| encoder | what it is |\n|---|---|\n{unfit}\n"


def page() -> str:
    """Return the page with the tables of today."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + tables() + END + after


if __name__ == "__main__":
    PAGE.write_text(page())
