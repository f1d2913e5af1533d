"""The Dagster layer: the two kinds of recipe as components, and stages as assets. It computes nothing itself."""

from forge_pipeline.components.corpus import CorpusComponent
from forge_pipeline.components.model import ModelComponent

__all__ = ["CorpusComponent", "ModelComponent"]
