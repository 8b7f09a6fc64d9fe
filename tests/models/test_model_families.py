"""The contract of every model family."""

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from sculpt.pruning.masks import prunable_parameters
from sculpt.registry import MODELS

FAMILIES = MODELS.names()


def build(name: str, channels: int = 3, classes: int = 10, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return MODELS.get(name)(channels, classes, **options)


def structure(model: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, tensor.shape) for name, tensor in model.state_dict().items()]


def test_the_families_that_are_promised_are_there():
    assert {"resnet"} <= set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_options_are_keywords_with_types_and_defaults(name: str):
    channels, classes, *options = inspect.signature(MODELS.get(name)).parameters.values()

    assert (channels.name, classes.name) == ("channels", "classes")
    for required in (channels, classes):
        assert required.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD, required
        assert required.default is inspect.Parameter.empty, required
    for option in options:
        assert option.kind is inspect.Parameter.KEYWORD_ONLY, option
        assert option.default is not inspect.Parameter.empty, option
        assert option.annotation is not inspect.Parameter.empty, option


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 33, 29)])
@pytest.mark.parametrize("name", FAMILIES)
def test_images_of_any_size_become_logits(name: str, shape: tuple[int, int, int]):
    model = build(name, channels=shape[0], classes=7)

    logits = model(torch.randn(2, *shape))

    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_is_used(name: str):
    model = build(name)
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()

    unused = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert unused == []


@pytest.mark.parametrize("name", FAMILIES)
def test_images_do_not_influence_each_other_in_inference(name: str):
    model = build(name).eval()
    images = torch.randn(3, 3, 32, 32)

    with torch.no_grad():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])

    torch.testing.assert_close(together, alone)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_structure_depends_on_nothing_but_the_options(name: str):
    first = build(name)
    torch.manual_seed(1)
    torch.rand(17)
    with torch.device("meta"):
        again = MODELS.get(name)(3, 10)

    assert structure(first) == structure(again)
    assert str(first) == str(again)
    assert prunable_parameters(first).keys() == prunable_parameters(again).keys()


@pytest.mark.parametrize("name", FAMILIES)
def test_channels_and_classes_are_obeyed(name: str):
    few, many = (build(name, channels=1, classes=classes) for classes in (2, 100))

    assert few(torch.randn(2, 1, 32, 32)).shape == (2, 2)
    assert many(torch.randn(2, 1, 32, 32)).shape == (2, 100)
    with pytest.raises(RuntimeError):
        few(torch.randn(2, 3, 32, 32))
