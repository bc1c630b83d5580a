import json
from itertools import permutations

import numpy as np
import pytest
import torch

from stp.models import GeneEncoder, ImageEncoder, Stamp, StampConfig
from stp.models.checkpoint import from_dict
from stp.train import Phase, PretrainConfig

CLASSES = [GeneEncoder, ImageEncoder, Stamp]
by_class = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
FILES = {
    GeneEncoder: {"config.json", "model.safetensors", "vocabulary.parquet"},
    ImageEncoder: {"config.json", "model.safetensors"},
    Stamp: {"config.json", "model.safetensors", "vocabulary.parquet"},
}


@pytest.fixture
def models(stamp):
    return {GeneEncoder: stamp.gene_encoder, ImageEncoder: stamp.image_encoder, Stamp: stamp}


@torch.no_grad()
def outputs(model):
    tokens = torch.arange(30, 60).repeat(2, 1)
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if isinstance(model, Stamp):
        return [*model.encode_genes(tokens), *model.encode_images(images), model.scale]
    return [model(images if isinstance(model, ImageEncoder) else tokens)]


@by_class
def test_what_is_loaded_computes_bit_for_bit_what_was_saved(models, kind, tmp_path):
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
def test_a_folder_holds_its_files_and_nothing_temporary(models, kind, tmp_path):
    models[kind].save_pretrained(tmp_path)
    models[kind].save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == FILES[kind]


def test_saving_again_replaces_the_weights(stamp, tmp_path):
    stamp.save_pretrained(tmp_path)
    stamp.logit_scale.data.fill_(1.0)
    stamp.save_pretrained(tmp_path)
    assert Stamp.from_pretrained(tmp_path).logit_scale.item() == 1.0


@pytest.mark.parametrize(("kind", "given"), list(permutations(CLASSES, 2)), ids=lambda kind: kind.__name__)
def test_a_folder_of_another_class_is_refused(models, kind, given, tmp_path):
    models[kind].save_pretrained(tmp_path)
    if FILES[given] > FILES[kind]:
        models[given].vocabulary.save(tmp_path / "vocabulary.parquet")
    with pytest.raises(ValueError, match=f"holds a {kind.__name__}; load it with that class, not {given.__name__}"):
        given.from_pretrained(tmp_path)


@by_class
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_one_clear_error(models, kind, share, tmp_path):
    models[kind].save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"model\.safetensors is truncated or damaged .* copy it again"):
        kind.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in CLASSES for name in sorted(FILES[kind])], ids=lambda x: str(x)
)
def test_a_missing_file_is_named(models, kind, name, tmp_path):
    models[kind].save_pretrained(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {name}; give a folder written by save_pretrained"):
        kind.from_pretrained(tmp_path)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere has no config.json"):
        Stamp.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("change", ["width", "name"])
def test_weights_of_another_size_are_refused(models, change, tmp_path):
    models[GeneEncoder].save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["config"] |= {"width": 64} if change == "width" else {"depth": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"model\.safetensors does not fit the config\.json beside it"):
        GeneEncoder.from_pretrained(tmp_path)


def test_image_encoder_loads_beside_the_vocabulary_of_an_earlier_model(models, tmp_path):
    models[Stamp].save_pretrained(tmp_path)
    models[ImageEncoder].save_pretrained(tmp_path)
    assert torch.equal(outputs(ImageEncoder.from_pretrained(tmp_path))[0], outputs(models[ImageEncoder])[0])


def test_configs_are_built_from_plain_values():
    plain = {"gene": {"width": 64}, "image": {"mean": [0.1, 0.2, 0.3]}, "projection_width": 7}
    config = from_dict(StampConfig, plain)
    assert (config.gene.width, config.image.mean, config.projection_width) == (64, (0.1, 0.2, 0.3), 7)
    pretrain = from_dict(PretrainConfig, {"phases": [{"epochs": 2}, {"objective": "neighborhood"}]})
    assert pretrain.phases == (Phase(epochs=2), Phase(objective="neighborhood"))


@pytest.mark.parametrize("values", [{"widht": 1}, {"gene": {"widht": 1}}], ids=["outer", "nested"])
def test_unknown_names_in_a_config_are_refused(values):
    with pytest.raises(ValueError, match=r"has no \['widht'\]; it has"):
        from_dict(StampConfig, values)
