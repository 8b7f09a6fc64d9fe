"""Criteria. Each file registers one, as a function

    criterion(model, task, *, option=default, ...) -> scores

- `model`: any module with conv or linear layers, at the weights to be scored; left as it was.
- `task`: a `sculpt.pruning.task.PruningTask`. `task.batches()` starts a new pass over
  (inputs, labels); inputs may be several, which `call(model, inputs)` gives to the network, and
  `logits_of` finds its logits. `make_loss` is the loss that is scored, the user's or another.
  `task.generator` is for criteria that draw, `task.kept` is how many weights
  will stay, and `task.select(scores, kept)` masks in between, for criteria that work in rounds.
- `scores`: one tensor per parameter of `prunable_parameters(model)`, of the same shape, by
  name. Never negative, **higher = keep**. Exactly 0 means no information: zeros are never kept
  to fill a budget. A criterion that chooses a whole mask by itself scores exactly `task.kept`
  weights and leaves the others at 0.

The keyword-only parameters are the options that a study may set; one without a default must be.
"""
