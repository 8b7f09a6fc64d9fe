"""Training recipes by name: values for the keys of `training` that a study leaves out."""

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
}
