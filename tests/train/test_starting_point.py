"""Alignment that starts from an image encoder."""

import dataclasses
import json
import time

import pytest
import torch
from safetensors.torch import save_file

import stp.models.published.backbones as module
from stp import tl
from stp.models import (
    GeneEncoder,
    ImageEncoder,
    ModelCard,
    Stamp,
    WrappedEncoder,
    load_backbone,
)
from stp.train import AlignConfig, align

CONFIG = AlignConfig(
    epochs=1, batch_size=20, accumulate=1, learning_rate=1e-3, min_genes=5, projection_width=16
)
# The encoders are frozen: their weights stay as they came.
STILL = dataclasses.replace(CONFIG, trained="projections")


@pytest.fixture
def genes(tiny_config, vocabulary):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return GeneEncoder(tiny_config.gene, vocabulary)


def make_encoder(image, seed=7, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = ImageEncoder(dataclasses.replace(image, has_prompt=False, **changes)).eval()
    encoder.name = "tiny"
    return encoder


def pictures(size=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8, generator=generator)


def test_weights_are_those_of_the_encoder_and_the_prompt_is_seeded(
    stores, genes, tiny_config, tmp_path
):
    encoder = make_encoder(tiny_config.image)
    before = encoder.digest
    stamps = [
        align(
            stores[:1],
            tmp_path / str(seed),
            gene_encoder=genes,
            image_encoder=encoder,
            config=dataclasses.replace(STILL, seed=seed),
        )
        for seed in (0, 1)
    ]
    assert encoder.digest == before and not hasattr(encoder, "prompt")
    for stamp in stamps:
        for name, tensor in encoder.state_dict().items():
            assert torch.equal(stamp.image_encoder.state_dict()[name], tensor), name
    prompts = [stamp.image_encoder.prompt for stamp in stamps]
    assert prompts[0].abs().max() > 0 and not torch.equal(*prompts)
    # A new encoder of the same config and seed has the same prompt.
    new = align(
        stores[:1],
        tmp_path / "new",
        gene_encoder=genes,
        image_encoder=encoder.config,
        config=STILL,
    )
    assert torch.equal(new.image_encoder.prompt, prompts[0])


def test_an_aligned_encoder_brings_its_prompt(stores, genes, tiny_config, tmp_path):
    encoder = make_encoder(tiny_config.image)
    first = align(
        stores[:1], tmp_path / "a", gene_encoder=genes, image_encoder=encoder, config=CONFIG
    )
    second = align(
        stores[:1],
        tmp_path / "b",
        gene_encoder=genes,
        image_encoder=first.image_encoder,
        config=dataclasses.replace(STILL, seed=3),
    )
    ours, theirs = (stamp.image_encoder.state_dict() for stamp in (second, first))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_run_and_the_card_record_encoder_license_and_terms(
    stores, genes, tiny_config, tmp_path
):
    encoder = make_encoder(tiny_config.image)
    encoder.card = ModelCard(
        ("weights of tiny by its authors",), license="CC-BY-NC-ND-4.0", terms=("Research only.",)
    )
    run = tmp_path / "run"
    with pytest.warns(UserWarning, match=r"license of tiny, CC-BY-NC-ND-4\.0, forbids derivatives"):
        stamp = align(stores[:1], run, gene_encoder=genes, image_encoder=encoder, config=CONFIG)
    assert json.loads((run / "training.json").read_text())["image_encoder"] == encoder.digest
    assert stamp.card.base_models == (
        f"tiny, digest {encoder.digest}. License: CC-BY-NC-ND-4.0. Research only. Its license "
        "forbids derivatives: do not pass this model on without permission.",
    )
    assert stamp.card.no_derivatives()
    assert stamp.card.trained_on[0] == "weights of tiny by its authors"
    page = (run / "README.md").read_text()
    assert "## Trained from" in page and encoder.digest in page
    with pytest.raises(ValueError, match="image_encoder"):
        align(
            stores[:1],
            run,
            gene_encoder=genes,
            image_encoder=make_encoder(tiny_config.image, seed=8),
            config=CONFIG,
        )


@pytest.mark.filterwarnings("error:the license")
def test_an_open_license_gives_no_warning(stores, genes, tiny_config, tmp_path):
    encoder = make_encoder(tiny_config.image)
    encoder.card = ModelCard(license="MIT")
    stamp = align(stores[:1], tmp_path, gene_encoder=genes, image_encoder=encoder, config=STILL)
    assert not stamp.card.no_derivatives() and "License: MIT." in stamp.card.base_models[0]


@pytest.mark.parametrize(
    ("pooling", "pooled_width", "width"), [("class+mean", None, 64), ("attention", 16, 16)]
)
@pytest.mark.parametrize("trained", ["all", "lora", "projections"])
def test_any_pooling_is_aligned_and_embeds_with_its_own_width(
    pooling, pooled_width, width, trained, stores, genes, tiny_config, sdata, tmp_path
):
    encoder = make_encoder(tiny_config.image, pooling=pooling, pooled_width=pooled_width)
    stamp = align(
        stores[:1],
        tmp_path,
        gene_encoder=genes,
        image_encoder=encoder,
        config=dataclasses.replace(CONFIG, trained=trained),
    )
    assert stamp.patch_projection.in_features == stamp.region_projection.in_features == width
    assert stamp.localization_projection.in_features == 32
    tl.embed_images(sdata, stamp, progress=False)
    table = sdata.tables["table"]
    assert table.obsm["X_stp_images"].shape == (100, width)
    assert table.obsm["X_stp_images_aligned"].shape == (100, 16)
    again = Stamp.from_pretrained(tmp_path)
    with torch.no_grad():
        features = again.image_encoder(pictures())
        assert torch.equal(features, stamp.image_encoder(pictures()))
    trained_backbone = not torch.equal(
        stamp.image_encoder.backbone.blocks[0].attn.qkv.weight,
        encoder.backbone.blocks[0].attn.qkv.weight,
    )
    assert trained_backbone == (trained != "projections")


def test_what_cannot_be_aligned_is_refused_before_stores_are_read():
    import timm

    resnet = timm.create_model("test_resnet", num_classes=0)
    wrapped = WrappedEncoder(resnet, width=96, image_size=32, um_per_px=4.0, name="a ResNet")
    config = AlignConfig(targets="pathways", gene_sets="none.gmt")
    with pytest.raises(TypeError, match=r"a ResNet is a WrappedEncoder and cannot be aligned"):
        align(["nowhere.zarr"], "out", image_encoder=wrapped, config=config)
    with pytest.raises(TypeError, match=r"image_encoder is 'UNI'; give .*load_backbone"):
        align(["nowhere.zarr"], "out", image_encoder="UNI", config=config)


# ---- the architectures of pathology encoders, at their real size


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_the_first_cosines_are_divided_by_the_temperature(
    stores, genes, tiny_config, tmp_path, temperature
):
    config = dataclasses.replace(
        STILL, learning_rate=1e-12, min_learning_rate=0.0, temperature=temperature
    )
    stamp = align(
        stores[:1],
        tmp_path / "run",
        gene_encoder=genes,
        image_encoder=tiny_config.image,
        config=config,
    )
    assert stamp.scale.item() == pytest.approx(1 / temperature)


@pytest.mark.parametrize("temperature", [0.0, 0.0099, float("inf"), float("nan")])
def test_a_temperature_without_a_scale_is_refused(temperature):
    with pytest.raises(ValueError, match=r"temperature must be at least 0\.01, not"):
        dataclasses.replace(CONFIG, temperature=temperature)


GMT = "A\tx\tEPCAM\tKRT8\tKRT18\tERBB2\tRPL3\nB\tx\tCOL1A1\tCOL1A2\tDCN\tLUM\tRPL4\n"
TWO_STEPS = dataclasses.replace(CONFIG, batch_size=2, spots_per_slide=2, learning_rate=1e-4)


@pytest.fixture
def two_spots(tmp_path, slide_of):
    """Write a store of four spots with an image that is fine enough for every encoder."""
    from stp.io import from_anndata, write_store

    adata, image = slide_of(0)
    sdata = from_anndata(adata[[33, 36, 63, 66]].copy(), image, um_per_px=0.5)
    write_store(sdata, tmp_path / "slide.zarr", patch_um_per_px=0.5)
    return tmp_path / "slide.zarr"


def load_random(name, folder):
    """Write random weights of the real size, and load them as those of the authors."""
    backbone = module.BACKBONES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = ImageEncoder(backbone.config).state_dict()
    path = folder / "weights.safetensors"
    save_file(state, path)
    encoder = load_backbone(name, path=path)
    path.unlink()
    return encoder


@pytest.mark.extended
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "trained"), [("UNI", "all"), ("CONCH", "all"), ("Virchow2", "lora")]
)
@pytest.mark.filterwarnings("ignore:the license")
def test_two_steps_from_a_pathology_encoder_of_its_real_size(
    name, trained, two_spots, genes, tmp_path
):
    encoder = load_random(name, tmp_path)
    arguments = {"gene_encoder": genes, "config": TWO_STEPS}
    if name == "Virchow2":  # without genes: the pathways of gene sets
        (tmp_path / "sets.gmt").write_text(GMT)
        config = dataclasses.replace(
            TWO_STEPS, trained=trained, targets="pathways", gene_sets=str(tmp_path / "sets.gmt")
        )
        arguments = {"config": config, "vocabulary": genes.vocabulary}
    start = time.time()
    stamp = align([two_spots], tmp_path / "run", image_encoder=encoder, **arguments)
    print(f"{name}: {time.time() - start:.0f} s")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 2
    backbone = module.BACKBONES[name]
    assert stamp.patch_projection.in_features == backbone.width
    assert stamp.card.base_models[0].startswith(f"{name}, digest {encoder.digest}")
    weight = "blocks.0.attn.qkv.weight"
    ours, theirs = (e.backbone.get_parameter(weight) for e in (stamp.image_encoder, encoder))
    assert not torch.equal(ours, theirs) and torch.allclose(ours, theirs, atol=1e-2)
