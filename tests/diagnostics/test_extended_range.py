"""Numbers beyond float64 against Python's integers, which have no end."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sculpt.diagnostics.extended_range import BAND, ExtendedRange


def wrap(*numbers: int) -> ExtendedRange:
    """Wrap integers of any size, exactly so where they are short times a power of two."""
    bands: dict[int, Tensor] = {}
    for index, number in enumerate(numbers):
        band = round(number.bit_length() / BAND)
        row = bands.setdefault(band, torch.zeros(len(numbers), dtype=torch.float64))
        row[index] = number / 2 ** (BAND * band)
    tensor = next(iter(bands.values())).as_subclass(ExtendedRange)
    tensor.bands = bands
    return tensor


def read(tensor: ExtendedRange) -> list[int]:
    """Return the elements as integers."""
    total = [0] * tensor.numel()
    for band, values in tensor.bands.items():
        for index, value in enumerate(values.flatten().tolist()):
            numerator, denominator = value.as_integer_ratio()
            total[index] += numerator * 2 ** (BAND * band) // denominator
    return total


HUGE = 3 * 2**5000
FAR = pytest.param(10_000, marks=pytest.mark.slow)


@pytest.mark.parametrize("exponent", [0, 100, 255, 256, 257, 511, 512, 513, 1000, 1023, FAR])
def test_numbers_grow_and_shrink_without_end(exponent):
    number = shrinking = ExtendedRange.of(torch.tensor([3.0], dtype=torch.float64))
    for _ in range(exponent):
        number, shrinking = number * 2, shrinking / 2.0
    assert read(number) == [3 * 2**exponent]
    for found, sign in ((number, 1), (shrinking, -1)):
        expected = math.log10(3) + sign * exponent * math.log10(2)
        assert found.log10() == pytest.approx(expected, rel=1e-14)


def test_elements_of_one_tensor_may_lie_any_distance_apart():
    tensor = wrap(7, HUGE)
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    spread = F.linear(tensor, weight)
    assert read(spread)[:2] == [7, HUGE]
    assert spread[0].log10() == pytest.approx(math.log10(7))
    # And the small one may win, where it alone is read further on.
    for _ in range(60):
        tensor = tensor * 2.0**100
    assert read(F.linear(tensor, weight[:1])) == [7 * 2**6000]


def test_a_matrix_product_against_integers():
    matrix = [[1, 0, 2], [0, 3, 0], [1, 1, 1]]
    vector, expected = wrap(5, 1, 0), [5, 1, 0]
    weight = torch.tensor(matrix, dtype=torch.float64)
    for step in range(60):
        factor = 2**100 if step % 2 else 1
        vector = F.linear(vector, weight) * float(factor)
        expected = [
            factor * sum(w * x for w, x in zip(row, expected, strict=True)) for row in matrix
        ]
    assert expected[0].bit_length() > 3000
    for number, exact in zip(read(vector), expected, strict=True):
        assert abs(number - exact) <= exact // 10**13


@pytest.mark.parametrize("other", [wrap(1, HUGE), wrap(HUGE, 1), wrap(1, 2)], ids=str)
def test_sums(other):
    tensor = wrap(HUGE, 5)
    in_place = wrap(HUGE, 5)
    in_place += other
    named = wrap(HUGE, 5)
    assert named.add_(other) is named
    values = torch.ones(2, dtype=torch.float64)
    made = ExtendedRange.of(values)
    made += other
    assert values.tolist() == [1, 1], "what it was made of is not changed"
    exact = [a + b for a, b in zip(read(tensor), read(other), strict=True)]
    for total in (tensor + other, in_place, named, torch.stack([tensor, other]).sum(0)):
        assert [number.log10() for number in total] == pytest.approx(
            [math.log10(number) for number in exact], rel=1e-15
        )
    assert read(torch.cat([tensor, other])) == read(tensor) + read(other)
    assert read(tensor) == [HUGE, 5]


def test_shapes_views_and_several_results():
    tensor = wrap(1, HUGE, 3, 4)
    assert tensor.shape == (4,)
    assert tensor.size(0) == tensor.numel() == 4
    assert tensor.dtype == torch.float64
    assert tensor.view(2, 2).T.shape == (2, 2)
    assert read(tensor.view(2, 2).T) == [1, 3, HUGE, 4]
    first, second = tensor.chunk(2)
    assert read(first) == [1, HUGE]
    assert read(second) == [3, 4]


def test_modules_pass_it_on():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, bias=False),
        nn.Identity(),
        nn.Dropout(),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2, 1, bias=False),
    )
    model.double().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.fill_(1)
    small = torch.arange(16, dtype=torch.float64).view(1, 1, 4, 4)
    large = ExtendedRange.of(small)
    for _ in range(20):
        large = large * 2.0**100
    expected = math.log10(float(model(small))) + 2000 * math.log10(2)
    assert model(large).sum().log10() == pytest.approx(expected, rel=1e-14)


def test_zero():
    zero = ExtendedRange.of(torch.zeros(3, dtype=torch.float64))
    assert zero.sum().log10() is None
    assert (zero + zero).sum().log10() is None
    assert read(zero * 2) == [0, 0, 0]


def test_a_product_of_two_is_their_sum():
    """As its derivative where the factors are 1, in bands of their own."""
    assert read(wrap(1, 2) * wrap(3, 4)) == [4, 6]
    big = wrap(1, 2)
    for _ in range(90):
        big = big * 1e100
    product = big * wrap(3, 4)
    assert product.sum().log10() == pytest.approx(9000 + math.log10(3))
