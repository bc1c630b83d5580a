"""Files of others: a file that is not weights is refused with a message, and never run."""

import io
import json
import struct
import time
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from stp.models import GeneEncoder, ImageEncoder, load_backbone
from stp.models.saved.weights import check_shapes, read_shapes, read_tensors

FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Malice:
    """Pickles to a call that would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def zipped(path, **parts):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(f"archive/{name.replace('_', '.')}", content)


@pytest.mark.parametrize("case", ["instead of tensors", "among tensors", "old format"])
def test_a_malicious_file_of_torch_is_not_run(case, tmp_path):
    mark = tmp_path / "ran"
    path = tmp_path / "w.bin"
    state = {"a": torch.ones(2), "b": Malice(mark)} if case == "among tensors" else Malice(mark)
    torch.save(state, path, _use_new_zipfile_serialization=case != "old format")
    with pytest.raises(ValueError, match=r"w\.bin .* nothing in it was run"):
        read_tensors(path)
    with pytest.raises(ValueError, match="nothing in it was run"):
        load_backbone("UNI", path=path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the file is malicious"


def test_a_packed_archive_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    with pytest.raises(
        ValueError, match="has compressed parts, archive/data.pkl, which torch.save never writes"
    ):
        read_tensors(tmp_path / "w.bin")


def test_an_archive_writes_nothing_outside_or_anywhere(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    with zipfile.ZipFile(inside / "w.bin", "w") as archive:
        for name in ("../../escaped", "/tmp/stp_escaped", "archive/data.pkl", "archive/version"):
            archive.writestr(name, b"3\n")
    with pytest.raises(ValueError, match="nothing in it was run"):
        read_tensors(inside / "w.bin")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inside", "w.bin"]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([torch.ones(1)], "contains list, not named tensors"),
        ({}, "contains dict, not named tensors"),
        ({"a": torch.ones(1), "epoch": 3}, "contains more than tensors: 'epoch'"),
        ({"state_dict": {"a": 1}}, "contains more than tensors: 'a'"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(state, message, tmp_path):
    torch.save(state, tmp_path / "w.bin")
    with pytest.raises(ValueError, match=message):
        read_tensors(tmp_path / "w.bin")


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}], ids=["plain", "Lightning"]
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_wrapping_is_read(wrap, prefix, tmp_path):
    torch.save(wrap({f"{prefix}a": torch.arange(3.0)}), tmp_path / "w.bin")
    assert {name: tensor.tolist() for name, tensor in read_tensors(tmp_path / "w.bin").items()} == {
        "a": [0, 1, 2]
    }


def header(size, content):
    return struct.pack("<Q", size) + content


ONE = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        header(2**63, b"{}"),
        header(99 * 2**20, b"{}"),
        header(2, b"{}") + b"left over",
        header(2, b"[]"),
        *[
            header(len(text), text) + bytes(8)
            for change in (
                {"shape": [2**40, 2**40]},
                {"data_offsets": [0, 2**60]},
                {"shape": [-1]},
                {"dtype": "F64"},
            )
            for text in [json.dumps({"a": ONE["a"] | change}).encode()]
        ],
    ],
)
def test_safetensors_that_lie_are_refused_at_once(content, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(content)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"w\.safetensors"):
        read_shapes(tmp_path / "w.safetensors")
    assert time.perf_counter() - start < 1


def test_other_types_are_no_weights(tmp_path):
    save_file(
        {"a": torch.ones(2), "b": torch.ones(2, dtype=torch.float64)}, tmp_path / "w.safetensors"
    )
    with pytest.raises(
        ValueError,
        match="has tensors that are not weights: b is F64; weights are F32, F16, BF16, I64",
    ):
        read_tensors(tmp_path / "w.safetensors")


def test_names_and_shapes_are_compared():
    expected = {"a": (2, 3), "b": (1,)}
    check_shapes({"b": (1,), "a": (2, 3)}, expected, Path("w"), "it")
    message = (
        r"^w does not fit it: missing: b; unknown: c; "
        r"of another shape: a is \[3, 2\], not \[2, 3\]$"
    )
    with pytest.raises(ValueError, match=message):
        check_shapes({"a": (3, 2), "c": ()}, expected, Path("w"), "it")
    with pytest.raises(ValueError, match="unknown: a, b, c and 2 more$"):
        check_shapes(dict.fromkeys("abcde", ()), {}, Path("w"), "it")


# ---- arbitrary content in place of each file of a model


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_config, vocabulary):
    path = tmp_path_factory.mktemp("model")
    GeneEncoder(tiny_config.gene, vocabulary).save_pretrained(path)
    return path


def check_damaged(kind, path, content, name):
    """Change a file and load: this gives the model as it was, or a clear error of ours."""
    before = (path / name).read_bytes()
    try:
        (path / name).write_bytes(content)
        kind.from_pretrained(path)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert content == before or name != "model.safetensors"
    finally:
        (path / name).write_bytes(before)


@FEW
@given(data=st.data())
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocabulary.parquet"])
def test_damaged_bytes_are_one_error(folder, name, data):
    content = bytearray((folder / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1) | st.integers(0, min(300, len(content) - 1)))
    content[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
    check_damaged(GeneEncoder, folder, bytes(content), name)


TEXT = st.text("ab:/.\0", max_size=9)
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = VALUES | st.lists(VALUES, max_size=3) | st.dictionaries(TEXT, VALUES, max_size=3)


@FEW
@given(
    name=st.sampled_from(
        ["context_length", "width", "depth", "n_heads", "ffn_width", "pooling", "x"]
    ),
    value=JSON,
)
def test_any_config_is_one_error(folder, name, value):
    description = json.loads((folder / "config.json").read_text())
    description["config"][name] = value
    check_damaged(GeneEncoder, folder, json.dumps(description).encode(), "config.json")


@FEW
@given(value=JSON)
def test_any_description_is_one_error(folder, value):
    check_damaged(GeneEncoder, folder, json.dumps(value).encode(), "config.json")


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "hf-hub:someone/evil"},
        {"backbone": "local-dir:../../etc"},
        {"backbone": "../../etc/passwd"},
        {"backbone_args": {"checkpoint_path": "../../w.bin"}},
        {"backbone_args": {"pretrained_cfg": {"file": "/etc/passwd"}}},
        {"backbone_args": {"mlp_layer": "create_conv2d"}},
        {"backbone_args": {"embed_dim": 2**40}},
        {"backbone_args": {"depth": 10**6}},
        {"image_size": 10**6},
        {"pretrained": True},
    ],
    ids=lambda change: json.dumps(change),
)
def test_a_config_that_reaches_outside_or_for_the_sky_is_refused(tiny_config, change, tmp_path):
    ImageEncoder(tiny_config.image).save_pretrained(tmp_path)
    description = json.loads((tmp_path / "config.json").read_text())
    for name, value in change.items():
        config = description["config"]
        config[name] = config[name] | value if isinstance(value, dict) else value
    (tmp_path / "config.json").write_text(json.dumps(description))
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"config\.json describes no ImageEncoder: "):
        ImageEncoder.from_pretrained(tmp_path)
    assert time.perf_counter() - start < 10


@FEW
@given(content=st.binary(max_size=200))
def test_any_bytes_as_a_file_of_torch_are_one_error(folder, content):
    path = folder / "any.bin"
    whole = io.BytesIO()
    zipped(whole, data_pkl=content, version=b"3\n", byteorder=b"little")
    for damaged in (content, whole.getvalue()):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"any\.bin"):
            read_tensors(path)
