"""The METADATA of an installed Python distribution (Core metadata specification, PEP 566 and its successors)."""

from __future__ import annotations

from email.parser import HeaderParser

from forge_pipeline.corpus.readers.base import InputFile, Passage, Reader, Reading

_SHOWN = (
    "Name",
    "Version",
    "Summary",
    "Home-page",
    "Author",
    "Author-email",
    "Maintainer",
    "Maintainer-email",
    "License-Expression",
    "Keywords",
    "Requires-Python",
    "Requires-Dist",
)


class DistributionReader(Reader):
    format = "distribution"

    def claims(self, file: InputFile) -> bool:
        return file.name in ("METADATA", "PKG-INFO") and file.head.startswith("Metadata-Version:")

    def read(self, file: InputFile) -> Reading:
        message = HeaderParser().parsestr(file.text)
        lines = [f"{name}: {' '.join(str(value).split())}" for name in _SHOWN for value in message.get_all(name) or ()]
        description = str(message.get_payload()).strip("\n") or str(message["Description"] or "")
        title = f"{message['Name']} {message['Version']}"
        return Reading([Passage("\n".join(lines) + f"\n\n{description}\n", self.format, title)])
