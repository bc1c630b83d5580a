import pytest

from stp._config import check_sizes, from_dict
from stp.models import GeneEncoderConfig, StampConfig
from stp.train import AlignConfig, Phase, PretrainConfig


def test_configs_are_built_from_plain_values():
    plain = {"gene": {"width": 64}, "image": {"mean": [0.1, 0.2, 0.3]}, "projection_width": 7}
    config = from_dict(StampConfig, plain)
    assert (config.gene.width, config.image.mean, config.projection_width) == (
        64,
        (0.1, 0.2, 0.3),
        7,
    )
    pretrain = from_dict(PretrainConfig, {"phases": [{"epochs": 2}, {"objective": "neighborhood"}]})
    assert pretrain.phases == (Phase(epochs=2), Phase(objective="neighborhood"))
    assert (
        from_dict(AlignConfig, {"device": None, "micro_batch": 8, "learning_rate": 1}).micro_batch
        == 8
    )


@pytest.mark.parametrize("values", [{"widht": 1}, {"gene": {"widht": 1}}], ids=["outer", "nested"])
def test_unknown_names_in_a_config_are_refused(values):
    with pytest.raises(ValueError, match=r"has no \['widht'\]; it has"):
        from_dict(StampConfig, values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gene": {"width": "64"}}, "width must be int, not '64'"),
        ({"gene": {"width": True}}, "width must be int, not True"),
        ({"gene": {"width": 64.0}}, "width must be int, not 64.0"),
        ({"gene": {"tie_heads": 1}}, "tie_heads must be bool, not 1"),
        ({"gene": [64]}, r"GeneEncoderConfig must be names and values, not \[64\]"),
        ({"image": {"mean": [0.1, "x", 0.3]}}, "mean must be float, not 'x'"),
        ({"image": {"backbone_args": ["depth"]}}, r"backbone_args must be .*, not \['depth'\]"),
    ],
)
def test_values_of_another_type_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        from_dict(StampConfig, values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gene": {"width": 10**9}}, "gene.width = 1000000000 is beyond any model"),
        ({"gene": {"depth": 1001}}, "gene.depth = 1001 is beyond"),
        (
            {"image": {"backbone_args": {"embed_dim": -(10**9)}}},
            "image.backbone_args.embed_dim = -1",
        ),
        ({"image": {"um_per_px": float("nan")}}, "um_per_px = nan"),
        ({"image": {"mean": [0.0] * 70_000}}, "image.mean has 70000 values"),
        ({"image": {"pretrained": True}}, "image.pretrained = True would download weights"),
    ],
)
def test_absurd_sizes_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        check_sizes(values)


def test_the_sizes_of_the_paper_are_not_absurd():
    check_sizes(
        {
            "gene": vars(GeneEncoderConfig()),
            "image": {"backbone_args": {"depth": 40, "embed_dim": 1536}},
        }
    )
