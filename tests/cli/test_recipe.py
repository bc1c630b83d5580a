import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

from stp import Vocabulary
from stp.cli.main import main
from stp.cli.recipe import read_recipe
from stp.models import GeneEncoderConfig, ImageEncoder, ImageEncoderConfig
from stp.train import AlignConfig, Phase, PretrainConfig, align, pretrain


@pytest.fixture
def folder(stores, vocabulary, tmp_path):
    vocabulary.save(tmp_path / "vocabulary.parquet")
    for number, store in enumerate(stores):
        (tmp_path / f"slide{number}.zarr").symlink_to(store)
    return tmp_path


def write_recipe(folder, text):
    (folder / "recipe.toml").write_text(text)
    return folder / "recipe.toml"


def test_pretrain(folder, vocabulary):
    text = """
    stores = ["slide[01].zarr"]
    validation = ["slide2.zarr"]
    output_dir = "runs/genes"
    vocabulary = "vocabulary.parquet"
    learning_rate = 1e-3
    resume = false
    [model]
    width = 64
    [[phase]]
    epochs = 2
    [[phase]]
    objective = "neighborhood"
    """
    call = read_recipe(write_recipe(folder, text), "pretrain")
    assert call.func is pretrain
    assert not call.args
    arguments = dict(call.keywords)
    assert arguments.pop("vocabulary").digest == vocabulary.digest
    assert arguments == {
        "stores": [folder / "slide0.zarr", folder / "slide1.zarr"],
        "validation": [folder / "slide2.zarr"],
        "output_dir": folder / "runs/genes",
        "table_key": "table",
        "resume": False,
        "model": GeneEncoderConfig(width=64),
        "config": PretrainConfig(
            learning_rate=1e-3, phases=(Phase(epochs=2), Phase(objective="neighborhood"))
        ),
    }


def test_without_a_vocabulary_the_human_one_is_fitted(folder, stores):
    text = f'stores = ["{folder}/slide*.zarr"]\noutput_dir = "out"'
    arguments = read_recipe(write_recipe(folder, text), "pretrain").keywords
    assert len(arguments["stores"]) == len(stores)
    assert arguments["vocabulary"].digest == Vocabulary.default().fit(stores).digest
    assert arguments["config"] == PretrainConfig()


def test_align(folder):
    text = """
    stores = ["slide0.zarr"]
    output_dir = "out"
    gene_encoder = "runs/genes"
    epochs = 3
    [image_encoder]
    backbone = "vit_tiny_patch16_224"
    """
    call = read_recipe(write_recipe(folder, text), "align")
    assert call.func is align
    arguments = call.keywords
    assert arguments["gene_encoder"] == folder / "runs/genes"
    assert arguments["config"] == AlignConfig(epochs=3)
    assert arguments["image_encoder"] == ImageEncoderConfig("vit_tiny_patch16_224")


def test_a_folder_may_have_brackets_in_its_name(stores, tmp_path):
    folder = tmp_path / "run [1]"
    folder.mkdir()
    for number in (0, 1):
        (folder / f"[{number}].zarr").symlink_to(stores[number])
    path = write_recipe(
        folder, 'stores = ["[[][01]].zarr"]\nvalidation = ["[1].zarr"]\noutput_dir = "out"'
    )
    arguments = read_recipe(path, "pretrain").keywords
    assert arguments["stores"] == [folder / "[0].zarr", folder / "[1].zarr"]
    assert arguments["validation"] == [folder / "[1].zarr"]


