"""Source code and configuration files: the text as it is, with its language as format."""

from __future__ import annotations

from forge_pipeline.corpus.readers.base import InputFile, Passage, Reader, Reading
from forge_pipeline.corpus.readers.formats import LANGUAGE_OF_EXTENSION, LANGUAGE_OF_NAME, language_of_first_line


class CodeReader(Reader):
    format = "code"

    def claims(self, file: InputFile) -> bool:
        return _language(file) is not None

    def read(self, file: InputFile) -> Reading:
        language = _language(file)
        assert language is not None
        return Reading([Passage(file.text, language, language_hint="code")])


def _language(file: InputFile) -> str | None:
    named = LANGUAGE_OF_NAME.get(file.name.lower()) or LANGUAGE_OF_EXTENSION.get(file.extension)
    return named or language_of_first_line(file.text)
