"""A trained sparse network as a smaller one of PyTorch's own layers that computes the same."""

from torch import Tensor, fx, nn

from sculpt.export.condensing import condense
from sculpt.export.evaluation import certify, to_module
from sculpt.export.lowering import lower
from sculpt.pruning.masks import Masks


def compact(model: nn.Module, masks: Masks, example_inputs: Tensor) -> fx.GraphModule:
    """Return a smaller network that computes what a trained, masked one does.

    Channels that no path of kept weights uses are gone, and batch norms are part of the layers
    before them; among the weights that stay there are still zeros. No layer has more weights than
    it had: a channel stays where its convolution would fall out of its groups without it. It is for
    inference: float32, on the CPU, in eval mode. Before it is rounded to float32 it is compared
    with the network in float64, on the example inputs, to 1e-10 of the largest logit.

    Args:
        model: Trained, on any device; it is not changed. Its forward pass must be traceable by
            torch.fx and consist of convolutions, linear layers, batch norms, activations, pools,
            additions and flattening.
        masks: Keyed by parameter name.
        example_inputs: (N, ...), real images or noise.

    Returns:
        Layers of `torch.nn`, and a forward pass that calls them, from images (N, ...) to logits
        (N, classes).

    Raises:
        InputError: the masks do not fit the model.
        ExportError: the forward pass cannot be traced, has an operation that is not known, or
            what comes out would compute something else.
    """
    program = condense(lower(model, masks, example_inputs))
    certify(model, masks, program, example_inputs)
    return to_module(program)
