"""Networks as people have them, and what each part of sculpt makes of them.

    python tests/any_networks.py

prints the tables of docs/networks.md, in an hour.
"""

import copy
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from networks import sensitivity
from torch import Tensor, nn
from torchvision import models
from torchvision.models import segmentation, video

import sculpt
from sculpt.diagnostics.arguments import Inputs, call, logits_of, shape_of
from sculpt.diagnostics.propagation import jacobian_singular_values
from sculpt.diagnostics.topology import measure_topology
from sculpt.errors import InputError, SculptError
from sculpt.export.condensing import certified_program
from sculpt.export.runtimes import by_onnxruntime
from sculpt.pruning.criteria.connection_sensitivity import connection_sensitivity
from sculpt.pruning.masks import count_kept, count_parameters, prunable_parameters
from sculpt.pruning.task import PruningTask

SHARE = 0.3
"""Of the prunable parameters, to keep."""
MOST_REPAIRED = 50_000_000
"""Parameters of a network to repair; layers of VGG and AlexNet take minutes."""
MOST_LOGITS = 100
"""Of two inputs: a Jacobian takes a backward pass for each of them, and maps have thousands."""


class UNet(nn.Module):
    """Down and up again by transposed convolutions, with concatenated shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([self._block(3, 8), self._block(8, 16)])
        self.middle = self._block(16, 32)
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(32, 16, 2, stride=2), nn.ConvTranspose2d(16, 8, 2, stride=2)]
        )
        self.after = nn.ModuleList([self._block(32, 16), self._block(16, 8)])
        self.head = nn.Conv2d(8, 5, 1)

    @staticmethod
    def _block(inputs: int, outputs: int) -> nn.Module:
        layers = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(4, outputs), nn.SiLU()]
        return nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        shortcuts = []
        hidden = images
        for block in self.down:
            shortcuts.append(block(hidden))
            hidden = nn.functional.max_pool2d(shortcuts[-1], 2)
        hidden = self.middle(hidden)
        for up, block, shortcut in zip(self.up, self.after, reversed(shortcuts), strict=True):
            hidden = block(torch.cat([up(hidden), shortcut], 1))
        return self.head(hidden)


class TextClassifier(nn.Module):
    """Words, a recurrent layer, and a linear one on its last state."""

    def __init__(self, recurrent: type[nn.RNNBase]) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 16)
        self.recurrent = recurrent(16, 32, batch_first=True)
        self.hidden, self.head = nn.Linear(32, 32), nn.Linear(32, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.recurrent(self.words(tokens))
        return self.head(torch.tanh(self.hidden(states[:, -1])))


class LanguageModel(nn.Module):
    """A causal transformer whose output layer has the weight of its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(100, 16), nn.Embedding(8, 16)
        block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 100, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        length = tokens.shape[1]
        causal = torch.full((length, length), -torch.inf).triu(1)
        hidden = self.words(tokens) + self.places(torch.arange(length))
        return {"logits": self.head(self.blocks(hidden, mask=causal))}


class Translator(nn.Module):
    """Queries of one sequence attend to another, of other widths."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(12, 24), nn.Linear(6, 16)
        self.attention = nn.MultiheadAttention(16, 2, kdim=24, vdim=24, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, queries = torch.relu(self.encode(source)), torch.relu(self.decode(target))
        attended, _ = self.attention(queries, memory, memory)
        return self.head((queries + attended).mean(1))


class Mixer(nn.Module):
    """Linear layers along tokens and along channels in turn, scaled and gated."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.tokens, self.channels = nn.Linear(64, 64), nn.Linear(16, 32)
        self.back, self.norm, self.head = nn.Linear(16, 16), nn.RMSNorm(16), nn.Linear(16, 10)
        self.scale = nn.Parameter(torch.ones(16))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.patches(images).flatten(2)
        hidden = (hidden + self.tokens(hidden)).transpose(1, 2)
        gated = nn.functional.glu(self.channels(self.norm(hidden)), dim=-1)
        return self.head((hidden + self.scale * self.back(gated)).mean(1))


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def tokens(*shape: int) -> Tensor:
    return torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(0))


def of_zoo(name: str, family: Any = models, **options: Any) -> Callable[[], nn.Module]:
    return partial(getattr(family, name), num_classes=10, **options)


BARE = {"weights": None, "weights_backbone": None}

