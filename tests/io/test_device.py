"""The chosen device, and a model on it."""

import pytest
import torch

from dqecir.errors import DataError
from dqecir.io.device import chosen_device, device_named, on_cpu, use_device


@pytest.fixture
def gpus(monkeypatch):
    """Let the machine have two GPUs, of which only the names are used."""
    monkeypatch.delenv("DQECIR_DEVICE", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)


def test_a_gpu_is_chosen_unless_another_device_is_named(gpus, monkeypatch):
    assert chosen_device() == torch.device("cuda") and not on_cpu()
    monkeypatch.setenv("DQECIR_DEVICE", "cpu")
    assert chosen_device() == torch.device("cpu") and on_cpu()
    monkeypatch.setenv("DQECIR_DEVICE", "mps")
    with pytest.raises(DataError, match=r"no device 'mps' here .*; this machine has cuda and cpu"):
        chosen_device()


def test_each_process_of_a_training_has_a_gpu(gpus, monkeypatch):
    devices = []
    for rank in range(3):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        devices.append(chosen_device())
    assert devices == [torch.device("cuda", index) for index in (0, 1, 0)]


def test_without_a_gpu_the_cpu_is_chosen(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    monkeypatch.delenv("DQECIR_DEVICE", raising=False)
    assert chosen_device() == torch.device("cpu")
    monkeypatch.setenv("DQECIR_DEVICE", "cuda")
    with pytest.raises(DataError, match="this machine has cpu"):
        chosen_device()


def test_a_device_is_named_or_chosen(gpus, monkeypatch):
    assert device_named("auto") == device_named("cuda") == torch.device("cuda")
    assert device_named("cpu") == torch.device("cpu")
    assert device_named("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(DataError, match="no device 'tpu' here"):
        device_named("tpu")
    monkeypatch.setenv("DQECIR_DEVICE", "cpu")
    assert device_named("auto") == torch.device("cpu")
    use_device("auto")
    assert chosen_device() == torch.device("cpu")
    use_device("cuda")
    assert chosen_device() == torch.device("cuda")


def test_an_untrained_method_is_on_the_device_of_its_model(model):
    method = model.to("meta").with_method("tirg", {}).method
    assert {parameter.device.type for parameter in method.parameters()} == {"meta"}
