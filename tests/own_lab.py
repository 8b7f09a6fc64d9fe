"""Networks, data, losses and metrics of somebody's own, which studies of the tests import."""

from itertools import pairwise

import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import Dataset, TensorDataset

CALLS: list[dict[str, object]] = []
"""What `table_net` was asked for."""


def series(count: int = 240, length: int = 32, channels: int = 2):
    """Sines of three frequencies in noise, alone: the test set is split off."""
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    time = torch.linspace(0, 6.28, length)
    waves = torch.sin((labels[:, None, None] + 1) * time)
    return waves + 0.3 * torch.randn(count, channels, length, generator=stream), labels


class SeriesNet(nn.Sequential):
    """Two 1-D convolutions, and dropout."""

    def __init__(self, input_shape: tuple[int, int], classes: int, *, width: int = 4):
        super().__init__(
            nn.Conv1d(input_shape[0], width, 5, padding=2),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(width, 2 * width, 5, padding=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(2 * width, classes),
        )


def diabetes(scale: float = 100.0):
    """The table of 442 patients, 10 features each, and the progression of a year."""
    found = load_diabetes()
    return found.data, found.target / scale


def table_net(input_shape, outputs, units: int = 16, layers: int = 2):
    CALLS.append({"input_shape": input_shape, "outputs": outputs})
    widths = [input_shape[0], *[units] * (layers - 1)]
    modules = []
    for before, after in pairwise(widths):
        modules += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*modules, nn.Linear(widths[-1], outputs))


def images(count: int = 200):
    """8-bit images (train, test) of two classes: bright above, or below."""
    stream = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 2
    pixels = torch.randint(0, 100, (count, 3, 32, 32), generator=stream, dtype=torch.uint8)
    pixels[labels == 0, :, :16] += 100
    pixels[labels == 1, :, 16:] += 100
    half = count * 4 // 5
    return (pixels[:half], labels[:half]), (pixels[half:], labels[half:])


def many_labels(count: int = 160):
    """Rows of 8 numbers, and which of 3 sums of them are positive, as booleans."""
    stream = torch.Generator().manual_seed(2)
    rows = torch.randn(count, 8, generator=stream)
    return TensorDataset(rows, rows[:, :6].view(-1, 3, 2).sum(2) > 0)


class Rows(Dataset):
    """A map-style data set of rows with two numbers to foretell."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int):
        row = torch.arange(4.0) + place
        return row, torch.stack([row.sum(), row.min()])


def rows(count: int = 50):
    return Rows(count), Rows(10)


def huber(outputs, targets):
    return nn.functional.huber_loss(outputs, targets)


def focal(outputs, targets):
    """A loss of classes that counts what is told well for less."""
    told = outputs.log_softmax(1).gather(1, targets[:, None])[:, 0]
    return -(told * (1 - told.exp()) ** 2).mean()


def worst_distance(outputs, targets):
    return (outputs - targets).abs().max()


def each_square(outputs, targets):
    return (outputs - targets).square()


def broken():
    raise FileNotFoundError("no such table")


def nothing():
    return None


def dropping_rates(input_shape, outputs):
    """A network whose rates are read from a tensor, as nobody can on the meta device."""
    rate = torch.linspace(0, 0.5, 3)[1].item()
    return nn.Sequential(nn.Linear(input_shape[0], 4), nn.Dropout(rate), nn.Linear(4, outputs))


def lazy_net(outputs):
    return nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.Linear(4, outputs))


def embedding_net(input_shape, num_classes):
    """A network with numbers of its own that no initializer draws."""
    net = nn.Sequential(nn.Linear(input_shape[0], num_classes))
    net.register_parameter("shift", nn.Parameter(torch.randn(3)))
    return net


class TwoHeads(nn.Module):
    """A network that returns two tensors, as one of boxes and classes does."""

    def __init__(self, input_shape, outputs):
        super().__init__()
        self.head = nn.Linear(input_shape[0], outputs)

    def forward(self, inputs):
        return self.head(inputs), self.head(inputs)


def token_net(outputs):
    return nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.Linear(40, outputs))


class Recurrent(nn.Module):
    """A network that paths cannot be followed through."""

    def __init__(self, outputs):
        super().__init__()
        self.recurrent, self.head = nn.GRU(1, 8, batch_first=True), nn.Linear(8, outputs)

    def forward(self, rows):
        return self.head(self.recurrent(rows[:, :, None])[0][:, -1])
