"""What is timed is the trained network, exported without what it does not need, and only that."""

import itertools
import operator
import sys

import pytest
import torch
from networks import Undecided, appearance, equal

import sculpt.export.latency as latency
from sculpt.errors import ExportError, InputError
from sculpt.export.latency import measure_latency
from sculpt.export.runtimes import RUNTIMES, missing_runtime
from sculpt.initializers import initialize
from sculpt.models import build_network
from sculpt.pruning.masks import apply_masks, dense_masks

FAMILIES = [
    ("resnet", {"blocks": 1, "widening": 2, "stem_width": 4}),
    ("resnet", {"blocks": 1, "widening": 2, "version": "v2", "shortcut": "projection"}),
    ("wide_resnet", {"depth": 10}),
    ("vgg16", {"widening": 0.125}),
    ("mlp", {"layers": 4, "units": 30}),
    ("lenet_300_100", {}),
]
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def sparse(family, options, device="cpu"):
    """Build a network with dead channels, whose statistics and gradients are not fresh ones."""
    model = build_network(family, channels=3, classes=10, pixels=32 * 32, **options)
    initialize(model, "variance_scaling", seed=0)
    masks = dense_masks(model)
    generator = torch.Generator().manual_seed(1)
    for mask in masks.values():
        mask &= torch.rand(mask.shape, generator=generator) < 0.3
        if len(mask) > 10:  # not the classes
            mask[::2] = False
    apply_masks(model, masks)
    model.to(device, memory_format=torch.channels_last).train()
    model(IMAGES.to(device)).square().mean().backward()
    return model, {name: mask.to(device) for name, mask in masks.items()}


@pytest.fixture
def timed(monkeypatch):
    """What is handed over to be timed: (run, image), one entry per measurement."""
    seen = []

    def keep(run, image):
        seen.append((run, image))
        return measure(run, image)

    measure = latency._median_seconds
    monkeypatch.setattr(latency, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(latency, "_median_seconds", keep)
    return seen


RUNTIMES_HERE = [name for name in RUNTIMES if not missing_runtime(name)]


def test_every_runtime_is_here_where_everything_is_tested():
    """Without a compiler the tests of C are skipped, but not in CI."""
    assert {"torch", "onnxruntime"} <= set(RUNTIMES_HERE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "options", "runtime"),
    [
        (family, options, runtime)
        for family, options in FAMILIES
        for runtime in RUNTIMES_HERE
        if runtime != "c" or family in ("mlp", "resnet")  # a compiler takes its time
    ],
)
def test_what_is_timed_computes_the_networks_logits(family, options, runtime, timed):
    model, masks = sparse(family, options)
    assert measure_latency(model, masks, IMAGES, runtime=runtime) > 0
    ((run, image),) = timed
    assert torch.equal(image, IMAGES[:1])
    with torch.no_grad():
        expected = model.eval()(image)
    logits = torch.as_tensor(run(image))
    assert logits.shape == (1, 10)
    assert float((logits - expected).abs().max()) < 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training):
    model, masks = sparse(*FAMILIES[0])
    before, held = appearance(model.train(training)), [p.grad.clone() for p in model.parameters()]
    kept = {name: mask.clone() for name, mask in masks.items()}
    drawn, threads = torch.get_rng_state(), torch.get_num_threads()
    gradients = before.pop("gradients")
    measure_latency(model, masks, IMAGES)
    after = appearance(model)
    assert all(map(operator.is_, after.pop("gradients"), gradients))
    assert after == before
    assert all(map(torch.equal, gradients, held))
    assert equal(masks, kept)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.get_num_threads() == threads


def test_what_cannot_be_traced_is_timed_as_it_is(timed):
    model = Undecided(3 * 32 * 32, 5)
    masks = dense_masks(model)
    masks["layer.weight"][2:] = False
    with pytest.raises(
        InputError, match=r"some of layer\.weight are not; first call sculpt\.apply"
    ):
        measure_latency(model, masks, IMAGES)
    apply_masks(model, masks)
    assert measure_latency(model, masks, IMAGES) > 0
    ((run, image),) = timed
    torch.testing.assert_close(run(image), model(image))
    with pytest.raises(ExportError):
        measure_latency(model, masks, IMAGES, runtime="onnxruntime")


def test_a_runtime_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(InputError, match="no-such-compiler"):
        measure_latency(*sparse("mlp", {}), IMAGES, runtime="c")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"sculpt\[export\]"):
        measure_latency(*sparse("mlp", {}), IMAGES, runtime="onnxruntime")


def test_one_thread_and_the_others_after_an_error(monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        fail = lambda *_: 1 / (torch.get_num_threads() - 1)  # noqa: E731
        monkeypatch.setattr(latency, "_median_seconds", fail)
        with pytest.raises(ZeroDivisionError):
            measure_latency(*sparse("mlp", {}), IMAGES)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("seconds", "runs"), [(0.125, 5), (1 / 64, 20)])
def test_how_often_it_runs(monkeypatch, seconds, runs):
    """The clock advances in runs only; those that warm up are not timed."""
    calls = itertools.count()
    clock = iter(seconds * tick for tick in itertools.count())
    monkeypatch.setattr(latency, "perf_counter", lambda: next(clock))
    assert latency._median_seconds(lambda _: next(calls), IMAGES) == seconds
    assert next(calls) == latency.WARM_UP + runs


def test_the_median_is_taken(monkeypatch):
    clock = iter([0.0, 1.0, 2.0, 100.0, 101.0, 200.0])
    monkeypatch.setattr(latency, "perf_counter", lambda: next(clock))
    assert latency._median_seconds(lambda _: None, IMAGES) == 1.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_network_on_a_gpu_is_timed_on_the_cpu(timed):
    model, masks = sparse(*FAMILIES[0], device="cuda")
    assert measure_latency(model, masks, IMAGES.to("cuda")) > 0
    ((run, image),) = timed
    assert {image.device.type, run(image).device.type} == {"cpu"}
    assert all(p.device.type == "cuda" for p in model.parameters())
    assert all(p.grad.device.type == "cuda" for p in model.parameters())
    assert all(mask.device.type == "cuda" for mask in masks.values())
