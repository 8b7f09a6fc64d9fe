"""The arithmetic of float32 on CUDA is set for a while, whatever else in the process sets it."""

import pytest
import torch

from sculpt.arithmetic import float32_products

CUDA = torch.device("cuda")
SETTINGS = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn]


def precisions():
    return [setting.fp32_precision for setting in SETTINGS]


@pytest.fixture
def _left_as_found():
    before = precisions()
    yield
    for setting, value in zip(SETTINGS, before, strict=True):
        setting.fp32_precision = value


@pytest.mark.usefixtures("_left_as_found")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "tf32"])
@pytest.mark.parametrize("others", [None, "ieee", "tf32"])
def test_float32_products_are_what_is_asked_for_and_then_as_before(precision, others):
    """Also where a script or plug-in sets `fp32_precision`, after which `allow_tf32` raises."""
    if others:
        torch.backends.cuda.matmul.fp32_precision = others
        torch.backends.cudnn.conv.fp32_precision = others
    before = precisions()
    with float32_products(precision, CUDA):
        assert set(precisions()) == {"tf32" if precision == "tf32" else "ieee"}
    assert precisions() == before


def test_the_older_interface_can_be_read_afterwards():
    def older():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    before = older()
    with float32_products("tf32", CUDA):
        pass
    assert older() == before


def test_on_the_cpu_nothing_is_set():
    before = precisions()
    with float32_products("tf32", torch.device("cpu")):
        assert precisions() == before
