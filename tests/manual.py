"""What is written for people, as tests read it: README, CONTRIBUTING, and the pages of docs/."""

import importlib.util
import re
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def pages() -> dict[str, str]:
    """README and the documentation, by path."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in found}


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def block(language: str, holding: str) -> str:
    """The one block of all pages that holds a text."""
    (found,) = (
        block for text in pages().values() for block in blocks(language, text) if holding in block
    )
    return found


def readable_links(name: str) -> list[str]:
    """The files that a page links to, whose text is Markdown."""
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[\w.-]+)?\)", text_of(name))
    return [target for target in targets if "://" not in target]


@cache
def made_from_code() -> ModuleType:
    """The module whose functions make pages of the reference."""
    found = importlib.util.spec_from_file_location("generated", ROOT / "docs" / "generated.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
