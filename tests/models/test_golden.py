"""Values computed with the authors' code on section C4; see shared/reference/README.md."""

import dataclasses
import json
import runpy
import shutil
from types import SimpleNamespace

import anndata
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from tests.models.saved.hub_server import serve_hub

from stp import tl
from stp.models import GeneEncoder, GeneEncoderConfig, load_release
from stp.models.device import autocast
from stp.models.image_config import IMAGENET_MEAN
from stp.train.losses import contrast, grid_pool, localization_logits, symmetric_contrast
from stp.train.tasks import MaskedGenes, NeighborhoodGenes

HEAD = "spot_backbone.classifier_head"
POOLINGS = {"mean": "gene_features_masked_mean", "reference": "gene_features_reference_pooling"}
pytestmark = pytest.mark.slow
PAD = 1  # the id of padding
FEW = 2  # spots: CPUs without bf16 take minutes for all


@pytest.fixture(scope="module")
def hub(golden, tmp_path_factory):
    """Serve the authors' files, and the golden weights written as the authors write theirs."""
    weight = runpy.run_path(str(golden / "weights.py"))["weight"]
    shapes = json.loads((golden / "state_dict_shapes.json").read_text())
    heads = {
        name.replace(".classifier", ".spatial_classifier"): shapes[name]
        for name in shapes
        if HEAD in name
    }
    weights = {
        name: torch.from_numpy(np.asarray(weight(name, tuple(shape))))
        for name, shape in (shapes | heads).items()
    }
    folder = tmp_path_factory.mktemp("release")
    torch.save({f"module.{name}": x for name, x in weights.items()}, folder / "weights")
    del weights
    with serve_hub() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
        patch.setenv("HF_ENDPOINT", server.url)
        patch.setenv("STP_GITHUB_RAW", f"{server.url}/raw")
        for file in (golden.parent / "assets").iterdir():
            server.raw[f"Hanminghao/STAMP/78c4fd2/src/{file.name}"] = file
        server.commit("minghaofdu/STAMP", {"pytorch_model.bin": folder / "weights"})
        yield server
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def release_folder(tmp_path_factory):
    """Return the folder in which the release is kept, and delete its gigabytes at the end."""
    folder = tmp_path_factory.mktemp("kept")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def stamp(hub, release_folder):
    """Download the release and convert it."""
    return load_release(release_folder, accept_terms=True).requires_grad_(False)


@pytest.fixture(scope="module")
def values(golden):
    return dict(np.load(golden / "align_C4.npz"))


def both_hidden(encoder, ids):
    """Return the outputs of the last block without and with those at padding.

    They differ in rows with padding alone, so the others, which take seconds each, are run once.
    """
    without = encoder.hidden(ids)
    with_padding = without.clone()
    is_padded = (ids == PAD).any(dim=1)
    if is_padded.any():
        with_padding[is_padded] = encoder.hidden(ids[is_padded], padding=True)
    return without, with_padding


@pytest.fixture(scope="module")
def computed(stamp, values):
    """Run the model once on all that the golden values need."""
    tokens = torch.from_numpy(values["tokens"].astype(np.int64))
    ids = torch.where(tokens == 0, PAD, tokens)
    hidden = dict(zip(POOLINGS, both_hidden(stamp.gene_encoder, ids), strict=True))
    # The golden images are BGR. Slides are RGB, and the model reverses the channels again.
    patches = torch.from_numpy(values["patches"]).permute(0, 2, 3, 1).flip(-1)
    regions = torch.from_numpy(values["regions"]).permute(0, 2, 3, 1).flip(-1)
    image_features, images_aligned = stamp.encode_images(patches)
    encoder = stamp.image_encoder
    small_patches = torch.from_numpy(values["reference_images"])
    patch_tokens = encoder.backbone.patch_embed.proj(small_patches).flatten(2).transpose(1, 2)
    prompt = encoder.reference_projection(patch_tokens)
    region = encoder.encode_with(encoder._normalize(regions), prompt)
    return SimpleNamespace(
        ids=ids,
        hidden=hidden,
        patches=patches,
        image_features=image_features,
        images_aligned=images_aligned,
        patch_tokens=patch_tokens,
        region=region,
    )


