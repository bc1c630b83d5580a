"""Models of genes, images and both; each is built from one config."""

from stp.models.gene import GeneEncoder, GeneEncoderConfig
from stp.models.grow import grow
from stp.models.head import ExpressionHead, ExpressionHeadConfig
from stp.models.image import ImageEncoder
from stp.models.image_config import ImageEncoderConfig
from stp.models.published.backbones import backbones, load_backbone
from stp.models.published.release import load_release, load_release_files
from stp.models.saved.card import ModelCard
from stp.models.slide import SlideModel
from stp.models.slide_config import SlideFeatures, SlideModelConfig, SlideTarget
from stp.models.stamp import Stamp, StampConfig
from stp.models.wrapped import WrappedEncoder

__all__ = [
    "ExpressionHead",
    "ExpressionHeadConfig",
    "GeneEncoder",
    "GeneEncoderConfig",
    "ImageEncoder",
    "ImageEncoderConfig",
    "ModelCard",
    "SlideFeatures",
    "SlideModel",
    "SlideModelConfig",
    "SlideTarget",
    "Stamp",
    "StampConfig",
    "WrappedEncoder",
    "backbones",
    "grow",
    "load_backbone",
    "load_release",
    "load_release_files",
]
