"""How the base and the candidates of a study are trained."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from sculpt.config.sections import Section
from sculpt.recipes import RECIPES


class Training(Section):
    """The recipe, shared by base and candidates."""

    recipe: Literal["paper_cifar10", "paper_mnist", "short"] | None = None
    """Gives the keys that are left out other values than the ones below (sculpt/recipes.py)."""
    epochs: Annotated[int, Field(ge=0)]
    """0 trains nothing: the study is about what can be read before training."""
    evaluate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between two evaluations; the last epoch is always evaluated."""
    protocol: Literal["validation", "lowest_test"] = "validation"
    """`validation` never reads the test images. `lowest_test` reports the lowest test error of
    all evaluations, as Lee et al. 2020 do: for comparing with published figures only."""
    batch_size: Annotated[int, Field(ge=2)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["step", "one_cycle", "constant"] = "step"
    """`step`: divided by 10 at each quarter of the run, as in the paper."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_gradient_norm: Annotated[float, Field(gt=0)] | None = None
    """Longer gradients (2-norm over all weights) are scaled down to this."""
    weight_average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of an exponential moving average of the weights, which is what is evaluated
    and kept; 0 keeps the weights themselves. At first it forgets faster."""
    flip: bool = False
    translate: Annotated[int, Field(ge=0)] = 0
    """Random shifts by up to this many pixels."""
    cutout: Annotated[int, Field(ge=0)] = 0
    """Side of the square that is erased, in pixels; 0 = none."""
    precision: Literal["auto", "bfloat16", "tf32", "float32"] = "auto"
    """Of matrix products and convolutions; weights stay float32. `auto` is bfloat16 where the
    device computes with it natively, else float32. `tf32` exists on CUDA alone."""
    compact: bool = True
    """Train without the channels that no path uses, where that saves work; the same network."""

    @model_validator(mode="wrap")
    @classmethod
    def _fill_from_recipe(cls, given: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        known = RECIPES.get(str(given.get("recipe")), {}) if isinstance(given, dict) else {}
        filled = validate(known | given if known else given)
        if known:
            # What the recipe gave stays unset, so that another recipe can take its place.
            filled.model_fields_set.intersection_update(given)
        return filled
