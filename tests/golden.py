"""Numbers that must come out exactly, in one place, each with where it is from."""

# METHOD §3: ResNet20 under the rule `paper` (conv biases count, batch norm does not), and under
# the rule `total` without conv biases, with either shortcut.
RESNET20_PAPER = 269_034
RESNET20_TOTAL_ZEROPAD = 269_722
RESNET20_TOTAL_PROJECTION = 272_474

# Public counts of the CIFAR ResNets (zeropad, no conv bias, everything trainable), by blocks.
RESNET_TOTAL = {3: RESNET20_TOTAL_ZEROPAD, 5: 464_154, 7: 658_586, 9: 853_018, 18: 1_727_962}

# METHOD §3: percent removed when ResNet(k, n) is pruned to 269,034 parameters, by (k, n).
SPARSITY_AT_RESNET20 = {(2, 3): 74.80, (4, 3): 93.68, (8, 3): 98.42, (2, 2): 60.44}

# By hand, for 3×32×32 images: out · in · 9 weights times the output's pixels.
RESNET20_MACS = (
    16 * 3 * 9 * 32**2  # stem
    + 6 * 16 * 16 * 9 * 32**2
    + 32 * 16 * 9 * 16**2
    + 5 * 32 * 32 * 9 * 16**2
    + 64 * 32 * 9 * 8**2
    + 5 * 64 * 64 * 9 * 8**2
    + 10 * 64  # classifier
)
assert RESNET20_MACS == 40_551_040

# METHOD §5 and reference/README: what the authors' code kept, and how far it can be met.
REFERENCE_MLP = {"parameters": 130_010, "kept": 13_001}
REFERENCE_RESNET32 = {"parameters": 463_018, "kept": 46_302}
REFERENCE_RESNET32_AGREEMENT = 0.9999  # measured: all but 1 of 46,302
REFERENCE_RESNET32_AGREEMENT_SYMMETRIC_PADDING = 0.963
REFERENCE_RESNET32_AGREEMENT_TRAINING_MODE = 0.38
