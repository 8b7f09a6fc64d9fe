"""Training recipe of the base and the candidates of a study."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from sculpt.config.sections import Epochs, Fraction, Pixels, Section

RECIPES: dict[str, dict[str, float | str]] = {
    # Lee et al. 2020, §5 and appendix: 100k iterations of 128 images, of 45,000; evaluated
    # every 1k iterations. The rate falls by 10 at each quarter (every 25k).
    "paper_cifar10": {
        "epochs": 285,
        "evaluate_every": 3,
        "batch_size": 128,
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "step",
        "flip": True,
        "translate": 4,
    },
    # The same for MNIST: 80k iterations of 100 images, of 54,000; not augmented.
    "paper_mnist": {
        "epochs": 148,
        "evaluate_every": 2,
        "batch_size": 100,
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "step",
        "precision": "float32",
    },
    # For searching: about a tenth of the paper's epochs.
    "short": {
        "epochs": 30,
        "batch_size": 128,
        "learning_rate": 0.2,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "schedule": "one_cycle",
        "label_smoothing": 0.1,
        "flip": True,
        "translate": 4,
    },
    # For a result: four times as long, with what has become usual since the paper.
    "strong": {
        "epochs": 120,
        "evaluate_every": 5,
        "batch_size": 128,
        "learning_rate": 0.2,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "schedule": "cosine",
        "warm_up": 0.05,
        "label_smoothing": 0.1,
        "flip": True,
        "translate": 4,
        "mixup": 0.2,
        "weight_average": 0.999,
    },
}
"""Named values for the keys of `training` that a study omits."""


def _unless(default: object) -> Any:
    """Leave a later setting out of documents where it has no effect, as those before it did."""
    return Field(exclude_if=lambda value: value == default)


class Moving(Section):
    """Masks of candidates that move while they train; see `sculpt.pruning.moving`."""

    rule: Literal["static", "rigl", "set", "gradual_magnitude"]
    """`static` masks do not move. `rigl` and `set` drop the smallest kept weights and grow as many,
    by gradient or at random; the budget holds at every step. `gradual_magnitude` begins dense,
    without scores or repair, and drops the smallest weights until the budget is met."""
    fraction: Fraction = 0.3
    """Share of kept weights that `rigl` and `set` move at first; falls to 0 by half a cosine."""
    every: Annotated[int, Field(ge=1, le=10**9)] = 100
    """Steps between two moves."""
    until: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Share of the steps after which masks stay."""
    scope: Literal["layer", "global"] = "layer"
    """`layer`: parameters keep their numbers of weights (`gradual_magnitude`: have one density);
    `global`: magnitudes and gradients are compared across the network."""


STATIC = Moving(rule="static")


class Training(Section):
    """The recipe, shared by base and candidates."""

    recipe: Literal["paper_cifar10", "paper_mnist", "short", "strong"] | None = None
    """Values for omitted keys (`RECIPES`), in place of the defaults below."""
    epochs: Annotated[int, Field(ge=0, le=100_000)]
    """0 trains nothing, for studies of networks before training."""
    evaluate_every: Epochs = 1
    """Epochs between two evaluations; the last epoch is always evaluated."""
    protocol: Literal["validation", "lowest_test"] = "validation"
    """`validation` never reads the test images. `lowest_test` reports the lowest test error of all
    evaluations, as Lee et al. 2020 do: only for comparing with published figures."""
    batch_size: Annotated[int, Field(ge=2, le=10**9)] = 128
    learning_rate: Annotated[float, Field(gt=0, le=1e30)] = 0.1
    optimizer: Annotated[Literal["sgd", "adamw"], _unless("sgd")] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD, or the first beta of AdamW, whose second is 0.999."""
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 5e-4
    schedule: Literal["step", "one_cycle", "cosine", "constant"] = "step"
    """`step`: divided by 10 at each quarter of the run, as in the paper."""
    warm_up: Annotated[float, Field(ge=0, lt=1), _unless(0)] = 0.0
    """Share of the steps over which the rate first rises; `one_cycle` has a rise of its own."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_gradient_norm: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Longer gradients (2-norm over all weights) are scaled down to this."""
    weight_average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of an exponential moving average of the weights, which is evaluated and kept
    in their place; 0 is without. It forgets faster at first."""
    flip: bool = False
    translate: Pixels = 0
    """Random shifts by up to this many pixels, fewer than the image has."""
    cutout: Pixels = 0
    """Side of the erased square in pixels, within the image; 0 = none."""
    mixup: Annotated[float, Field(ge=0, le=100), _unless(0)] = 0.0
    """α: each batch is blended with itself in reverse order by a share from Beta(α, α), and so are
    the losses (Zhang et al. 2018); 0 = never."""
    cutmix: Annotated[float, Field(ge=0, le=100), _unless(0)] = 0.0
    """α: a rectangle, of a share from Beta(α, α), comes from the other image (Yun et al. 2019);
    0 = never. With both, each batch takes either, by chance."""
    precision: Literal["auto", "bfloat16", "tf32", "float32"] = "auto"
    """Precision of matrix products and convolutions; weights stay float32. `auto` is bfloat16 on
    devices with native support, else float32. `tf32` exists on CUDA alone."""
    compact: bool = True
    """Train without channels on no path, where that saves work and masks do not move; the network
    is the same."""
    moving: Annotated[Moving, Field(exclude_if=lambda moving: moving == STATIC)] = STATIC
    """Whether and how the masks of candidates move; by default they do not."""

    @model_validator(mode="wrap")
    @classmethod
    def _fill_from_recipe(cls, given: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        known = RECIPES.get(str(given.get("recipe")), {}) if isinstance(given, dict) else {}
        filled = validate(known | given if known else given)
        if known:
            # Values of the recipe stay unset, so that another recipe can replace them.
            filled.model_fields_set.intersection_update(given)
        return filled
