import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from stp.models import GeneEncoder, ImageEncoder, Stamp

CLASSES = [GeneEncoder, ImageEncoder, Stamp]
by_class = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
FILES = {
    GeneEncoder: {"README.md", "config.json", "model.safetensors", "vocabulary.parquet"},
    ImageEncoder: {"README.md", "config.json", "model.safetensors"},
    Stamp: {"README.md", "config.json", "model.safetensors", "vocabulary.parquet"},
}


@pytest.fixture
def models(stamp):
    return {GeneEncoder: stamp.gene_encoder, ImageEncoder: stamp.image_encoder, Stamp: stamp}


@torch.no_grad()
def outputs(model):
    tokens = torch.arange(30, 60).repeat(2, 1)
    images = torch.randint(
        0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    if isinstance(model, Stamp):
        return [*model.encode_genes(tokens), *model.encode_images(images), model.scale]
    return [model(images if isinstance(model, ImageEncoder) else tokens)]


@by_class
def test_a_loaded_model_computes_bit_for_bit_what_the_saved_one_did(models, kind, tmp_path):
    model = models[kind].train()
    model.save_pretrained(tmp_path / "new" / "folder")
    loaded = kind.from_pretrained(str(tmp_path / "new" / "folder"))
    assert type(loaded) is kind
    assert loaded.config == model.config
    assert not loaded.training
    for before, after in zip(outputs(model.eval()), outputs(loaded), strict=True):
        assert torch.equal(before, after)
    if kind is not ImageEncoder:
        assert loaded.vocabulary.digest == model.vocabulary.digest
        np.testing.assert_array_equal(loaded.vocabulary.means, model.vocabulary.means)


@by_class
def test_a_folder_has_its_files_and_nothing_temporary(models, kind, tmp_path):
    models[kind].save_pretrained(tmp_path)
    models[kind].save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == FILES[kind]


def test_saving_again_replaces_the_weights(stamp, tmp_path):
    stamp.save_pretrained(tmp_path)
    stamp.logit_scale.data.fill_(1.0)
    stamp.save_pretrained(tmp_path)
    assert Stamp.from_pretrained(tmp_path).logit_scale.item() == 1.0


@pytest.mark.parametrize(
    ("kind", "other"), list(permutations(CLASSES, 2)), ids=lambda kind: kind.__name__
)
def test_a_folder_of_another_class_is_refused(models, kind, other, tmp_path):
    models[kind].save_pretrained(tmp_path)
    if FILES[other] > FILES[kind]:
        models[other].vocabulary.save(tmp_path / "vocabulary.parquet")
    message = f"contains a {kind.__name__}; load it with that class, not {other.__name__}"
    with pytest.raises(ValueError, match=message):
        other.from_pretrained(tmp_path)


@by_class
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_one_clear_error(models, kind, share, tmp_path):
    models[kind].save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        ValueError, match=r"model\.safetensors is truncated or damaged .* copy it again"
    ):
        kind.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in CLASSES for name in sorted(FILES[kind] - {"README.md"})],
    ids=lambda x: str(x),
)
def test_a_missing_file_is_named(models, kind, name, tmp_path):
    models[kind].save_pretrained(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=f"has no {name}; give a folder written by save_pretrained"
    ):
        kind.from_pretrained(tmp_path)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere has no config.json"):
        Stamp.from_pretrained(tmp_path / "nowhere")


class Killed(BaseException):
    """As SIGKILL: nothing is cleaned up."""