SMALL: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "U-Net": (UNet, images(2, 3, 16, 16)),
    "LSTM text classifier": (partial(TextClassifier, nn.LSTM), tokens(4, 8)),
    "GRU text classifier": (partial(TextClassifier, nn.GRU), tokens(4, 8)),
    "tied language model": (LanguageModel, tokens(4, 8)),
    "cross attention, two inputs": (Translator, (images(4, 9, 12), images(4, 5, 6))),
    "MLP mixer, gated": (Mixer, images(2, 3, 32, 32)),
    "1-D convolutions": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 16, 5, padding=2),
            nn.BatchNorm1d(16),
            nn.GELU(),
            nn.Conv1d(16, 16, 5, groups=16),
            nn.Hardswish(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(16, 10),
        ),
        images(4, 2, 24),
    ),
    "3-D convolutions": (
        lambda: nn.Sequential(
            nn.Conv3d(1, 8, (3, 3, 1)),
            nn.LeakyReLU(),
            nn.Conv3d(8, 8, 3),
            nn.Flatten(),
            nn.Linear(8 * 4 * 4 * 6, 10),
        ),
        images(2, 1, 8, 8, 8),
    ),
    "vit, 2 blocks": (
        lambda: models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=10),
        images(2, 3, 32, 32),
    ),
    "mobilenet_v2, a quarter as wide": (
        lambda: models.MobileNetV2(10, width_mult=0.25),
        images(2, 3, 32, 32),
    ),
    "shufflenet_v2_x0_5": (of_zoo("shufflenet_v2_x0_5"), images(2, 3, 32, 32)),
    "squeezenet1_1": (of_zoo("squeezenet1_1"), images(2, 3, 48, 48)),
    "mobilenet_v3_small": (of_zoo("mobilenet_v3_small"), images(2, 3, 32, 32)),
    "mnasnet0_5": (of_zoo("mnasnet0_5"), images(2, 3, 32, 32)),
    "lraspp_mobilenet_v3_large": (
        of_zoo("lraspp_mobilenet_v3_large", segmentation, **BARE),
        images(2, 3, 32, 32),
    ),
    "efficientnet_b0": (of_zoo("efficientnet_b0"), images(2, 3, 32, 32)),
    "regnet_y_400mf": (of_zoo("regnet_y_400mf"), images(2, 3, 32, 32)),
}
LARGE: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    **{
        name: (of_zoo(name), images(2, 3, size, size))
        for name, size in {
            **dict.fromkeys(("alexnet", "vgg11_bn", "resnet18", "resnet34", "resnet50"), 64),
            **dict.fromkeys(("resnext50_32x4d", "wide_resnet50_2", "densenet121"), 64),
            **dict.fromkeys(("efficientnet_v2_s", "regnet_x_400mf", "mobilenet_v2"), 64),
            **dict.fromkeys(("mobilenet_v3_large", "shufflenet_v2_x1_0", "mnasnet1_0"), 64),
            **dict.fromkeys(("squeezenet1_0", "convnext_tiny", "swin_t", "swin_v2_t"), 64),
            **dict.fromkeys(("googlenet", "vit_b_32", "maxvit_t"), 224),
            "inception_v3": 96,
        }.items()
    },
    "fcn_resnet50": (of_zoo("fcn_resnet50", segmentation, **BARE), images(2, 3, 64, 64)),
    **{
        name: (of_zoo(name, video), images(2, 3, 8, 48, 48))
        for name in ("r3d_18", "mc3_18", "r2plus1d_18")
    },
}


def examine(build: Callable[[], nn.Module], inputs: Inputs) -> dict[str, Any]:
    """Prune a network, and say what came of it and of what stands around."""
    torch.manual_seed(0)
    model = build()
    # Not `ldi`: an isometric kernel of one channel is a single ±1, and zeros score 0.
    sculpt.initialize(model, "variance_scaling", seed=0)
    weights = prunable_parameters(model)
    prunable = count_parameters(model, "paper")
    whole = sum(parameter.numel() for parameter in model.parameters())
    logits = logits_of(call(model.eval(), inputs))
    expected = sensitivity(model, [-logits.log_softmax(1).mean(1).sum()])
    model.zero_grad()
    task = PruningTask(model, prunable, lambda: [(inputs, torch.zeros(0))])
    scores = connection_sensitivity(model, task)
    total = sum(float(expected[name].double().sum()) for name in weights)
    difference = max(
        float((scores[name] - expected[name] / total).abs().max() / scores[name].max().clamp(1e-30))
        for name in weights
    )
    begin = time.process_time()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        masks = sculpt.prune(model, round(SHARE * prunable), inputs=inputs)
    seconds = time.process_time() - begin
    try:
        topology: Any = measure_topology(model, masks, shape_of(inputs))
        effective: Any = topology.parameters
    except InputError as error:
        effective = str(error).partition("applies ")[2].partition(";")[0]
    row = {
        "parameters": whole,
        "prunable": prunable / whole,
        "kept": count_kept(model, masks, "paper") / prunable,
        "met": count_kept(model, masks, "paper") == round(SHARE * prunable),
        "scores": difference,
        "effective": effective,
        "named": [str(one.message) for one in warned],
        "seconds": seconds,
    }
    row |= {"compact": compacted(copy.deepcopy(model), masks, inputs)}
    row |= {"onnx": in_onnx(copy.deepcopy(model), masks, inputs)}
    row |= repaired(model, masks, inputs) if whole <= MOST_REPAIRED else {}
    return row


