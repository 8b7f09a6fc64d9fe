"""Network families. Each file registers one, as a function

    family(channels, classes, *, option=default, ...) -> torch.nn.Module

whose keyword-only parameters are the options that a study or a search space may set.
A family builds the *structure*; its weights are drawn later, by an initializer.
"""
