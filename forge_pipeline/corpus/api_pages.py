"""Reference pages of the standard library, written from its source text: HTML for some modules, JSONL for others.

They are a corpus's structured source on a machine that has nothing else. The same interpreter gives the same bytes.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import sys
import sysconfig
from pathlib import Path

from forge_pipeline.corpus.python_source import Symbol, module_name, parse_module, symbols

CODE_VERSION = "1"
# Hidden, so that no listing takes it for a page.
INDEX = ".pages.json"
# Not the library itself: tests, demonstrations, tools, and data written as Python.
_LEFT_OUT = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "pydoc_data", "site-packages", "encodings"}
)


def write_api_pages(folder: Path, most_bytes: int) -> dict[str, str]:
    """Write pages below ``folder`` until they hold about ``most_bytes``, and remove those no longer made.

    Returns, by the page's path relative to ``folder``, the SHA-256 of the source file it describes. Does nothing
    if the library's files are, by name, size and time of change, those that the pages were made from.
    """
    library = Path(sysconfig.get_path("stdlib"))
    modules = _public_modules(library)
    key = _key(library, modules, most_bytes)
    index = folder / INDEX
    if index.exists():
        known = json.loads(index.read_text(encoding="utf-8"))
        if known["key"] == key and all((folder / page).exists() for page in known["pages"]):
            return dict(known["pages"])
    folder.mkdir(parents=True, exist_ok=True)
    pages: dict[str, str] = {}
    written = 0
    # In the order of a hash, so that a small budget takes a sample and not the beginning of the alphabet.
    for path in sorted(modules, key=lambda path: hashlib.sha256(path.encode()).digest()):
        if written >= most_bytes:
            break
        source = (library / path).read_bytes()
        page = _page(path, source)
        if page is not None:
            name, data = page
            _replace(folder / name, data)
            pages[name] = hashlib.sha256(source).hexdigest()
            written += len(data)
    for stale in sorted(folder.glob("*.*")):
        if not stale.name.startswith(".") and stale.name not in pages:
            stale.unlink()
    pages = dict(sorted(pages.items()))
    _replace(index, json.dumps({"key": key, "pages": pages}).encode())
    return pages


def _public_modules(library: Path) -> list[str]:
    found = []
    for folder, folders, files in os.walk(library):
        folders[:] = sorted(name for name in folders if name not in _LEFT_OUT and not name.startswith(("_", "config-")))
        for name in sorted(files):
            if name.endswith(".py") and (name == "__init__.py" or not name.startswith("_")):
                found.append((Path(folder) / name).relative_to(library).as_posix())
    return found


def _key(library: Path, modules: list[str], most_bytes: int) -> str:
    digest = hashlib.sha256(f"{CODE_VERSION} {sys.version} {most_bytes}".encode())
    for path in modules:
        status = (library / path).stat()
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _page(path: str, source: bytes) -> tuple[str, bytes] | None:
    """File name and content of a module's page; None if the module documents nothing."""
    tree = parse_module(source.decode("utf-8", errors="replace"))
    if tree is None:
        return None
    documented = [
        symbol
        for symbol in symbols(tree)
        if symbol.documentation and not any(part.startswith("_") for part in symbol.name.split("."))
    ]
    if not documented:
        return None
    module = module_name(path)
    if hashlib.sha256(module.encode()).digest()[0] % 2:
        return f"{module}.html", _html_page(module, documented).encode("utf-8", errors="replace")
    return f"{module}.jsonl", _records(module, documented).encode()


def _records(module: str, documented: list[Symbol]) -> str:
    lines = []
    for symbol in documented:
        record = {
            "name": symbol.name,
            "kind": symbol.kind,
            "module": module,
            "signature": symbol.signature,
            "returns": symbol.returns,
            "documentation": symbol.documentation,
        }
        lines.append(json.dumps(record))
    return "\n".join(lines) + "\n"


def _html_page(module: str, documented: list[Symbol]) -> str:
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(module)}</title></head>',
        f"<body><main><h1>{html.escape(module)}</h1>",
    ]
    for symbol in documented:
        level = 3 if symbol.kind == "method" else 2
        owner = symbol.name.rpartition(".")[0]
        heading = f"{owner}.{symbol.signature}" if owner else symbol.signature
        if symbol.kind == "class":
            heading = f"class {heading}"
        parts.append(f"<h{level}>{html.escape(heading)}</h{level}>")
        parts.extend(_block(paragraph) for paragraph in re.split(r"\n\s*\n", symbol.documentation) if paragraph.strip())
    parts.append("</main></body></html>")
    return "\n".join(parts) + "\n"


def _block(paragraph: str) -> str:
    laid_out = paragraph.startswith((" ", ">>>")) or re.search(r"\n {2,}", paragraph)
    tag = "pre" if laid_out else "p"
    return f"<{tag}>{html.escape(paragraph)}</{tag}>"


def _replace(path: Path, data: bytes) -> None:
    """Write ``data``, unless it is there already: an unchanged page keeps its time of change."""
    if path.exists() and path.read_bytes() == data:
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(data)
    aside.replace(path)
