"""What the code says of its fields and arguments, for whoever shows it elsewhere."""

import ast
import inspect
import re
import textwrap
from itertools import pairwise


def said_of(kind: type) -> dict[str, str]:
    """Read the docstrings below the fields of a class, those of its bases included."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("sculpt"):
            tree = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
            body = tree.body if isinstance(tree, ast.ClassDef) else []
            for field, text in pairwise(body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    found[ast.unparse(field.target)] = ast.literal_eval(text.value)
    return found


def arguments_in(docstring: str) -> dict[str, str]:
    """Read the section `Args:` of a docstring."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)+)", docstring, flags=re.MULTILINE)
    entries = re.split(r"^    (?=\S)", section[1] if section else "", flags=re.MULTILINE)
    split = (entry.partition(":") for entry in entries)
    return {name: text for names, _, text in split for name in names.split(", ")}