def repaired(model: nn.Module, masks: dict[str, Tensor], inputs: Inputs) -> dict[str, Any]:
    """Repair a pruned network; say how far it ends above its bounds, and what signals it passes.

    `above` is the largest of ‖(C⊙W)(C⊙W)ᵀ − I‖_F less its bound over the layers, for √rows: the
    tolerance is 0.01, and 0.001 for matrices of up to 2^18 weights.
    """
    jacobians = [jacobian(model, inputs)]
    found = sculpt.repair_isometry(model, masks)
    jacobians.append(jacobian(model, inputs))
    rows = {name: len(model.get_parameter(name)) for name in found}
    above = max((one.after - one.bound) / rows[name] ** 0.5 for name, one in found.items())
    reached = all(one.converged for one in found.values())
    return {"above": above, "reached": reached, "jacobians": jacobians}


def jacobian(model: nn.Module, inputs: Inputs) -> float | None:
    """Compute the mean singular value of the Jacobian at one image; None without one."""
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        return None
    if logits_of(call(model.eval(), inputs)).numel() > MOST_LOGITS:
        return None
    return float(jacobian_singular_values(model, inputs[:1], dtype=torch.float32).mean())


def in_onnx(model: nn.Module, masks: dict[str, Tensor], inputs: Inputs) -> str:
    """Write a pruned network as ONNX and run that; say that it is the same, or what hinders."""
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        return "not of such inputs"
    try:
        program = certified_program(model.eval(), masks, inputs)
    except SculptError:
        return "has calls that no format has"
    found = torch.as_tensor(by_onnxruntime(program)(1)(inputs))
    with torch.no_grad():
        expected = logits_of(call(model.float(), inputs))
    difference = (found - expected).abs().max() / expected.abs().max()
    assert difference < 1e-4, "the same but for rounding"
    return "verified"


def compacted(model: nn.Module, masks: dict[str, Tensor], inputs: Inputs) -> str:
    """Compact a pruned network; say how many of its weights are left, or why not."""
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        return "not of such inputs"
    before = sum(parameter.numel() for parameter in model.parameters())
    try:
        small = sculpt.compact(model.eval(), masks, inputs)
    except SculptError as error:
        return f"refused: {str(error)[:80]}"
    after = sum(tensor.numel() for tensor in (*small.parameters(), *small.buffers()))
    assert after <= before + 1, "never larger"
    return f"{after / before:.0%} of all numbers"


def described(found: dict[str, Any]) -> str:
    """Format what the repair came to, in two cells."""
    if "above" not in found:
        return "— | —"
    before, after = found["jacobians"]
    change = "—" if before is None else f"{before:.2g} → {after:.2g}"
    return f"{found['above']:.4f}{'' if found['reached'] else ' (stalled)'} | {change}"


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| network | parameters | prunable | budget | effective | `compact` | seconds |")
    print("|---|---|---|---|---|---|---|")
    others = ["| network | ONNX | above bound | Jacobian |", "|---|---|---|---|"]
    for name, (build, inputs) in (SMALL | LARGE).items():
        found = examine(build, inputs)
        others.append(f"| {name} | {found['onnx']} | {described(found)} |")
        paths = found["effective"]
        if isinstance(paths, int):
            paths = f"{paths / max(1, found['kept'] * found['prunable'] * found['parameters']):.1%}"
        print(
            f"| {name} | {found['parameters']:,} | {found['prunable']:.1%} | "
            f"{'exact' if found['met'] else 'missed'} | {paths} | {found['compact']} | "
            f"{found['seconds']:.1f} |",
            flush=True,
        )
    print("", *others, sep="\n")


if __name__ == "__main__":
    sys.exit(main())
