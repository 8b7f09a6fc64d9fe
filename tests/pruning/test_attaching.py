"""Masks in training loops of other people's making, after every step exact."""

import copy
import multiprocessing

import pytest
import torch
import torch.nn.functional as F
from networks import count, equal, pruned_nonzeros, random_masks
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import prune as torch_prune
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import sculpt
from sculpt.errors import InputError

INPUTS = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 10

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-3),
    "fused": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-2),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-2, foreach=True),
    "lbfgs": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=3),
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)
    )


def step(model, optimizer, *, call=None):
    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy((call or model)(INPUTS), LABELS)
        loss.backward()
        return loss

    optimizer.step(closure)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_weights_stay_zero_under_any_optimiser(name):
    model = network()
    masks = random_masks(model, 0.3)
    optimizer = OPTIMIZERS[name](model.parameters())
    handle = sculpt.attach_masks(optimizer, model, masks)
    assert pruned_nonzeros(model, masks) == 0, "from the beginning"
    before = copy.deepcopy(model.state_dict())
    for _ in range(3):
        step(model, optimizer)
        assert pruned_nonzeros(model, masks) == 0
    assert not torch.equal(model[0].weight, before["0.weight"])
    handle.remove()
    step(model, optimizer)
    assert pruned_nonzeros(model, masks) > 0


def test_it_comes_to_what_masks_after_each_step_come_to():
    found = []
    for attached in (True, False):
        model = network()
        masks = random_masks(model, 0.3)
        sculpt.apply_masks(model, masks)
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        if attached:
            sculpt.attach_masks(optimizer, model, masks)
        for _ in range(3):
            step(model, optimizer)
            if not attached:
                sculpt.apply_masks(model, masks)
        found.append(model.state_dict())
    assert equal(*found)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.filterwarnings("ignore")  # of the compiler's own
@pytest.mark.slow
def test_compiled(backend):
    model = network()
    masks = random_masks(model, 0.3)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    sculpt.attach_masks(optimizer, model, masks)
    step(model, optimizer, call=torch.compile(model, backend=backend))
    assert pruned_nonzeros(model, masks) == 0


def test_scaled_autocast_and_averaged():
    model = network()
    masks = random_masks(model, 0.3)
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    sculpt.attach_masks(optimizer, model, masks)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    scaler = torch.amp.GradScaler("cpu")
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(INPUTS).float(), LABELS)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        average.update_parameters(model)
    assert pruned_nonzeros(model, masks) == pruned_nonzeros(average.module, masks) == 0


def test_a_network_may_change_its_type_afterwards():
    model = network()
    masks = random_masks(model, 0.3)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    sculpt.attach_masks(optimizer, model, masks)
    model.double()
    optimizer.zero_grad()
    model(INPUTS.double()).square().sum().backward()
    optimizer.step()
    assert pruned_nonzeros(model, masks) == 0
    assert model[0].weight.dtype == torch.float64


