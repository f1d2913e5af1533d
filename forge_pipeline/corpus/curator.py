"""One document curated, inside a worker (see `curation` for the stage)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from forge_pipeline.corpus.language import CODE, UNDETERMINED, LanguageIdentifier
from forge_pipeline.corpus.normalisation import normalise
from forge_pipeline.corpus.quality import first_failing
from forge_pipeline.corpus.readers.formats import CODE_FORMATS
from forge_pipeline.corpus.sensitive import find_sensitive, redact
from forge_pipeline.corpus.settings import CurationSettings


def curator(settings: Mapping[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function from {text, format} to {text, kept, language, confidence, decisions}.

    ``text`` is None if it did not change. A decision is [rule, action, value, threshold, detail]; the value of a
    redaction is where it starts in the normalised text.
    """
    return Curator(CurationSettings.model_validate(settings)).curate


class Curator:
    def __init__(self, settings: CurationSettings) -> None:
        self._settings = settings
        self._languages = LanguageIdentifier(settings.language)

    def curate(self, item: dict[str, Any]) -> dict[str, Any]:
        form = item["format"]
        is_code = form in CODE_FORMATS
        text, alterations = normalise(item["text"], self._settings.normalisation, is_code=is_code)
        decisions: list[tuple[str, str, float, float | None, str]] = [
            (alteration.rule, "alter", alteration.count, None, alteration.detail) for alteration in alterations
        ]
        language, confidence = (CODE, 1.0) if is_code else self._languages.identify(text)
        kept = True
        if self._unwanted(language):
            kept = False
            decisions.append(("language", "drop", confidence, None, f"the language is {language}"))
        elif failing := first_failing(text, form, language, self._settings.quality):
            kept = False
            decisions.append((failing.rule, "drop", failing.value, failing.threshold, failing.detail))
        else:
            text, kept = self._without_sensitive(text, is_code, decisions)
        return {
            "text": None if text == item["text"] else text,
            "kept": kept,
            "language": language,
            "confidence": confidence,
            "decisions": decisions,
        }

    def _unwanted(self, language: str) -> bool:
        keep = self._settings.language.keep
        # What cannot be determined is not known to be unwanted.
        return bool(keep) and language not in (*keep, CODE, UNDETERMINED)

    def _without_sensitive(
        self, text: str, is_code: bool, decisions: list[tuple[str, str, float, float | None, str]]
    ) -> tuple[str, bool]:
        policy = self._settings.sensitive.code if is_code else self._settings.sensitive.prose
        findings = find_sensitive(text, policy)
        for finding in findings:
            if getattr(policy, finding.kind) == "drop":
                decisions.append((finding.kind, "drop", finding.start, None, "the text holds such a value"))
                return text, False
        for finding in findings:
            detail = f"{finding.end - finding.start} characters replaced by {finding.tag}"
            decisions.append((finding.kind, "redact", finding.start, None, detail))
        return redact(text, findings), True
