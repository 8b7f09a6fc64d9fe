"""What a kernel or an operator is for, told from its name."""

import re

CONVOLUTION = "convolution and matmul"
NORM = "batch norm"
ELEMENTWISE = "elementwise"
OPTIMIZER = "optimiser and masks"
AUGMENTATION = "augmentation"
COPIES = "copies and casts"
OTHER = "other"

CLASSES = (CONVOLUTION, NORM, ELEMENTWISE, OPTIMIZER, AUGMENTATION, COPIES, OTHER)

# The first that fits counts. Names of CUDA kernels first, then those of operators (aten::).
_PATTERNS = [
    (OPTIMIZER, r"multi_tensor_apply|_foreach_|fused_sgd|Optimizer\."),
    (
        NORM,
        r"(batch|instance)_?norm|\bbn_(fw|bw)|cudnn::bn|nhwc_?bn|bnorm|welford",
    ),
    # A compiler's kernels are named after all that was fused into them.
    (ELEMENTWISE, r"^triton_(poi|per|red)"),
    # Before convolutions, whose libraries change layouts by kernels of their own.
    (
        COPIES,
        r"^mem(cpy|set)|nchwToNhwc|nhwcToNchw|copy_kernel|CatArray|convertTensor|transposeNC"
        r"|aten::(copy_|_?to_copy|to|contiguous|clone|cat|constant_pad_nd|pad|fill_|zero_)$"
        r"|ToCopyBackward|FillFunctor",
    ),
    (
        CONVOLUTION,
        r"gemm|gemv|conv(?!ert)|xmma|cutlass|nvjet|cublas|[wd]grad|fprop|winograd|splitk|cask"
        r"|aten::(addmm|mm|bmm|matmul|linear)$|AddmmBackward|MmBackward|triton_tem",
    ),
    (
        AUGMENTATION,
        r"random|distribution|philox|scatter_gather|gather|index|masked_fill|arange"
        r"|aten::randint",
    ),
    (
        ELEMENTWISE,
        r"elementwise|threshold|aten::(add|sub|mul|div|relu|clamp\w*|where|lerp|ne|eq"
        r"|lt|ge|bitwise_\w+|neg|sqrt|threshold_backward)_?$",
    ),
]
_COMPILED = [(kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _PATTERNS]


def classify(name: str) -> str:
    """Return one of `CLASSES` for the name of a CUDA kernel, of a copy, or of an operator.

    A name says what a kernel does, not what for: the arithmetic that places random shifts, or
    normalises images, is `elementwise`.
    """
    for kind, pattern in _COMPILED:
        if pattern.search(name):
            return kind
    return OTHER