def test_the_vocabulary_is_fitted_to_the_table_that_is_trained_on(folder):
    path = write_recipe(folder, 'stores = ["slide0.zarr"]\noutput_dir = "out"\ntable_key = "bins"')
    with pytest.raises(ValueError, match="table 'bins'"):
        read_recipe(path, "pretrain")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('stores = ["slide0.zarr"]', r"lacks \['output_dir'\]"),
        ('output_dir = "out"', r"lacks \['stores'\]"),
        ('stores = ["*.zip"]\noutput_dir = "out"', r"no store matches '\*\.zip'"),
        ('stores = ["gone.zarr"]\noutput_dir = "out"', "no store matches 'gone.zarr'"),
        (
            'stores = ["slide0.zarr"]\noutput_dir = "out"\nlerning_rate = 1',
            r"unknown keys \['lerning_rate'\]",
        ),
        (
            'stores = ["slide0.zarr"]\noutput_dir = "out"\n[model]\nwidht = 1',
            r"GeneEncoderConfig has no \['widht'\]",
        ),
        (
            'stores = ["slide0.zarr"]\noutput_dir = "out"\n[[phase]]\nepoch = 1',
            r"Phase has no \['epoch'\]",
        ),
        (
            'stores = ["slide0.zarr"]\noutput_dir = "out"\nlearning_rate = -1',
            "learning_rate must be positive",
        ),
        ("stores = [", "is no TOML"),
        (
            'stores = "slide0.zarr"\noutput_dir = "out"',
            "stores must be a list or a table, not 'slide0.zarr'",
        ),
        (
            'stores = ["slide0.zarr"]\noutput_dir = "out"\nresume = "no"',
            "resume must be bool, not 'no'",
        ),
        (
            'stores = ["slide0.zarr"]\noutput_dir = "out"\nvocabulary = 1',
            "vocabulary must be str, not 1",
        ),
        (
            'stores = ["slide0.zarr"]\noutput_dir = "out"\n[model]\nn_heads = 0',
            "n_heads must be positive, not 0",
        ),
    ],
)
def test_what_is_wrong_is_named_before_any_work(folder, text, message, capsys):
    path = write_recipe(folder, text)
    with pytest.raises(ValueError, match=message):
        read_recipe(path, "pretrain")
    with pytest.raises(SystemExit, match="2"):
        main(["pretrain", str(path)])
    assert "error:" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_a_recipe_that_is_not_there_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["align", str(tmp_path / "recipe.toml")])
    assert "recipe.toml" in capsys.readouterr().err


def test_what_training_refuses_is_a_line_and_no_traceback(folder, capsys):
    path = write_recipe(
        folder, 'stores = ["slide0.zarr"]\noutput_dir = "out"\ngene_encoder = "nowhere"'
    )
    with pytest.raises(SystemExit, match="2"):
        main(["align", str(path)])
    message = capsys.readouterr().err
    assert message.splitlines()[-1].startswith("stp align: error:")
    assert "nowhere" in message
    assert "Traceback" not in message


ALIGN = 'stores = ["slide0.zarr"]\noutput_dir = "out"\ngene_encoder = "runs/genes"\n'
TABLE = """
[image_encoder]
backbone = "vit_tiny_patch16_224"
backbone_args = {depth = 1, embed_dim = 32, num_heads = 2}
image_size = 64
"""


@pytest.fixture
def encoder():
    args = {"depth": 1, "embed_dim": 32, "num_heads": 2}
    return ImageEncoder(
        ImageEncoderConfig("vit_tiny_patch16_224", args, image_size=64, has_prompt=False)
    )


def images_of(folder, text):
    return read_recipe(write_recipe(folder, ALIGN + text), "align").keywords["image_encoder"]


def test_backbone_weights_are_a_folder_of_an_encoder(folder, encoder):
    encoder.save_pretrained(folder / "encoders" / "mine")
    loaded = images_of(folder, 'backbone_weights = "encoders/mine"')
    assert loaded.digest == encoder.digest and loaded.name == "mine"


def test_backbone_weights_are_a_file_for_the_backbone_of_the_table(folder, encoder):
    torch.save(encoder.backbone.state_dict(), folder / "mine.pt")
    loaded = images_of(folder, f'backbone_weights = "mine.pt"{TABLE}')
    assert loaded.digest == encoder.digest and loaded.name == "mine"


def test_backbone_weights_are_the_name_of_an_encoder(folder, monkeypatch):
    def offline(hub_id, file, revision=None):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(FileNotFoundError, match="MahmoodLab/UNI from the hub"):
        images_of(folder, 'backbone_weights = "UNI"')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('backbone_weights = "nothing"', r"'nothing' is no file or folder in .*'UNI'"),
        (f'backbone_weights = "UNI"{TABLE}', r"'UNI' brings its own \[image_encoder\]"),
        ('backbone_weights = "mSTAR"', r"of an encoder and of .*mSTAR; write '\./mSTAR'"),
    ],
)
def test_backbone_weights_that_are_unclear_are_refused(text, message, folder):
    (folder / "mSTAR").mkdir()
    with pytest.raises(ValueError, match=message):
        images_of(folder, text)
