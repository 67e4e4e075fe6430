"""Real sentences without any file: what the docstrings of two installed packages begin with.

Which of the two a sentence comes from is the class. It is a small task of text that is always there, for
examples and tests; a result on it says little about sentences elsewhere.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from paretobit.data.raw import RawData
from paretobit.data.text import from_parts
from paretobit.errors import BadInput

PACKAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "scikit-learn": ("sklearn", ("",)),
    "torch": ("torch", ("nn", "optim", "distributions", "utils")),
}
"""Class, which is the distribution, to the package and those of its folders that are read."""
FEWEST_WORDS = 3
_NAMES = re.compile(r"(?:scikit[- ]?learn|scikit|sklearn|(?:py)?torch)[._]?", re.IGNORECASE)
_ROLE = re.compile(r":[a-z:]+:(?=`)")
_MARKS = re.compile(r"[`~*\\]")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def read_docstrings() -> RawData:
    """Sentences and the package each is from: the same for the same versions of the packages.

    Of every public class, function and method in the packages' sources the first sentence of its docstring,
    without the packages' names and without markup. Equal sentences count once; those of both packages, and
    those of fewer than three words, are left out. Nothing is imported: the sources are parsed.

    Raises:
        BadInput: A package comes without its sources.
    """
    found = {name: _sentences(package, folders) for name, (package, folders) in PACKAGES.items()}
    common = set.intersection(*map(set, found.values()))
    pairs = [(text, name) for name, texts in found.items() for text in texts if text not in common]
    texts, labels = zip(*pairs, strict=True)
    versions = {name: version(name) for name in PACKAGES}
    return from_parts({"train": (texts, labels)}, "docstrings", tuple(PACKAGES), {"versions": versions})


def first_sentence(docstring: str) -> str:
    """What a docstring begins with, on one line, without markup and the packages' names.

    >>> first_sentence("Apply a :class:`~torch.nn.ReLU` to it.  More\\n\\nArgs:")
    'Apply a nn.ReLU to it.'
    """
    paragraph = " ".join(docstring.strip().split("\n\n")[0].split())
    plain = _NAMES.sub("", _MARKS.sub("", _ROLE.sub("", paragraph)))
    return " ".join(_SENTENCE.split(plain)[0].split())


@cache
def _sentences(package: str, folders: tuple[str, ...]) -> tuple[str, ...]:
    """Each once, in the order of the files."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise BadInput("the package comes without its sources", key="data.name", found=package)
    root = Path(spec.origin).parent
    files = (file for folder in folders for file in sorted((root / folder).rglob("*.py")))
    tests = ("test", "_test")
    read = (f for f in files if not any(part.startswith(tests) for part in f.relative_to(root).parts))
    texts = [text for file in read for text in _of_file(file)]
    if not texts:
        raise BadInput("the package comes without its sources", key="data.name", found=str(root))
    return tuple(dict.fromkeys(texts))


def _of_file(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
            text = first_sentence(ast.get_docstring(node) or "")
            if len(text.split()) >= FEWEST_WORDS:
                yield text