def assert_close(ours, golden, relative=1e-4):
    """Compare as a whole: the norm of the difference over that of the golden value."""
    ours, golden = np.asarray(ours, dtype=float), np.asarray(golden, dtype=float)
    assert ours.shape == golden.shape
    assert np.linalg.norm(ours - golden) <= relative * np.linalg.norm(golden)


def test_the_config_says_what_these_weights_need(stamp):
    assert (stamp.config.gene.pooling, stamp.config.gene.tie_heads) == ("reference", False)
    assert (stamp.config.image.channel_order, stamp.config.image.mean) == ("bgr", IMAGENET_MEAN)
    assert stamp.vocabulary.round_means and len(stamp.vocabulary) == 20_310


def test_a_second_call_loads_the_same_model_without_a_request(stamp, hub, release_folder):
    commit = hub.repositories["minghaofdu/STAMP"].names["main"]
    names = {file.name for file in release_folder.iterdir()}
    assert names == {"files", "sources.json", "stamp"}
    n_requests = len(hub.requests)
    again = load_release(release_folder, accept_terms=True)
    assert len(hub.requests) == n_requests
    assert (again.digest, again.name, again.card) == (stamp.digest, stamp.name, stamp.card)
    assert f"minghaofdu/STAMP@{commit}" in again.card.source
    assert again.card.no_derivatives()


def test_from_their_file_to_embeddings(stamp, values, real):
    """The released files and our functions give the features of the authors' code."""
    spots = [name.decode() for name in values["spots"]]
    adata = anndata.read_h5ad(real("her2st", "C4.h5ad"))[spots].copy()
    tl.tokenize(adata, stamp)
    keys = np.zeros((len(spots), len(stamp.vocabulary)))
    index = stamp.vocabulary.encode(adata.var_names)
    np.add.at(keys.T, index[index >= 0], adata.X.toarray().T[index >= 0])
    keys /= stamp.vocabulary.divisors()
    for row, *tokens in zip(keys, adata.obsm["stp_tokens"], values["tokens"], strict=True):
        ours, theirs = (row[ids[ids > 0].astype(int) - 30] for ids in tokens)
        # The ranks are the same; genes with equal ranks may stand in another order.
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    adata.obsm["stp_tokens"] = values["tokens"]
    rows = np.flatnonzero((values["tokens"] == 0).any(axis=1) | (np.arange(len(spots)) == 0))
    assert len(rows) == 2  # one without and one with padding
    adata = adata[rows].copy()
    tl.embed_genes(adata, stamp, progress=False)
    assert_close(adata.obsm["X_stp_genes"], values["gene_features_reference_pooling"][rows])
    assert_close(adata.obsm["X_stp_genes_aligned"], values["genes_aligned_reference_pooling"][rows])
    assert adata.uns["X_stp_genes"]["model"]["name"] == "STAMP, the authors' release"


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gene_features(stamp, computed, values, pooling):
    with torch.device("meta"):  # pooling has no weights
        encoder = GeneEncoder(GeneEncoderConfig(pooling=pooling), stamp.vocabulary)
    assert_close(
        encoder.pool(computed.hidden[pooling], computed.ids != PAD), values[POOLINGS[pooling]]
    )


@pytest.fixture
def pooled(stamp, monkeypatch):
    """Return the gene encoder with the pooling of stage one, our default: over real tokens."""
    encoder = stamp.gene_encoder
    monkeypatch.setattr(encoder, "config", dataclasses.replace(encoder.config, pooling="mean"))
    return encoder


