"""Numbers that must come out exactly, in one place, each with where it is from."""

# METHOD §3: ResNet20 under the rule `paper` (conv biases count, batch norm does not), and under
# the rule `total` without conv biases, with either shortcut.
RESNET20_PAPER = 269_034
RESNET20_TOTAL_ZEROPAD = 269_722
RESNET20_TOTAL_PROJECTION = 272_474

# Public counts of the CIFAR ResNets (zeropad, no conv bias, everything trainable), by blocks.
RESNET_TOTAL = {3: RESNET20_TOTAL_ZEROPAD, 5: 464_154, 7: 658_586, 9: 853_018, 18: 1_727_962}

# Under `paper`, version 2 has the convolutions of version 1; either with projections has two 1×1
# convolutions more. Under `total`, version 2 has as many batch norms, but none on a shortcut.
RESNET20_PAPER_PROJECTION = RESNET20_PAPER + (32 * 16 + 32) + (64 * 32 + 64)
assert RESNET20_PAPER_PROJECTION == 271_690
RESNET20_V2_TOTAL_ZEROPAD = RESNET20_TOTAL_ZEROPAD
RESNET20_V2_TOTAL_PROJECTION = RESNET20_TOTAL_PROJECTION - 2 * (32 + 64)
assert RESNET20_V2_TOTAL_PROJECTION == 272_282

# Public counts of wide residual networks (no conv bias, everything trainable), by (depth, k):
# 0.2, 0.6, 2.2, 11.0 and 36.5 million in Zagoruyko and Komodakis 2016.
WIDE_RESNET_TOTAL = {
    (16, 1): 175_066,
    (40, 1): 563_930,
    (40, 2): 2_243_546,
    (16, 8): 10_961_370,
    (28, 10): 36_479_194,
}

# By hand, for WRN-16-8 under `paper`: in · out · kernel² + out of each layer.
WIDE_RESNET_16_8_PAPER = (
    (3 * 16 * 9 + 16)  # stem
    + (16 * 128 * 9 + 128)
    + (16 * 128 + 128)  # projection
    + 3 * (128 * 128 * 9 + 128)
    + (128 * 256 * 9 + 256)
    + (128 * 256 + 256)
    + 3 * (256 * 256 * 9 + 256)
    + (256 * 512 * 9 + 512)
    + (256 * 512 + 512)
    + 3 * (512 * 512 * 9 + 512)
    + (512 * 10 + 10)  # classifier
)
assert WIDE_RESNET_16_8_PAPER == 10_958_666

# By hand for VGG16 under `paper`; 10.5 million is what Lee et al. 2019 (SNIP) give for VGG-C.
VGG16_PAPER = (
    (3 * 64 * 9 + 64)
    + (64 * 64 * 9 + 64)
    + (64 * 128 * 9 + 128)
    + (128 * 128 * 9 + 128)
    + (128 * 256 * 9 + 256)
    + (256 * 256 * 9 + 256)
    + (256 * 256 + 256)
    + (256 * 512 * 9 + 512)
    + 3 * (512 * 512 * 9 + 512)
    + 2 * (512 * 512 + 512)
    + 2 * (512 * 512 + 512)  # the classifier's hidden layers
    + (512 * 10 + 10)
)
assert VGG16_PAPER == 10_526_538

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
