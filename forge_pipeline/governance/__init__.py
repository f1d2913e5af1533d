"""Answers about lineage from stored records and tables alone: tracing, facts for the model card, the audit page."""
