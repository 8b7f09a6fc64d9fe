"""Criteria. Each file registers one, as a function

    criterion(model, batches, generator, *, option=default, ...) -> scores

- `model`: any module with conv or linear layers, at its initial weights; left as it was.
- `batches`: a function that starts a new pass over (inputs, labels) each time it is called.
- `generator`: a CPU generator, for criteria that draw.
- `scores`: one tensor per parameter of `prunable_parameters(model)`, of the same shape, by
  name. **Higher = keep**, always.

The keyword-only parameters are the options that a study may set.
"""

from collections.abc import Callable, Iterable

from torch import Tensor

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Starts a pass over (inputs (N, ...) float32, labels (N,) int64)."""
