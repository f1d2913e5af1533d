"""What a recipe says about a corpus: where documents come from and how they are treated. Pure data."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

STANDARD_LIBRARY = "python:standard_library"
DISTRIBUTIONS = "python:distributions"
API_PAGES = "python:api_pages"
GENERATORS = (STANDARD_LIBRARY, DISTRIBUTIONS, API_PAGES)
S3_SCHEME = "s3://"

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceSettings(_Settings):
    """One place that documents come from, and who answers for it."""

    name: str = Field(description="short name, used in tables and in document ids", pattern=r"^[a-z0-9][a-z0-9_\-]*$")
    location: str = Field(
        description="a folder (~ and $VARIABLES are expanded), s3://bucket/prefix, or one of " + ", ".join(GENERATORS),
        min_length=1,
    )
    licence: str = Field(
        default="unknown",
        description=f'licence of the documents; "declared" with {DISTRIBUTIONS}: what each distribution declares',
    )
    owner: str = Field(default="unknown", description="who answers for the data")
    purpose: str = Field(default="training", description="what the documents may be used for")
    include: tuple[str, ...] = Field(
        default=(), description="glob patterns; a file is taken if its path or name matches one (none: every file)"
    )
    exclude: tuple[str, ...] = Field(default=(), description="glob patterns of paths or names that are left out")

    @field_validator("location")
    @classmethod
    def _known_generator(cls, location: str) -> str:
        if location.startswith("python:") and location not in GENERATORS:
            raise ValueError(f"{location!r} is not a generated source; there are {', '.join(GENERATORS)}")
        if location.startswith(S3_SCHEME) and not re.match(r"s3://[^/]+(/|$)", location):
            raise ValueError(f"{location!r} names no bucket; write s3://bucket/prefix")
        return location

    @model_validator(mode="after")
    def _declared_needs_distributions(self) -> Self:
        if self.licence == "declared" and self.location != DISTRIBUTIONS:
            raise ValueError(f'licence "declared" needs the location {DISTRIBUTIONS}')
        return self


class LandingSettings(_Settings):
    """Which files are taken, and how many make a batch."""

    sources: tuple[SourceSettings, ...] = Field(description="where documents come from", min_length=1)
    max_batch_bytes: int = Field(default=1_000_000_000, ge=1, description="a batch is closed once it holds this much")
    settle_seconds: float = Field(
        default=2.0, ge=0, description="a file changed more recently than this may still be being written: it waits"
    )
    api_pages_bytes: int = Field(
        default=4_000_000, ge=10_000, description=f"how much {API_PAGES} writes altogether, about"
    )

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are named {twice[0]!r}; names must differ")
        return self


class ExtractionSettings(_Settings):
    """How files are read. The limits hold for each file, whatever is in it."""

    text_fields: tuple[str, ...] = Field(
        default=("text", "content", "body", "document", "description"),
        description="fields of a JSON record, by preference, that hold its text; a record with none is written out "
        "field by field",
    )
    title_fields: tuple[str, ...] = Field(
        default=("title", "name", "id"), description="fields of a JSON record, by preference, that hold its title"
    )
    max_file_bytes: int = Field(default=64_000_000, ge=1, description="a larger file is quarantined")
    max_line_characters: int = Field(default=1_000_000, ge=1, description="a text with a longer line is quarantined")
    seconds_per_file: float = Field(default=30.0, gt=0, description="wall time after which a file is quarantined")
    worker_memory_bytes: int = Field(
        default=2_000_000_000, ge=256_000_000, description="address space of the process that reads hostile files"
    )


class NormalisationSettings(_Settings):
    """Unicode repairs. Each kind that changes a document is a decision row."""

    repair_encoding: bool = Field(default=True, description="undo text decoded with the wrong encoding (ftfy)")
    unicode_form: Literal["NFC", "off"] = Field(default="NFC", description="Unicode normalisation form")
    remove_control_characters: bool = Field(default=True, description="remove C0/C1 controls except tab and newline")


class LanguageSettings(_Settings):
    """Natural-language identification of prose; programming languages are known by format."""

    keep: tuple[str, ...] = Field(
        default=(), description="ISO 639-1 codes of the languages to keep (none: all); code is never dropped by this"
    )
    minimum_confidence: Fraction = Field(default=0.5, description='below it the language is "und" (undetermined)')
    sample_characters: int = Field(default=1_200, ge=100, description="how much of a document is looked at")


class ProseRules(_Settings):
    """Quality rules for prose: Gopher (Rae et al. 2021, arXiv:2112.11446, A.1.1) and C4 (Raffel et al. 2020)."""

    minimum_words: int = Field(default=10, ge=0, description="fewest words (Gopher: 50, for web pages)")
    maximum_words: int = Field(default=2_000_000, ge=1, description="most words (Gopher: 100,000)")
    minimum_mean_word_length: float = Field(default=2.5, ge=0, description="characters (Gopher: 3)")
    maximum_mean_word_length: float = Field(default=12.0, ge=0, description="characters (Gopher: 10)")
    maximum_symbols_per_word: float = Field(default=0.1, ge=0, description="# and ... per word (Gopher: 0.1)")
    maximum_bullet_lines: Fraction = Field(default=0.95, description="share of lines with a bullet (Gopher: 0.9)")
    maximum_ellipsis_lines: Fraction = Field(default=0.3, description="share of lines ending in ... (Gopher: 0.3)")
    minimum_alphabetic_words: Fraction = Field(default=0.6, description="share of words with a letter (Gopher: 0.8)")
    minimum_stop_words: int = Field(
        default=1, ge=0, description="of the, be, to, of, and, that, have, with; English only (Gopher: 2)"
    )
    maximum_duplicate_lines: Fraction = Field(
        default=0.5, description="share of characters in lines seen before in the document (Gopher: 0.2)"
    )
    drop_placeholder_text: bool = Field(default=True, description='drop pages with "lorem ipsum" (C4)')


class CodeRules(_Settings):
    """Quality rules for code, after Codex (Chen et al. 2021, arXiv:2107.03374, section 3.1)."""

    maximum_mean_line_length: float = Field(default=150.0, ge=1, description="characters (Codex: 100)")
    maximum_line_length: int = Field(default=5_000, ge=1, description="characters (Codex: 1000)")
    minimum_alphanumeric: Fraction = Field(default=0.25, description="share of characters that are letters or digits")
    maximum_data_lines: Fraction = Field(
        default=0.6, description="share of lines that are only literals, in files of 100 lines or more"
    )
    drop_generated: bool = Field(default=True, description='drop files whose head says "generated ... do not edit"')
    minimum_characters: int = Field(default=20, ge=0, description="fewest characters that are not white space")


class QualitySettings(_Settings):
    """Which documents are worth learning from."""

    prose: ProseRules = Field(default=ProseRules(), description="for text, Markdown, reST, HTML, PDF")
    code: CodeRules = Field(default=CodeRules(), description="for source code")
    minimum_record_words: int = Field(default=3, ge=0, description="fewest words of a JSON record")


Action = Literal["redact", "drop", "off"]


class SensitivePolicy(_Settings):
    """What happens to each kind of personal or secret value: replaced by its tag, document dropped, or left."""

    email: Action = Field(default="redact", description="e-mail addresses, except in reserved domains (RFC 2606)")
    phone: Action = Field(default="redact", description="telephone numbers in international or US notation (E.164)")
    iban: Action = Field(default="redact", description="bank accounts with a valid check (ISO 13616, mod 97)")
    card: Action = Field(default="redact", description="payment cards with a valid check (ISO/IEC 7812, Luhn)")
    ip_address: Action = Field(default="redact", description="public IPv4 addresses")
    private_key: Action = Field(default="redact", description="PEM blocks of private keys")
    cloud_key: Action = Field(default="redact", description="access keys of AWS, Google, Azure storage")
    token: Action = Field(default="redact", description="access tokens of GitHub, GitLab, Slack, Stripe, ...; JWT")


class SensitiveSettings(_Settings):
    """Personal data and secrets. Source code is full of digits, so it has a policy of its own."""

    prose: SensitivePolicy = Field(default=SensitivePolicy(), description="for everything but code")
    code: SensitivePolicy = Field(
        default=SensitivePolicy(phone="off", card="off", ip_address="off"), description="for source code"
    )


class CurationSettings(_Settings):
    """Cleaning: normalisation, language, quality, personal data."""

    normalisation: NormalisationSettings = Field(default=NormalisationSettings(), description="Unicode repairs")
    language: LanguageSettings = Field(default=LanguageSettings(), description="language identification")
    quality: QualitySettings = Field(default=QualitySettings(), description="quality rules")
    sensitive: SensitiveSettings = Field(default=SensitiveSettings(), description="personal data and secrets")
    seconds_per_document: float = Field(default=60.0, gt=0, description="wall time after which a document is dropped")


class DeduplicationSettings(_Settings):
    """Exact and near duplicates; the first seen wins. Settings that change the index need a new corpus."""

    threshold: Fraction = Field(default=0.8, description="estimated Jaccard similarity from which two are the same")
    shingle_words: int = Field(default=5, ge=1, le=20, description="words in a shingle")
    shingle_characters: int = Field(default=8, ge=1, le=40, description="characters, in scripts without spaces")
    bands: int = Field(default=14, ge=1, description="LSH bands")
    rows_per_band: int = Field(default=8, ge=1, description="signature values in a band")
    seed: int = Field(default=1, ge=0, description="seed of the permutations")

    @property
    def permutations(self) -> int:
        return self.bands * self.rows_per_band


class DecontaminationSettings(_Settings):
    """Evaluation items leave the training text (Brown et al. 2020, arXiv:2005.14165, appendix C)."""

    ngram_words: int = Field(default=13, ge=5, le=50, description="words that must be the same in a row")
    minimum_item_words: int = Field(default=8, ge=1, description="a shorter evaluation item is not searched for")
    common_documents: int = Field(
        default=10, ge=1, description="an n-gram in more training documents than this is boilerplate, and stays"
    )
    maximum_cut_fraction: Fraction = Field(
        default=0.5, description="a training document that would lose a larger share of its text is dropped"
    )
    maximum_seen_fraction: Fraction = Field(
        default=0.2,
        description="a held-out document with a larger share of its n-grams in the training text of earlier batches "
        "is left out of evaluation",
    )

    @model_validator(mode="after")
    def _item_fits(self) -> Self:
        if self.minimum_item_words > self.ngram_words:
            raise ValueError("minimum_item_words must not exceed ngram_words")
        return self


class SplittingSettings(_Settings):
    """Train, validation and test by content hash, and what training may not see."""

    train: Fraction = Field(default=0.94, description="share for training")
    validation: Fraction = Field(default=0.03, description="share for tuning")
    test: Fraction = Field(default=0.03, description="share for the reported evaluation")
    salt: str = Field(default="", description="another salt gives another split")
    decontamination: DecontaminationSettings = Field(
        default=DecontaminationSettings(), description="removal of evaluation items from training text"
    )

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"train + validation + test is {total:g}, not 1")
        return self


class InventorySettings(_Settings):
    """How much of the inventory is shown; its table always holds everything."""

    rows_shown: int = Field(default=30, ge=1, le=30, description="rows of each table on the page")
