"""What a record of training says adds up. How long anything takes is never judged here."""

import json
from typing import Any

import pytest
import torch

from sculpt.benchmark.kernels import (
    AUGMENTATION,
    CLASSES,
    CONVOLUTION,
    COPIES,
    ELEMENTWISE,
    NORM,
    OPTIMIZER,
    OTHER,
    classify,
)
from sculpt.benchmark.step_profile import Extent, profile_training
from sculpt.benchmark.trace import read_trace
from sculpt.config import Training
from sculpt.data import Splits, make_splits
from sculpt.data.digits import Digits
from sculpt.models.resnet import resnet
from sculpt.pruning.initializers import initialize
from sculpt.pruning.masks import apply_masks, dense_masks

# As torch's profiler writes them on Hopper GPUs, and for operators on a CPU.
NAMES = {
    "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x64x64": (
        CONVOLUTION
    ),
    "sm80_xmma_wgrad_implicit_gemm_indexed_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_kernel": CONVOLUTION,
    "nvjet_tst_128x64_64x8_1x2_h_bz_TNT": CONVOLUTION,
    "cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_128x2_nn_align8": CONVOLUTION,
    "void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816dgrad_optimized_bf16>": CONVOLUTION,
    "void gemmSN_TN_kernel<float, 128, 16, 2, 4>": CONVOLUTION,
    "cudnn::bn_fw_tr_1C11_kernel_NCHW": NORM,
    "void cudnn::bn_bw_1C11_singleread<float, 512>": NORM,
    "void at::native::batch_norm_collect_statistics_channels_last_kernel<VarNoOp>": NORM,
    "triton_per_fused_native_batch_norm_backward_3": NORM,
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>": (
        ELEMENTWISE
    ),
    "triton_poi_fused_convolution_relu_0": ELEMENTWISE,
    "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedSgdMathFunctor>": (
        OPTIMIZER
    ),
    "void at::native::(anonymous namespace)::distribution_elementwise_grid_stride_kernel<int>": (
        AUGMENTATION
    ),
    "void at::native::_scatter_gather_elementwise_kernel<128, 8>": AUGMENTATION,
    "void at::native::index_elementwise_kernel<128, 4, gpu_index_kernel>": AUGMENTATION,
    "Memcpy HtoD (Pageable -> Device)": COPIES,
    "Memcpy DtoH (Device -> Pageable)": COPIES,
    "Memset (Device)": COPIES,
    "void at::native::elementwise_kernel<direct_copy_kernel_cuda(at::TensorIteratorBase&)>": COPIES,
    "void cudnn::engines_precompiled::nchwToNhwcKernel<float, float, float>": COPIES,
    "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float>>": OTHER,
    "aten::mkldnn_convolution": CONVOLUTION,
    "aten::addmm": CONVOLUTION,
    "aten::native_batch_norm_backward": NORM,
    "aten::threshold_backward": ELEMENTWISE,
    "aten::_fused_sgd_": OPTIMIZER,
    "aten::_foreach_mul_": OPTIMIZER,
    "aten::masked_fill_": AUGMENTATION,
    "aten::copy_": COPIES,
    "aten::empty": OTHER,
}


@pytest.mark.parametrize(("name", "kind"), NAMES.items())
def test_names_tell_what_a_kernel_is_for(name: str, kind: str) -> None:
    assert classify(name) == kind


def event(category: str, name: str, start: float, duration: float, **args: Any) -> dict[str, Any]:
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "ts": start,
        "dur": duration,
        "tid": 7,
        "args": args,
    }


def test_a_trace_of_a_gpu_is_read() -> None:
    """Two kernels side by side, two copies; what spans them or the host's time is no kernel."""
    found = read_trace(
        [
            event("kernel", "sm90_xmma_fprop", 0, 40),
            event("kernel", "cudnn::bn_fw_tr_1C11_kernel_NCHW", 30, 20),
            event("kernel", "cudnn::bn_fw_tr_1C11_kernel_NCHW", 60, 10),
            event("gpu_memcpy", "Memcpy HtoD (Pageable -> Device)", 80, 5, bytes=1000),
            event("gpu_memcpy", "Memcpy DtoH (Device -> Pinned)", 90, 5, bytes=24),
            event("gpu_memcpy", "Memcpy DtoD (Device -> Device)", 95, 5, bytes=7),
            event("gpu_user_annotation", "Optimizer.step#SGD.step", 0, 1000),
            event("cuda_runtime", "cudaGraphLaunch", 0, 500),
            event("cpu_op", "aten::add", 0, 500),
            {"ph": "M", "name": "process_name", "ts": 0},
        ],
        "cuda",
        wall_seconds=1e-3,
    )
    assert found.busy_seconds == pytest.approx(75e-6), "the overlap counts once"
    assert found.seconds == pytest.approx(85e-6)
    assert found.count == 6
    assert (found.to_device, found.from_device) == (1000, 24)
    assert found.shares()[NORM] == pytest.approx(30 / 85)
    longest = found.spent[0]
    assert (longest.name, longest.kind, longest.count) == ("sm90_xmma_fprop", CONVOLUTION, 1)
    assert {one.count for one in found.spent if one.kind == NORM} == {2}


