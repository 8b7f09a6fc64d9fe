"""One network in training: its steps, and its whole state between them."""

import inspect
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sculpt.arithmetic import drawn_by
from sculpt.config import Training
from sculpt.data import ImageSet, augment, blend_share
from sculpt.errors import InputError, NumericsError
from sculpt.pruning.masks import Masks
from sculpt.pruning.moving import kept_at, move_masks, moved_fraction, shrink_masks
from sculpt.seeding import derive_seed
from sculpt.training.batch_norms import counted_at_once, plain_norms
from sculpt.training.half_weights import HalfWeights
from sculpt.training.precision import autocast
from sculpt.training.schedules import rate_factor

MOST_BYTES_NORMALIZED = 2**30
"""Training sets up to this size are kept as floats, unless they are augmented."""

State = dict[str, Tensor]
"""State of a run besides its recipe: whole on its device, or packed for a checkpoint on the CPU."""


SECOND_BETA = 0.999
"""AdamW's second beta; the first is the recipe's momentum."""
MEMORY = {
    "momentum": "momentum_buffer",
    "first": "exp_avg",
    "second": "exp_avg_sq",
    "steps": "step",
}
"""What an optimiser remembers of a parameter, by its name in a state."""


class _SGD(torch.optim.SGD):
    """SGD outside of `torch.compile`, which it would import: seconds, and 150 MB of memory."""

    add_param_group = inspect.unwrap(torch.optim.SGD.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.SGD.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class _AdamW(torch.optim.AdamW):
    """AdamW outside of `torch.compile`, as above."""

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


@dataclass(eq=False)
class Trainer:
    """Trains a masked network in place, step by step; no step waits for the device."""

    model: nn.Module
    """On the device of the images; its pruned weights are zero."""
    masks: Masks
    """Keyed by parameter name. Where they move, of the trainer's own."""
    images: ImageSet
    recipe: Training
    precision: str
    """Resolved."""
    seed: int
    """Decides data order and augmentation."""
    budget: int | None = None
    """Weights that masks keep in the end; None where they stay as they are."""
    steps_done: int = 0
    moved: int = 0
    """Weights that masks have grown or dropped in all moves."""
    micro_batches: int = 1
    """Parts of a batch, whose gradients add up to the whole batch's."""
    offload: bool = False
    """Keep activations in the host's memory between the forward and the backward pass."""
    update: Callable[[Tensor], None] | None = None
    """A captured step, in place of `update_eagerly`."""
    loss_sum: Tensor = field(init=False)
    """Sum of the losses of this epoch's batches."""
    wrong: Tensor = field(init=False)
    """Training images of this epoch that were misclassified in their step; 0 in another task."""

    def __post_init__(self) -> None:
        self.device = self.images.device
        recipe = self.recipe
        self.batch_size = min(recipe.batch_size, len(self.images))
        self.steps_per_epoch = len(self.images) // self.batch_size
        named = dict(self.model.named_parameters())
        self.parameters = list(named.values())
        self.optimizer = self._make_optimizer()
        if self.budget is not None:
            self.masks = {name: mask.clone() for name, mask in self.masks.items()}
            self._last_move = int(recipe.moving.until * recipe.epochs * self.steps_per_epoch)
            if recipe.moving.rule == "gradual_magnitude":  # it is evaluated at the budget
                self._last_move = max(1, self._last_move)
            self._kept_first = sum(
                int(mask.sum()) for name, mask in self.masks.items() if named[name].requires_grad
            )
        sparse = {
            name: mask
            for name, mask in self.masks.items()
            if self.budget is not None or not mask.all()
        }
        self._pruned: list[Tensor] = [named[name] for name in sparse]
        # With the strides of the weights, or they are not multiplied all at once.
        self._keep = [torch.empty_like(named[name]).copy_(mask) for name, mask in sparse.items()]
        self._names = list(named)
        self._norms = plain_norms(self.model)
        self._halves = HalfWeights(self.model, self.precision)
        # Where masks move, a state has the whole parameters, or its shapes would move along.
        fixed = sparse if self.budget is None else {}
        self._where = {f"model/{name}": mask for name, mask in fixed.items()}
        for index, name in enumerate(named):
            if name in fixed:
                kinds = ("momentum", "first", "second", "average")
                self._where |= {f"{kind}/{index}": sparse[name] for kind in kinds}
        averaged = self.parameters if recipe.weight_average else []
        self._average = [parameter.detach().clone() for parameter in averaged]
        augmented = recipe.flip or recipe.translate > 0 or recipe.cutout > 0
        self.generator = torch.Generator(self.device)
        self.generator.manual_seed(derive_seed(self.seed, "augmentation"))
        # Images without augmentation are normalised once, where they fit as floats.
        self._normalized: Tensor | None = None
        # Channels last in memory, and left so when a batch is taken.
        self._images = self.images.images.dim() == 4
        if not augmented and self.images.images.numel() * 4 <= MOST_BYTES_NORMALIZED:
            inputs = self.images.inputs()
            self._normalized = inputs.permute(0, 2, 3, 1).contiguous() if self._images else inputs
        # Read by a captured step, so it is changed in place.
        self._share: Tensor | None = None
        if recipe.mixup or recipe.cutmix:
            self._share = self._draw_share().to(self.device)
        self.loss_sum = torch.zeros((), device=self.device)
        self.wrong = torch.zeros((), device=self.device)

    @property
    def last_rate(self) -> float:
        """The learning rate of the last step."""
        return self._rate(self.steps_done - 1)

    def _rate(self, step: int) -> float:
        total = self.recipe.epochs * self.steps_per_epoch
        recipe = self.recipe
        return recipe.learning_rate * rate_factor(recipe.schedule, step, total, recipe.warm_up)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        recipe, on_cuda = self.recipe, self.device.type == "cuda"
        # On CUDA the rate is a tensor, so that a captured step reads its present value.
        rate = torch.tensor(recipe.learning_rate, device=self.device) if on_cuda else None
        settings: dict[str, Any] = {
            "lr": recipe.learning_rate if rate is None else rate,
            "weight_decay": recipe.weight_decay,
            "fused": True,
        }
        if recipe.optimizer == "adamw":
            betas = (recipe.momentum, SECOND_BETA)
            return _AdamW(self.parameters, betas=betas, capturable=on_cuda, **settings)
        return _SGD(self.parameters, momentum=recipe.momentum, nesterov=recipe.nesterov, **settings)

    def _draw_share(self) -> Tensor:
        """Draw how much of the next step's images is their own; see `blend_share`."""
        draws = np.random.default_rng(derive_seed(self.seed, "blends", self.steps_done))
        recipe, shape = self.recipe, tuple(self.images.images.shape[1:])
        return blend_share(shape, mixup=recipe.mixup, cutmix=recipe.cutmix, draws=draws)

    def use_less_memory(self) -> bool:
        """Use less memory from the next step on, by the same mathematics; False if impossible.

        Batches are halved, and gradients add up. Batch norm takes its statistics over the whole
        batch, so with it activations move to the host's memory instead, where that is another.
        """
        norms = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
        whole = any(isinstance(module, norms) for module in self.model.modules())
        self.update = None
        if not whole and 2 * self.micro_batches <= self.batch_size:
            self.micro_batches *= 2
            return True
        if whole and not self.offload and self.device.type != "cpu":
            self.offload = True
            return True
        return False

    def run_epoch(self, number: int) -> None:
        """Take one pass over the images, epochs counted from 1, and set `loss_sum` and `wrong`.

        The last, smaller batch is left out (its batch statistics are noisy), unless it is the
        only one.
        """
        self.model.train()
        self.loss_sum.zero_()
        self.wrong.zero_()
        # Drawn on the CPU, so that it is the same on all devices.
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "data order", number))
        order = torch.randperm(len(self.images), generator=generator).to(self.device)
        # What layers draw (dropout) follows from the seed, too, also after an interruption.
        with drawn_by(derive_seed(self.seed, "layers", number)):
            for batch in order[: self.steps_per_epoch * self.batch_size].split(self.batch_size):
                self.step(batch)

    def step(self, batch: Tensor) -> None:
        """Take one optimiser step on the images of these indices, (n,), on the device."""
        group, rate = self.optimizer.param_groups[0], self._rate(self.steps_done)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
        if self._share is not None:
            self._share.copy_(self._draw_share())
        moves = self._moves_after(self.steps_done + 1)
        # An eager step leaves its gradients, by which masks grow.
        (self.update_eagerly if moves else self.update or self.update_eagerly)(batch)
        if self._average:
            # It forgets faster at first, or the initial weights would stay in it for long.
            decay = min(self.recipe.weight_average, (1 + self.steps_done) / (10 + self.steps_done))
            torch._foreach_lerp_(self._average, [p.detach() for p in self.parameters], 1 - decay)
        self.steps_done += 1
        if moves:
            self._move()

    def _moves_after(self, steps: int) -> bool:
        """Tell whether masks move after so many steps."""
        if self.budget is None or steps > self._last_move:
            return False
        shrinks = self.recipe.moving.rule == "gradual_magnitude"
        return steps % self.recipe.moving.every == 0 or (shrinks and steps == self._last_move)

    @torch.no_grad()
    def _move(self) -> None:
        moving, model, masks, steps = self.recipe.moving, self.model, self.masks, self.steps_done
        if moving.rule == "gradual_magnitude":
            assert self.budget is not None
            kept = kept_at(self._kept_first, self.budget, steps, self._last_move)
            self.moved += shrink_masks(model, masks, self.optimizer, kept=kept, scope=moving.scope)
        elif moving.rule != "static":
            # Without gradients to rank the run has diverged, which the end of the epoch tells.
            with suppress(NumericsError):
                self.moved += move_masks(
                    model,
                    masks,
                    self.optimizer,
                    rule=moving.rule,
                    fraction=moved_fraction(moving.fraction, steps, self._last_move),
                    scope=moving.scope,
                    seed=derive_seed(self.seed, "moves", steps),
                )
        self._keep_masks()

    def meet_budget(self) -> bool:
        """Drop what a run that ended early (its loss was not finite) keeps above its budget; tell
        whether there was anything."""
        dropped = 0
        if self.budget is not None and self.recipe.moving.rule == "gradual_magnitude":
            dropped = shrink_masks(self.model, self.masks, kept=self.budget)
        self.moved += dropped
        return dropped > 0

    def _keep_masks(self) -> None:
        """Bring what follows from the masks up to date, in place, for captured steps."""
        for name, keep in zip(self.masks, self._keep, strict=True):
            keep.copy_(self.masks[name])
        for name, average in zip(self._names, self._average, strict=False):
            if name in self.masks:
                average.mul_(self.masks[name])

    def update_eagerly(self, batch: Tensor) -> None:
        """Forward, backward, optimiser, masks: the part of a step that may be captured."""
        self.optimizer.zero_grad()
        self._halves.update()
        task = self.images.task
        # The whole batch, so that random shifts do not depend on the number of parts.
        images, targets = self.inputs_of(batch), self.images.labels[batch]
        others, share = targets, self._share
        if share is not None:
            images, others = images.flip(0).lerp_(images, share), targets.flip(0)
        for inputs, labels, other_labels in zip(
            *(part.tensor_split(self.micro_batches) for part in (images, targets, others)),
            strict=True,
        ):
            keeper = torch.autograd.graph.save_on_cpu() if self.offload else nullcontext()
            batch_of_norms, halves = counted_at_once(self._norms), self._halves.in_place()
            with autocast(self.precision, self.device), keeper, batch_of_norms, halves:
                logits = self.model(inputs)
            if not isinstance(logits, Tensor):
                raise InputError(
                    "a network of a study must return one tensor in training, too, but returned "
                    f"{type(logits).__name__}; leave out what it adds there (aux_logits: false)"
                )
            smoothing = self.recipe.label_smoothing
            loss = task.mean_loss(logits.float(), labels, label_smoothing=smoothing)
            if share is not None:
                other = task.mean_loss(logits.float(), other_labels, label_smoothing=smoothing)
                loss = torch.lerp(other, loss, share.mean())
            if self.micro_batches > 1:
                loss = loss * (len(labels) / len(batch))
            loss.backward()
            self._halves.hand_over_gradients()
            self.loss_sum += loss.detach()
            if task.metric == "error":
                self.wrong += (logits.detach().argmax(1) != labels).sum()
        if self.recipe.max_gradient_norm is not None:
            self._clip_gradients(self.recipe.max_gradient_norm)
        self.optimizer.step()
        if self._pruned:
            with torch.no_grad():
                torch._foreach_mul_(self._pruned, self._keep)

    def _clip_gradients(self, most: float) -> None:
        """Scale gradients down to a norm, that of the sparse network's: without pruned weights."""
        keep = dict(zip(map(id, self._pruned), self._keep, strict=True))
        gradients: list[Tensor] = []
        for parameter in self.parameters:
            if (gradient := parameter.grad) is not None:
                mask = keep.get(id(parameter))
                gradients.append(gradient if mask is None else gradient * mask)
        norm = nn.utils.get_total_norm(gradients)
        nn.utils.clip_grads_with_norm_(self.parameters, most, norm)

    def inputs_of(self, indices: Tensor) -> Tensor:
        """Augment and normalise the images of these indices, (n,), for a step."""
        if self._normalized is not None:
            chosen = self._normalized.index_select(0, indices)
            return chosen.permute(0, 3, 1, 2) if self._images else chosen
        recipe = self.recipe
        raw = augment(
            self.images.images[indices],
            flip=recipe.flip,
            translate=recipe.translate,
            cutout=recipe.cutout,
            generator=self.generator,
        )
        return self.images.normalize(raw)

    @torch.no_grad()
    def swap_average(self) -> None:
        """Exchange the weights and their moving average, if there is one."""
        for parameter, average in zip(self.parameters, self._average, strict=False):
            held = parameter.clone()
            parameter.copy_(average)
            average.copy_(held)

    def state(self) -> State:
        """Copy all that changes: weights, buffers, momentum, average, generator.

        On the device, which is not waited for; see `pack`.
        """
        state = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}
        state["generator"] = self.generator.get_state()
        state["steps_done"] = torch.tensor(self.steps_done)
        if self.budget is not None:
            state["moved"] = torch.tensor(self.moved)
        return state

    def pack(self, state: State) -> State:
        """Copy a state to the host, as a checkpoint has it.

        Where masks stay, a pruned parameter has only its kept values, (kept,), in the order of its
        mask: its pruned weights are zero, and their momentum has no effect. Where they move, they
        are in the state.
        """
        return {
            name: (tensor if (mask := self._where.get(name)) is None else tensor[mask]).cpu()
            for name, tensor in state.items()
        }

    def unpack(self, packed: State) -> State:
        """Return the state that was packed, with zeros for what is pruned; `restore` takes it."""
        state = dict(packed)
        for name in self._where.keys() & packed.keys():
            mask, kept = self._where[name], packed[name]
            state[name] = torch.zeros(mask.shape, dtype=kept.dtype, device=mask.device)
            state[name][mask] = kept.to(mask.device)
        return state

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Restore a `state`, in place.

        Raises:
            KeyError, RuntimeError: the state belongs to another network or recipe.
        """
        names = (
            ("exp_avg", "exp_avg_sq") if self.recipe.optimizer == "adamw" else ("momentum_buffer",)
        )
        for parameter in self.parameters:
            held = self.optimizer.state[parameter]
            for name in names:
                if held.get(name) is None:
                    held[name] = torch.zeros_like(parameter)
            if "exp_avg" in names and "step" not in held:
                held["step"] = torch.zeros((), device=parameter.device)
        if self.budget is not None:
            for name, moving in self.masks.items():
                moving.copy_(state[f"mask/{name}"])
            self.moved = int(state["moved"])
            self._keep_masks()
        # In place, for captured steps. A first step with zero momentum equals one without any.
        for key, tensor in self._tensors().items():
            if key.split("/")[0] in MEMORY and key not in state:
                tensor.zero_()
            else:
                tensor.copy_(state[key])
        self.generator.set_state(state["generator"])
        self.steps_done = int(state["steps_done"])

    def _tensors(self) -> State:
        """Collect the tensors that change: the model's, and those there are of each parameter."""
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, parameter in enumerate(self.parameters):
            held = self.optimizer.state[parameter]
            tensors |= {
                f"{name}/{index}": held[key]
                for name, key in MEMORY.items()
                if held.get(key) is not None
            }
        if self.budget is not None:
            tensors |= {f"mask/{name}": mask for name, mask in self.masks.items()}
        return tensors | {f"average/{index}": tensor for index, tensor in enumerate(self._average)}
