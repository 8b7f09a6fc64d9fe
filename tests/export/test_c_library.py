"""A compiled network takes images and refuses what does not fit; a compiler is found, or named."""

import ctypes
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from c_libraries import built, error_of, images_for, small

from sculpt.errors import InputError
from sculpt.export.c_code.generate import FORMAT, c_code
from sculpt.export.c_code.library import (
    ALIGNMENT,
    COMPILERS,
    CLibrary,
    compile_library,
    find_compiler,
)

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)), reason="there is no C compiler on this machine"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("libraries")


@pytest.fixture(scope="module")
def library(folder):
    return built(small(), folder)


def test_threads_do_not_change_a_bit(library):
    images = images_for(small(), 70).numpy()
    expected = library.run(images)
    for threads in (2, 3, 100):
        assert np.array_equal(library.run(images, threads=threads), expected)


def test_what_is_no_number_stays_so_and_spoils_no_other_image(library):
    images = images_for(small(), 35)
    expected = library.run(images.numpy())
    images[17, 0, 3, 3] = torch.nan
    found = library.run(images.numpy())
    assert np.isnan(found[17]).all()
    kept = np.arange(35) != 17
    assert np.array_equal(found[kept], expected[kept])


def test_callers_do_not_disturb_each_other(library):
    batches = [images_for(small(), batch).numpy() for batch in range(1, 40)]
    expected = [library.run(images) for images in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(library.run, batches))
    assert all(map(np.array_equal, found, expected))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"images": None}, -1),
        ({"logits": None}, -1),
        ({"workspace": None}, -1),
        ({"batch": 0}, -2),
        ({"batch": -3}, -2),
        ({"threads": 0}, -3),
        ({"shift": 4}, -4),
        ({"less": 1}, -5),
    ],
)
def test_wrong_arguments_have_a_code(change, code, library):
    binary = library._library
    images, logits = images_for(small(), 2).numpy(), np.full((2, 4), 7, np.float32)
    size = binary.sculpt_workspace_bytes(2, 1)
    memory = np.zeros(size + 2 * ALIGNMENT, np.uint8)
    begin = memory.ctypes.data + -memory.ctypes.data % ALIGNMENT + change.get("shift", 0)
    found = binary.sculpt_run(
        change.get("images", images.ctypes.data),
        change.get("batch", 2),
        change.get("logits", logits.ctypes.data),
        ctypes.c_void_p(change.get("workspace", begin)),
        size - change.get("less", 0),
        change.get("threads", 1),
    )
    assert found == code
    assert (logits == 7).all()
    assert binary.sculpt_workspace_bytes(0, 1) == binary.sculpt_workspace_bytes(1, 0) == 0


@pytest.mark.parametrize(
    ("images", "threads"),
    [
        (np.zeros((2, 3, 8, 8)), 1),  # float64
        (np.zeros((2, 3, 8, 9), np.float32), 1),
        (np.zeros((3, 8, 8), np.float32), 1),
        (np.zeros((0, 3, 8, 8), np.float32), 1),
        (np.zeros((2, 3, 8, 8), np.float32), 0),
    ],
)
def test_wrong_images_are_refused(images, threads, library):
    with pytest.raises(InputError, match="must be"):
        library.run(images, threads=threads)


def test_images_in_any_order_of_memory(library):
    images = images_for(small(), 5)
    other = images.to(memory_format=torch.channels_last).numpy()
    assert not other.flags.c_contiguous
    assert np.array_equal(library.run(other), library.run(images.numpy()))


def test_info_is_exact(folder):
    program = small()
    source, compiled = folder / "named.c", folder / "named.so"
    source.write_text(c_code(program, name='a "b" */ \\ ??/ ü %s'))
    info = CLibrary(compile_library(source, compiled)).info
    layers = list(program.layers())
    assert info == {
        "format": FORMAT,
        "name": "a _b_ __ _ ___ _ _s",
        "input_shape": [3, 8, 8],
        "classes": 4,
        "parameters": sum(layer.weight.size + layer.bias.size for layer in layers),
        "nonzero_weights": sum(np.count_nonzero(layer.weight) for layer in layers),
        "macs": program.macs(dense=False),
    }


def test_no_compiler(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler -m64")
    with pytest.raises(InputError, match=r"\$CC must be .*'no-such-compiler -m64'"):
        find_compiler()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="a C compiler is needed"):
        find_compiler()


def test_a_compiler_with_options_of_its_own(monkeypatch, folder):
    command = [*find_compiler(), "-DSCULPT_PLAIN"]
    monkeypatch.setenv("CC", " ".join(command))
    assert find_compiler() == command
    assert error_of(small(), built(small(), folder), 2) < 1e-5


def test_other_files_are_refused(tmp_path):
    source = tmp_path / "other.c"
    source.write_text("int main(void) { return nothing; }")
    with pytest.raises(InputError, match=r"other\.c: must be a C file"):
        compile_library(source, tmp_path / "other.so")
    with pytest.raises(InputError, match=r"other\.c: must be a shared library"):
        CLibrary(source)
    source.write_text("int other(void) { return 1; }")
    foreign = compile_library(source, tmp_path / "foreign.so")
    with pytest.raises(InputError, match=r"foreign\.so: must be a shared library"):
        CLibrary(foreign)