def test_gene_features_in_bf16(pooled, computed, values):
    ids = computed.ids[:FEW]
    with autocast(torch.device("cpu"), "bf16"):
        hidden = pooled.hidden(ids)
    features = pooled.pool(hidden.float(), ids != PAD)
    golden = torch.from_numpy(values["gene_features_masked_mean"])[:FEW]
    assert_close(features, golden, relative=1e-2)
    assert torch.cosine_similarity(features, golden).min() > 0.999


def test_genes_aligned(stamp, values):
    features = torch.from_numpy(values["gene_features_reference_pooling"])
    assert_close(
        F.normalize(stamp.gene_projection(features), dim=-1),
        values["genes_aligned_reference_pooling"],
    )


def test_image_features(computed, values):
    assert_close(computed.image_features, values["image_features"])
    assert_close(computed.images_aligned, values["images_aligned"])


def test_region_features_patch_token_and_tokens(stamp, computed, values):
    assert_close(computed.region.features, values["region_features"])
    assert_close(
        F.normalize(stamp.region_projection(computed.region.features), dim=-1),
        values["regions_aligned"],
    )
    assert_close(computed.region.patch_token, values["reference_token"])
    assert_close(computed.region.tokens[0], values["region_tokens_first"])


def test_our_shrinking_of_the_patch_is_near_that_of_pillow(stamp, computed, values):
    patch_tokens = stamp.image_encoder._shrink_to_tokens(computed.patches)
    assert_close(patch_tokens, computed.patch_tokens, relative=0.01)  # Pillow rounds to 8 bits


def test_contrastive_losses(stamp, values):
    genes, patches, regions = (
        torch.from_numpy(values[name])
        for name in ("genes_aligned_reference_pooling", "images_aligned", "regions_aligned")
    )
    assert_close(symmetric_contrast(patches, genes, stamp.scale), values["patch_gene_loss"])
    assert_close(symmetric_contrast(regions, genes, stamp.scale), values["region_gene_loss"])
    assert_close(contrast(patches, regions, stamp.scale), values["patch_region_loss"])


def test_localization(stamp, computed, values):
    project = stamp.localization_projection
    cells = project(grid_pool(computed.region.tokens))
    logits = localization_logits(cells, project(computed.region.patch_token), stamp.scale)
    assert_close(logits, values["localization_logits"])
    assert_close(
        F.cross_entropy(logits, torch.from_numpy(values["region_cell"])),
        values["localization_loss"],
    )


CONTEXTS = ("positionwise", "pooled")
READINGS = [(context, targets) for context in CONTEXTS for targets in ("all", "masked")]


@pytest.fixture(scope="module", params=["pretrain_C4.npz", "pretrain_C4_padded.npz"])
def group(golden, stamp, request):
    """Return a group of nine spots as the dataset reads it, and outputs of the stage-one model.

    Its weights come from the names under `spot_backbone.`, as those of the Stamp's gene encoder.
    """
    values = dict(np.load(golden / request.param))
    arrays = {"inputs": values["inputs"], "targets": values["tokens"], "chosen": values["mask"]}
    batch = {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}
    batch["chosen"] = batch["chosen"].bool()
    encoder = stamp.gene_encoder
    pooled, positionwise = both_hidden(encoder, batch["inputs"])
    hidden = {"pooled": pooled, "positionwise": positionwise}
    return SimpleNamespace(values=values, batch=batch, encoder=encoder, hidden=hidden)


@pytest.mark.parametrize("context", CONTEXTS)
def test_masked_gene_loss(group, context):
    loss = MaskedGenes(group.encoder).masked_loss(group.hidden[context], group.batch)
    assert_close(loss, group.values["masked_gene_loss"], relative=1e-5)


@pytest.mark.parametrize(("context", "targets"), READINGS)
def test_neighborhood_loss(group, context, targets):
    task = NeighborhoodGenes(group.encoder, context=context, targets=targets)
    loss = task._neighborhood_loss(group.hidden[context], group.batch)
    assert_close(loss, group.values[f"neighborhood_loss_{context}_{targets}"], relative=1e-5)
