"""PDF: the text layer of each page. Pages that are only pictures give none."""

from __future__ import annotations

import re

from forge_pipeline.corpus.readers.base import InputFile, Passage, Reader, Reading, Unreadable

_HEAD_BYTES = 1024
# What PDFium puts where a word was hyphenated at the end of a line.
_HYPHEN = re.compile(r"[\ufffe\x02]\s*")


class PdfReader(Reader):
    format = "pdf"

    def claims(self, file: InputFile) -> bool:
        return b"%PDF-" in file.data[:_HEAD_BYTES]

    def read(self, file: InputFile) -> Reading:
        import pypdfium2

        # PDFium opens what is left of a cut-off file; part of a document must not pass for all of it.
        if b"%%EOF" not in file.data[-_HEAD_BYTES:]:
            raise Unreadable("truncated", "the end mark %%EOF is missing")
        try:
            document = pypdfium2.PdfDocument(file.data)
        except pypdfium2.PdfiumError as error:
            kind = "encrypted" if "password" in str(error).lower() else "invalid_pdf"
            raise Unreadable(kind, str(error)) from error
        try:
            pages = [_page_text(document, index) for index in range(len(document))]
            title = document.get_metadata_dict().get("Title", "")
        except pypdfium2.PdfiumError as error:
            raise Unreadable("invalid_pdf", str(error)) from error
        finally:
            document.close()
        text = "\n\n".join(page for page in pages if page)
        if not text:
            raise Unreadable("no_text", f"none of {len(pages)} pages has a text layer")
        return Reading([Passage(text + "\n", self.format, title.strip())])


def _page_text(document: object, index: int) -> str:
    page = document[index]  # type: ignore[index]
    try:
        text_page = page.get_textpage()
        try:
            text: str = text_page.get_text_range()
        finally:
            text_page.close()
    finally:
        page.close()
    return _HYPHEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()
