"""Which natural language a text is in, by py3langid (a fork of langid.py, Lui and Baldwin 2012)."""

from __future__ import annotations

from forge_pipeline.corpus.settings import LanguageSettings

CODE = "code"
UNDETERMINED = "und"
_WINDOWS = 3


class LanguageIdentifier:
    """Holds the model, which takes most of a second to load."""

    def __init__(self, settings: LanguageSettings) -> None:
        # Imported here: settings of a corpus are read where no text is.
        from py3langid.langid import MODEL_FILE
        from py3langid.langid import LanguageIdentifier as Model

        self._settings = settings
        self._model = Model.from_model_file(MODEL_FILE, norm_probs=True)

    def identify(self, text: str) -> tuple[str, float]:
        """ISO 639-1 code and probability; "und" if the probability is too small to say."""
        language, confidence = self._model.classify(sample(text, self._settings.sample_characters))
        if confidence < self._settings.minimum_confidence or language == "zxx":
            language = UNDETERMINED
        return str(language), float(confidence)


def sample(text: str, characters: int) -> str:
    """The beginning, the middle and the end of a long text: a title page or a licence may be in another language."""
    if len(text) <= characters:
        return text
    width = characters // _WINDOWS
    step = (len(text) - width) // (_WINDOWS - 1)
    return "\n".join(text[start : start + width] for start in (0, step, len(text) - width))
