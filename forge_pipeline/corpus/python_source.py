"""What Python source says about its functions and classes, read from its syntax tree. Nothing is imported."""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

# The end of a sentence: a stop, then white space and no lower-case letter; "e.g. this" goes on.
_SENTENCE_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\bcf)[.!?](?=\s+[^a-z]|\s*$)")
_DOCTEST_OR_FIELD = re.compile(r"^\s*(>>>|:\w+|@\w+|\.\. )")
# At the start of a sentence: "Return a list of ...", "Returns the total".
_RETURN_PHRASE = re.compile(r"(?:^|[.!?]\s+|\n\s*)Returns?\s+(?:(?:an?|the)\s+)?([^.;:,\n]{2,80})")
_PHRASE_STOP = re.compile(r"\s+(?:of|for|from|that|which|with|where|when|if|in|on|as|by|to|containing|representing)\b")
_LITERALS = {"true": "bool", "false": "bool", "none": "None"}


@dataclass(frozen=True)
class Symbol:
    """A function, class or method. ``name`` is qualified inside its module ("JSONDecoder.decode")."""

    name: str
    kind: str
    signature: str
    returns: str
    documentation: str
    node: Definition

    @property
    def summary(self) -> str:
        return first_sentence(self.documentation)


def parse_module(source: str) -> ast.Module | None:
    """The syntax tree, or None if this interpreter's grammar does not accept the text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def symbols(tree: ast.Module) -> Iterator[Symbol]:
    """Functions, classes and their methods, in the order of the text; none that are local to a function."""
    yield from _symbols_in(tree.body, "")


def _symbols_in(body: list[ast.stmt], prefix: str) -> Iterator[Symbol]:
    for node in body:
        if isinstance(node, (ast.If, ast.Try)):
            # Definitions that depend on the platform are still definitions of the module.
            yield from _symbols_in(node.body, prefix)
            yield from _symbols_in(node.orelse, prefix)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield _function(node, prefix)
        elif isinstance(node, ast.ClassDef):
            name = prefix + node.name
            documentation = ast.get_docstring(node) or ""
            yield Symbol(name, "class", _class_signature(node), name, documentation, node)
            yield from _symbols_in(node.body, f"{name}.")


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, prefix: str) -> Symbol:
    documentation = ast.get_docstring(node) or ""
    annotation = ast.unparse(node.returns) if node.returns else ""
    signature = f"{node.name}({ast.unparse(node.args)})" + (f" -> {annotation}" if annotation else "")
    returns = annotation or return_phrase(documentation)
    return Symbol(prefix + node.name, "method" if prefix else "function", signature, returns, documentation, node)


def _class_signature(node: ast.ClassDef) -> str:
    arguments = [ast.unparse(argument) for argument in (*node.bases, *node.keywords)]
    return f"{node.name}({', '.join(arguments)})" if arguments else node.name


def first_sentence(text: str, longest: int = 300) -> str:
    """The first sentence of a docstring or paragraph on one line; "" if it starts with something else.

    A first line that repeats the signature ("loads(s) -> object") is passed over, as in docstrings of C functions.
    """
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        lines = paragraph.strip().splitlines()
        if lines and re.match(r"^[\w.]+\(.*\)\s*(->|--|$)", lines[0]):
            lines = lines[1:]
        if not lines or _DOCTEST_OR_FIELD.match(lines[0]):
            continue
        line = " ".join(" ".join(lines).split())
        end = _SENTENCE_END.search(line)
        sentence = line[: end.end()] if end else line
        return sentence if len(sentence) <= longest else sentence[:longest].rsplit(" ", 1)[0] + " ..."
    return ""


def return_phrase(documentation: str) -> str:
    """A short phrase for what is returned, taken from a sentence "Return(s) ..."; "" if there is none."""
    match = _RETURN_PHRASE.search(documentation)
    if not match:
        return ""
    phrase = " ".join(match[1].split())
    first_word = phrase.split(" ")[0].strip("`'\"").lower()
    if first_word in _LITERALS:
        return _LITERALS[first_word]
    words = _PHRASE_STOP.split(phrase, maxsplit=1)[0].split(" ")
    return " ".join(words[:5])


def module_name(path: str) -> str:
    """The dotted name of the module in ``path`` (relative, POSIX): "json/decoder.py" is json.decoder."""
    return re.sub(r"(/__init__)?\.pyi?$", "", path).replace("/", ".")
