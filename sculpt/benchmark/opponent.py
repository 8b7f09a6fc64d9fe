"""The standard loop in a process of its own, idle until it is told to run.

Of its own, because a study changes settings of its process (of the memory allocator, of torch)
that a user's loop would not have.
"""

import copy
import multiprocessing
import pickle
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import torch
from torch import nn

from sculpt.benchmark.standard_loop import train_standard
from sculpt.config import Training
from sculpt.data import Splits
from sculpt.errors import SculptError
from sculpt.pruning.masks import Masks


class Opponent:
    """A process that trains what it was given by the standard loop, whenever it is told to.

    with Opponent() as opponent:
        opponent.prepare(model, masks, splits, recipe)
        opponent.images_per_second()
    """

    def __enter__(self) -> "Opponent":
        # Spawned: a forked process would share the settings, and could not use a GPU.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        # No daemon, because those may not start loader processes.
        self._process = context.Process(target=_serve, args=(theirs,))
        self._process.start()
        theirs.close()
        self._receive()  # it has imported what it needs, and disturbs nobody from here on
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # It ends when nobody is left to tell it anything.
        self._connection.close()
        self._process.join()

    def prepare(self, model: nn.Module, masks: Masks, splits: Splits, recipe: Training) -> None:
        """Hand over what is to be trained from now on.

        Args:
            model:
                With the weights to start from.
            masks:
                Keyed by parameter name.
            splits:
                `train` is trained on, `validation` evaluated; on the device to train on.
            recipe:
                One epoch for warming up, and then as many as are to be measured.
        """
        device, local = splits.train.device, splits.to("cpu")
        given = (
            # As it would be without sculpt: channels first.
            copy.deepcopy(model).to("cpu").to(memory_format=torch.contiguous_format),
            {name: mask.cpu() for name, mask in masks.items()},
            local.train,
            local.validation,
            recipe,
        )
        # As bytes, because torch would hand over tensors by sharing our memory.
        self._send((given, str(device)))

    def images_per_second(self) -> float:
        """Train once, and return the rate of the last epoch, the whole data path included."""
        return self._send(None)

    def _send(self, message: Any) -> Any:
        self._connection.send_bytes(pickle.dumps(message))
        return self._receive()

    def _receive(self) -> Any:
        try:
            return pickle.loads(self._connection.recv_bytes())
        except EOFError as error:
            raise SculptError(
                "the standard loop must run to its end, but its process stopped; what it printed "
                "says why"
            ) from error


def _serve(connection: Connection) -> None:
    """Answer until the other end is closed: a tuple is what to train, None is the word to run."""
    answer: float | None = None
    while True:
        try:
            connection.send_bytes(pickle.dumps(answer))
            message = pickle.loads(connection.recv_bytes())
        except (EOFError, BrokenPipeError, KeyboardInterrupt):
            return
        answer = None
        if message is not None:
            given, device = message
        else:
            answer = train_standard(*given, device=device)[-1].images_per_second