def save_until(model, folder, n_files, monkeypatch):
    """Save a model, and stop when this number of files is in place; return their names."""
    original = Path.replace
    names = []

    def replace(path, target):
        if len(names) == n_files:
            raise Killed
        names.append(Path(target).name)
        return original(path, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", replace)
        model.save_pretrained(folder)
    return names


def test_weights_are_written_before_the_card_and_the_config_last(stamp, tmp_path, monkeypatch):
    assert save_until(stamp, tmp_path, 3, monkeypatch) == [
        "vocabulary.parquet",
        "model.safetensors",
        "README.md",
    ]


@pytest.mark.parametrize("n_files", range(4))
def test_a_new_folder_of_a_call_that_was_stopped_is_no_model(stamp, n_files, tmp_path, monkeypatch):
    save_until(stamp, tmp_path, n_files, monkeypatch)
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        Stamp.from_pretrained(tmp_path)


@pytest.mark.parametrize("n_files", range(4))
def test_weights_are_never_read_with_the_card_of_other_weights(
    stamp, n_files, tmp_path, monkeypatch
):
    stamp.card = replace(stamp.card, metrics={"recall@5": 0.25})
    stamp.save_pretrained(tmp_path)
    before = stamp.digest
    with torch.no_grad():
        stamp.logit_scale += 1
    stamp.card = replace(stamp.card, metrics={"recall@5": 0.75})
    save_until(stamp, tmp_path, n_files, monkeypatch)
    if n_files < 2:  # the old model as it was
        loaded = Stamp.from_pretrained(tmp_path)
        assert (loaded.digest, loaded.card.metrics) == (before, {"recall@5": 0.25})
    else:
        with pytest.raises(ValueError, match="saving is not finished or was stopped.*save the"):
            Stamp.from_pretrained(tmp_path)
    stamp.save_pretrained(tmp_path)
    loaded = Stamp.from_pretrained(tmp_path)
    assert (loaded.digest, loaded.card.metrics) == (stamp.digest, {"recall@5": 0.75})


def edit(folder, change):
    """Let someone edit the config.json of a model."""
    file = folder / "config.json"
    description = json.loads(file.read_text())
    change(description["config"])
    file.write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        (
            {"width": 64},
            r"of another shape: embeddings\.weight is \[67, 32\], not \[67, 64\], .* and \d+ more$",
        ),
        ({"depth": 3}, r"missing: encoder\.layers\.2\.self_attn\.in_proj_weight, .* and 9 more$"),
        ({"depth": 1}, r"unknown: encoder\.layers\.1\."),
    ],
)
def test_weights_of_another_size_are_refused_by_name(models, change, faults, tmp_path):
    models[GeneEncoder].save_pretrained(tmp_path)
    edit(tmp_path, lambda config: config.update(change))
    with pytest.raises(
        ValueError,
        match=r"model\.safetensors does not fit the config\.json in its folder: " + faults,
    ):
        GeneEncoder.from_pretrained(tmp_path)


@pytest.mark.parametrize("part", ["weights", "config", "vocabulary"])
def test_a_folder_that_changed_after_it_was_saved_is_refused(stamp, adata, part, tmp_path):
    stamp.save_pretrained(tmp_path)
    if part == "weights":
        file = tmp_path / "model.safetensors"
        content = bytearray(file.read_bytes())
        content[-3] ^= 1  # of the last weight
        file.write_bytes(content)
    elif part == "config":
        edit(tmp_path, lambda config: config["image"].update(channel_order="bgr"))
    else:
        stamp.vocabulary.fit(adata).save(tmp_path / "vocabulary.parquet")
    with pytest.raises(
        ValueError,
        match="changed after it was saved: the digest of its weights, config and vocabulary",
    ):
        Stamp.from_pretrained(tmp_path)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_halves_the_file_and_makes_another_model(stamp, precision, tmp_path):
    stamp.save_pretrained(tmp_path / "full")
    stamp.save_pretrained(tmp_path / "half", precision=precision)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    half = Stamp.from_pretrained(tmp_path / "half")
    assert {tensor.dtype for tensor in half.state_dict().values()} == {torch.float32}
    assert half.digest != stamp.digest
    half.save_pretrained(tmp_path / "again")
    assert Stamp.from_pretrained(tmp_path / "again").digest == half.digest
    for ours, theirs in zip(outputs(half), outputs(stamp), strict=True):
        assert torch.linalg.norm(ours - theirs) < 0.02 * torch.linalg.norm(theirs)


def test_precision_that_cannot_hold_a_weight_is_refused(stamp, tmp_path):
    stamp.logit_scale.data.fill_(1e5)
    with pytest.raises(
        ValueError,
        match=r"\['logit_scale'\] have weights too large for fp16; save in 'bf16' or 'fp32'",
    ):
        stamp.save_pretrained(tmp_path / "x", precision="fp16")
    with pytest.raises(
        ValueError, match=r"precision must be one of \['fp32', 'bf16', 'fp16'\], not 'int8'"
    ):
        stamp.save_pretrained(tmp_path / "x", precision="int8")
    assert not (tmp_path / "x").exists()


def test_image_encoder_loads_beside_the_vocabulary_of_an_earlier_model(models, tmp_path):
    models[Stamp].save_pretrained(tmp_path)
    models[ImageEncoder].save_pretrained(tmp_path)
    assert torch.equal(
        outputs(ImageEncoder.from_pretrained(tmp_path))[0], outputs(models[ImageEncoder])[0]
    )


def test_models_and_vocabularies_are_not_written_to_addresses(stamp, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for save, what in ((stamp.save_pretrained, "models"), (stamp.vocabulary.save, "vocabularies")):
        for address in ("s3://key:hidden@bucket/mine", Path("s3://bucket/mine")):
            with pytest.raises(ValueError, match=f"^s3://bucket/mine is remote, and {what} are"):
                save(address)
    assert not list(tmp_path.iterdir())
