"""HTML: the main text, with headings and code blocks marked as in Markdown."""

from __future__ import annotations

import html
import re

from forge_pipeline.corpus.readers.base import InputFile, Passage, Reader, Reading, Unreadable
from forge_pipeline.corpus.readers.formats import LANGUAGE_OF_EXTENSION

_PAGE_START = re.compile(r"(?:<\?xml[^>]*>\s*|<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)[\s>]", re.I | re.S)
_TAG = re.compile(r"<(?:[a-zA-Z][\w-]*|/[a-zA-Z]|!)[^<>]*>")
_LANGUAGE = re.compile(r"<html[^>]*\slang\s*=\s*[\"']?([A-Za-z]{2,3})", re.I)
# resiliparse's "minimal HTML" has these, without attributes and with its text escaped.
_PREFORMATTED = re.compile(r"<pre>\n?(.*?)\n*</pre>", re.S)
_HEADING = re.compile(r"<h([1-6])>(.*?)</h\1>", re.S)
_ITEM = re.compile(r"^( *)<li>", re.M)
_OTHER_TAG = re.compile(r"^[ \t]*</?(?:ul|ol|blockquote|table|tr|td|th|dl|dd|dt)>[ \t]*\n|</?[a-z][a-z0-9]*>", re.M)
# A main part this small is more likely a page that the heuristic misread.
_LEAST_MAIN_CHARACTERS = 200
_LEAST_MAIN_SHARE = 0.1


class HtmlReader(Reader):
    format = "html"

    def claims(self, file: InputFile) -> bool:
        if file.extension in LANGUAGE_OF_EXTENSION:
            return False
        if _PAGE_START.match(file.head):
            return True
        return file.extension in ("html", "htm", "xhtml") and _TAG.search(file.text) is not None

    def read(self, file: InputFile) -> Reading:
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.html import HTMLTree

        tree = HTMLTree.parse(file.text)
        text = extract_plain_text(tree, preserve_formatting="minimal_html", main_content=True)
        if len(text) < _LEAST_MAIN_CHARACTERS:
            everything = extract_plain_text(tree, preserve_formatting="minimal_html", main_content=False)
            if len(text) < _LEAST_MAIN_SHARE * len(everything) or not text.strip():
                text = everything
        text = _as_markdown(text).strip()
        if not text:
            raise Unreadable("no_text", "the page has no text outside its markup")
        language = _LANGUAGE.search(file.text[:4096])
        return Reading(
            [
                Passage(
                    text + "\n",
                    self.format,
                    " ".join((tree.title or "").split()),
                    language_hint=language[1].lower() if language else "",
                )
            ]
        )


def _as_markdown(minimal: str) -> str:
    parts = []
    end = 0
    for block in _PREFORMATTED.finditer(minimal):
        parts.append(_running_text(minimal[end : block.start()]))
        parts.append(f"```\n{html.unescape(block[1])}\n```")
        end = block.end()
    parts.append(_running_text(minimal[end:]))
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join(part for part in parts if part))


def _running_text(minimal: str) -> str:
    text = _HEADING.sub(lambda match: f"{'#' * int(match[1])} {' '.join(match[2].split())}", minimal)
    text = _ITEM.sub(lambda match: f"{match[1]}- ", text)
    return html.unescape(_OTHER_TAG.sub("", text)).strip("\n")