def _train_apart(rank, path, queue):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{path}", rank=rank, world_size=2
    )
    try:
        model = network()
        masks = random_masks(model, 0.3)
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        sculpt.attach_masks(optimizer, model, masks)
        wrapped = nn.parallel.DistributedDataParallel(model)
        rows = slice(12 * rank, 12 * rank + 12)
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(wrapped(INPUTS[rows]), LABELS[rows]).backward()
            optimizer.step()
        queue.put((rank, pruned_nonzeros(model, masks), model[4].weight.detach().numpy()))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [
        context.Process(target=_train_apart, args=(rank, tmp_path / "meet", queue))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    found = sorted((queue.get(timeout=120) for _ in processes), key=lambda one: one[0])
    for process in processes:
        process.join()
    assert [one[1] for one in found] == [0, 0]
    assert (found[0][2] == found[1][2]).all()


def test_masks_are_saved_as_any_tensors(tmp_path):
    model = network()
    masks = random_masks(model, 0.3)
    save_file(masks, tmp_path / "masks.safetensors")
    read = load_file(tmp_path / "masks.safetensors")
    assert equal({name: read[name] for name in masks}, masks)


class TestTorchsOwn:
    def test_there_and_back(self):
        model = network()
        weights = copy.deepcopy(model.state_dict())
        masks = random_masks(model, 0.3)
        sculpt.to_torch_pruning(model, masks)
        back = sculpt.from_torch_pruning(model)
        assert equal(back, masks)
        assert pruned_nonzeros(model, masks) == 0
        fresh = network()
        fresh.load_state_dict(weights)
        sculpt.apply_masks(fresh, masks)
        assert equal(dict(fresh.named_parameters()), dict(model.named_parameters()))

    def test_what_it_pruned_itself(self):
        model = network()
        torch_prune.global_unstructured(
            [(model[0], "weight"), (model[4], "weight")], torch_prune.L1Unstructured, amount=0.9
        )
        masks = sculpt.from_torch_pruning(model)
        kept = sum(int(masks[name].sum()) for name in ("0.weight", "4.weight"))
        assert kept == round(0.1 * (216 + 2880))
        assert masks["0.bias"].all()
        sculpt.diagnose(model, masks, INPUTS)

    def test_other_layers_are_refused(self):
        model = network()
        torch_prune.random_unstructured(model[1], "weight", 0.5)
        torch_prune.random_unstructured(model[4], "weight", 0.5)
        for _ in range(2):
            with pytest.raises(InputError, match=r"1\.weight is pruned, too"):
                sculpt.from_torch_pruning(model)
            assert torch_prune.is_pruned(model[4]), "nothing was changed"
        torch_prune.remove(model[1], "weight")
        assert not sculpt.from_torch_pruning(model)["4.weight"].all()

    def test_what_pytorch_would_not_keep_is_refused(self):
        tied = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
        tied[2].weight = tied[0].weight
        attention = nn.Sequential(nn.Linear(6, 6), nn.MultiheadAttention(6, 2))
        for model, name in ((tied, "0.weight"), (attention, "1.out_proj.weight")):
            masks = sculpt.pruning.masks.dense_masks(model)
            masks[name][0] = False
            with pytest.raises(InputError, match=rf"{name} is shared or an attention layer's"):
                sculpt.to_torch_pruning(model, masks)
            assert not torch_prune.is_pruned(model)
            assert model.get_parameter(name).all(), "nothing was changed"


def test_a_mask_may_be_replaced_by_another_one():
    model = network()
    masks = random_masks(model, 0.5)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    sculpt.attach_masks(optimizer, model, masks)
    masks["4.weight"] = masks["4.weight"] & random_masks(model, 0.5)["4.weight"].flip(0)
    step(model, optimizer)
    assert pruned_nonzeros(model, masks) == 0


def test_two_optimisers_keep_their_own_weights_each():
    model = network()
    masks = random_masks(model, 0.3)
    optimizers = [
        OPTIMIZERS["sgd"](model[:3].parameters()),
        OPTIMIZERS["adamw"](model[4].parameters()),
    ]
    for optimizer in optimizers:
        sculpt.attach_masks(optimizer, model, masks)
    for _ in range(2):
        for optimizer in optimizers:
            step(model, optimizer)
            assert pruned_nonzeros(model, masks) == 0
    model[0].requires_grad_(False)
    sculpt.attach_masks(
        OPTIMIZERS["sgd"](p for p in model.parameters() if p.requires_grad), model, masks
    )


def test_others_are_refused():
    model = network()
    masks = random_masks(model, 0.3)
    with pytest.raises(InputError, match=r"but 0\.weight is none of its parameters"):
        sculpt.attach_masks(OPTIMIZERS["sgd"](network().parameters()), model, masks)
    with pytest.raises(InputError, match=r"an optimiser of torch\.optim, but got NoneType"):
        sculpt.attach_masks(None, model, masks)
    with torch.inference_mode():
        unseen = {name: mask.clone() for name, mask in masks.items()}
    with pytest.raises(InputError, match=r"0\.weight was made in torch\.inference_mode; clone"):
        sculpt.attach_masks(OPTIMIZERS["sgd"](model.parameters()), model, unseen)
    assert all(parameter.all() for parameter in (model[0].weight, model[4].weight)), "not changed"
    with pytest.raises(InputError, match="these have only one of the two"):
        sculpt.attach_masks(OPTIMIZERS["sgd"](model.parameters()), model, {})
    head = OPTIMIZERS["sgd"](model[4].parameters())
    masks |= {name: torch.ones_like(masks[name]) for name in ("0.weight", "0.bias")}
    sculpt.attach_masks(head, model, masks)
    assert count(masks) > 216
