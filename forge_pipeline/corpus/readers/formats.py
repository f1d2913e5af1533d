"""Formats by name: which are programming or configuration languages, and how files of them are called."""

from __future__ import annotations

import re

_LANGUAGES = {
    "python": "py pyi pyw",
    "javascript": "js mjs cjs jsx",
    "typescript": "ts tsx mts cts",
    "java": "java",
    "c": "c h",
    "cpp": "cc cpp cxx hh hpp hxx",
    "csharp": "cs",
    "go": "go",
    "rust": "rs",
    "ruby": "rb",
    "php": "php",
    "swift": "swift",
    "kotlin": "kt kts",
    "scala": "scala",
    "shell": "sh bash zsh ksh fish",
    "powershell": "ps1 psm1",
    "perl": "pl pm",
    "lua": "lua",
    "r": "r",
    "julia": "jl",
    "sql": "sql",
    "haskell": "hs",
    "ocaml": "ml mli",
    "elixir": "ex exs",
    "erlang": "erl hrl",
    "clojure": "clj cljs",
    "dart": "dart",
    "css": "css scss less",
    "yaml": "yaml yml",
    "toml": "toml",
    "ini": "ini cfg conf properties",
    "xml": "xml xsd xsl svg",
    "protobuf": "proto",
    "cmake": "cmake",
    "make": "mk",
    "assembly": "s asm",
    "fortran": "f f90 f95",
    "batch": "bat cmd",
}
LANGUAGE_OF_EXTENSION = {extension: name for name, extensions in _LANGUAGES.items() for extension in extensions.split()}
LANGUAGE_OF_NAME = {"makefile": "make", "dockerfile": "docker", "cmakelists.txt": "cmake"}
CODE_FORMATS = frozenset(LANGUAGE_OF_EXTENSION.values()) | frozenset(LANGUAGE_OF_NAME.values())
RECORD_FORMATS = frozenset({"json", "jsonl"})

_INTERPRETER = re.compile(r"#!\s*\S*?(python|bash|zsh|ksh|sh|node|ruby|perl|php|lua|Rscript)\d*(?:[.\d]*)(?:\s|$)")
_ENVIRONMENT = re.compile(r"#!\s*\S*/env\s+(?:-\S+\s+)*")
_LANGUAGE_OF_INTERPRETER = {
    "bash": "shell",
    "zsh": "shell",
    "ksh": "shell",
    "sh": "shell",
    "node": "javascript",
    "Rscript": "r",
}


def language_of_first_line(text: str) -> str | None:
    """The language that a `#!` line names, or None."""
    line = _ENVIRONMENT.sub("#!", text[:200].split("\n", 1)[0])
    match = _INTERPRETER.match(line)
    return _LANGUAGE_OF_INTERPRETER.get(match[1], match[1]) if match else None
