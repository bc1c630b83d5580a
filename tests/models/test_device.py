import pytest
import torch
from torch import nn

from stp.models.device import autocast, choose_device, inference


def test_device_is_the_given_one_or_a_gpu_if_there_is_one():
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")
    assert choose_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)],
)
def test_auto_is_fp32_on_a_cpu(precision, dtype):
    with autocast(torch.device("cpu"), precision):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype is dtype


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("auto", torch.bfloat16), ("fp32", torch.float32), ("bf16", torch.bfloat16)],
)
def test_auto_is_bf16_on_a_gpu(precision, dtype):
    with autocast(torch.device("cuda"), precision):
        assert nn.Linear(2, 2, device="cuda")(torch.ones(1, 2, device="cuda")).dtype is dtype


@pytest.mark.parametrize("precision", ["fp16", "", None])
def test_unknown_precision_is_refused(precision):
    with pytest.raises(ValueError, match="precision must be 'auto', 'bf16' or 'fp32', not"):
        autocast(torch.device("cpu"), precision)


@pytest.mark.parametrize("training", [True, False])
def test_inference_evaluates_without_gradients_and_restores_the_model(training):
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train(training)
    with pytest.raises(KeyboardInterrupt), inference(model, "cpu", "fp32") as device:
        assert device.type == "cpu" and not model.training
        assert not model(torch.ones(1, 2)).requires_grad
        raise KeyboardInterrupt
    assert model.training is model[1].training is training
    assert model(torch.ones(1, 2)).requires_grad
