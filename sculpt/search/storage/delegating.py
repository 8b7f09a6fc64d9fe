"""A storage of Optuna's that hands every call on to another one.

Composition, and not inheritance: Optuna uses what implements `BaseStorage` as it is, and calls
its public methods. One that Optuna adds is handed on, too. Type checkers do not see methods that
are made in a loop, and take subclasses for abstract.
"""

import abc
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from optuna.storages import BaseStorage

P = ParamSpec("P")
T = TypeVar("T")


class DelegatingStorage(BaseStorage):
    """Does what its backend does; subclasses say what they do otherwise.

    Args:
        backend: What every call is handed on to.
    """

    def __init__(self, backend: BaseStorage) -> None:
        self._backend = backend

    def _hand_on(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the backend."""
        return method(*args, **kwargs)


def _handing_on(name: str) -> Callable[..., object]:
    @wraps(getattr(BaseStorage, name), updated=())  # or it would be abstract, too
    def call(self: DelegatingStorage, *args: object, **kwargs: object) -> object:
        return self._hand_on(getattr(self._backend, name), *args, **kwargs)

    return call


for _name in BaseStorage.__abstractmethods__:
    setattr(DelegatingStorage, _name, _handing_on(_name))
abc.update_abstractmethods(DelegatingStorage)  # type: ignore[type-abstract]
