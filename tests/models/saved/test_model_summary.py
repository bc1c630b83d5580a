"""What a model shows of itself, in a terminal and in a notebook."""

import re

import pytest

from stp.models import ImageEncoder, ModelCard


def test_a_stamp_is_a_short_summary(stamp):
    stamp.name = "tiny"
    stamp.card = ModelCard(trained_on=("pretrain: 9 spots of a.zarr",), license="CC0-1.0")
    lines = repr(stamp).splitlines()
    assert lines[0] == "Stamp"
    values = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines[1:])
    assert values["name"] == "tiny"
    assert values["parameters"] == f"{sum(p.numel() for p in stamp.parameters()):,}"
    assert values["genes"] == f"{len(stamp.vocabulary):,}"
    assert values["aligned"] == str(stamp.config.projection_width)
    assert values["trained on"] == "pretrain: 9 spots of a.zarr"
    assert values["license"] == "CC0-1.0"
    image = stamp.config.image
    assert values["images"].startswith(
        f"{image.image_size} px of {image.um_per_px:g} µm "
        f"({image.image_size * image.um_per_px:g} µm), "
    )
    assert len(lines) < 12


def test_encoders_show_what_they_read(stamp):
    genes = repr(stamp.gene_encoder)
    assert genes.startswith("GeneEncoder\n")
    assert re.search(rf"tokens\s+{stamp.config.gene.context_length:,}\n", genes)
    assert re.search(rf"features\s+{stamp.image_encoder.width}\n", repr(stamp.image_encoder))
    assert "genes" not in repr(stamp.image_encoder)


def test_a_notebook_shows_the_same_as_a_table_with_names_escaped(stamp):
    stamp.name = "<b>tiny</b>"
    html = stamp._repr_html_()
    assert "&lt;b&gt;tiny&lt;/b&gt;" in html
    assert "<b>tiny" not in html
    assert html.count("<tr>") == len(repr(stamp).splitlines()) - 1


def test_a_vocabulary_is_a_table_in_a_notebook(vocabulary):
    html = vocabulary._repr_html_()
    assert f"<td style='text-align:left'>{len(vocabulary):,}</td>" in html
    assert vocabulary.digest[:12] in html


@pytest.mark.parametrize("layer", ["backbone", "blocks"])
def test_the_layers_are_still_listed_by_torch(stamp, layer):
    assert isinstance(stamp.image_encoder, ImageEncoder)
    assert any(layer in name for name, _ in stamp.image_encoder.named_modules())
