"""What a recipe says about its audit page."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class AuditSettings(BaseModel):
    """How much the audit page shows, and whether it re-reads what it reports on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    top_documents: int = Field(
        25, ge=0, le=1000, description="documents listed on the page; all are in documents.parquet beside it"
    )
    top_rules: int = Field(40, ge=1, le=1000, description="rows of the table of decisions by rule")
    verify_files: bool = Field(
        True, description="read every artifact again and compare each file with its sealed digest"
    )