def test_operators_count_without_those_they_call() -> None:
    found = read_trace(
        [
            event("cpu_op", "aten::_foreach_mul_", 100, 10),
            event("cpu_op", "aten::mul_", 101, 8),
            event("cpu_op", "aten::conv2d", 0, 50),
            event("cpu_op", "aten::copy_", 10, 20),
            event("user_annotation", "Optimizer.step#SGD.step", 0, 1000),
        ],
        "cpu",
        wall_seconds=1e-3,
    )
    shares = found.shares()
    assert found.busy_seconds == pytest.approx(found.seconds) == pytest.approx(60e-6)
    assert shares[CONVOLUTION] == pytest.approx(0.5)
    assert shares[COPIES] == pytest.approx(1 / 3)
    assert shares[OPTIMIZER] == pytest.approx(1 / 6), "what it calls is its own"


def test_an_empty_trace_is_read() -> None:
    found = read_trace([], "cuda", wall_seconds=1e-3)
    assert (found.count, found.busy_seconds, sum(found.shares().values())) == (0, 0, 0)


@pytest.fixture
def splits() -> Splits:
    return make_splits(Digits().read(), train_images=200, validation_fraction=0.2)


def profile_digits(splits: Splits) -> dict[str, Any]:
    model = resnet(1, 10, stem_width=3, blocks=1, widening=1)
    initialize(model, "variance_scaling", seed=1)
    masks = dense_masks(model)
    for mask in masks.values():
        mask.view(-1)[::3] = False
    apply_masks(model, masks)
    recipe = Training.model_validate(
        {"epochs": 1, "batch_size": 20, "flip": True, "translate": 1, "precision": "float32"}
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    row = profile_training(model, masks, splits, recipe, extent=Extent(steps=2, repeats=1, top=4))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), "the given network must be left as it is"
    return row


def test_a_step_is_taken_apart(splits: Splits) -> None:
    row = json.loads(json.dumps(profile_digits(splits), allow_nan=False))
    assert row["profiler"] == "ok"
    assert row["engine"] == {"name": "eager", "reason": "no CUDA device"}
    classes = row["classes"]
    assert tuple(classes) == CLASSES
    assert sum(found["share"] for found in classes.values()) == pytest.approx(1)
    for kind in set(CLASSES) - {OTHER}:
        assert classes[kind]["seconds"] > 0, f"{kind} must take some of the time"
    step = row["step"]
    assert step["kernels"] == pytest.approx(sum(found["kernels"] for found in classes.values()))
    assert step["kernels"] * step["kernel_seconds"] == pytest.approx(
        sum(found["seconds"] for found in classes.values())
    )
    assert 0 < step["busy_seconds"] <= step["recorded_seconds"]
    assert 0 < step["busy_share"] <= 1
    assert len(row["top"]) == 4
    assert sum(one["share"] for one in row["top"]) <= 1
    assert row["flops"] == pytest.approx(6 * row["macs"] * row["images_per_second"])
    assert row["images_per_second"] * step["seconds"] == pytest.approx(20)
    assert 0 < row["augmentation"]["kernels"] < step["kernels"]
    epoch = row["epoch"]
    assert epoch["steps"] == len(splits.train) // 20
    assert epoch["shares"].keys() == {"steps", "evaluation", "state_copy", "permutation"}
    assert sum(epoch["shares"].values()) == pytest.approx(1)
    assert epoch["seconds"] == pytest.approx(sum(epoch["parts"].values()))
    assert epoch["permutation_bytes"] == 8 * len(splits.train)


def test_without_a_record_the_times_remain(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on machines where the profiler may not look at the GPU."""
    empty = read_trace([], "cuda", wall_seconds=1.0)
    monkeypatch.setattr("sculpt.benchmark.step_profile.record", lambda work, device: empty)
    row = profile_digits(splits)
    assert row["profiler"] == "the profiler recorded nothing of the device"
    assert row["classes"] is row["top"] is row["augmentation"] is None
    assert row["step"]["seconds"] > 0
    assert row["images_per_second"] > 0

    def fail(work: object, device: object) -> None:
        raise RuntimeError("CUPTI_ERROR_INSUFFICIENT_PRIVILEGES\nsecond line")

    monkeypatch.setattr("sculpt.benchmark.step_profile.record", fail)
    reason = profile_digits(splits)["profiler"]
    assert reason == "the profiler failed: CUPTI_ERROR_INSUFFICIENT_PRIVILEGES"
