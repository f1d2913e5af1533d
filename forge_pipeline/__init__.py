"""Train language models on an organisation's own documents, with a trail from every token to its file."""

__version__ = "0.1.0"
