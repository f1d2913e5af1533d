"""Artifacts: immutable folders, each sealed with a record of how it came to be."""

from forge_pipeline.storage.fingerprint import fingerprint_of
from forge_pipeline.storage.home import Home
from forge_pipeline.storage.record import ArtifactKey, FileEntry, Record
from forge_pipeline.storage.store import ArtifactStore, open_store

__all__ = ["ArtifactKey", "ArtifactStore", "FileEntry", "Home", "Record", "fingerprint_of", "open_store"]
