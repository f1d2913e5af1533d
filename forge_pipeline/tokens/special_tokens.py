"""The special tokens. Their ids are their places in this list."""

from __future__ import annotations

END_OF_DOCUMENT = "<|endoftext|>"
SYSTEM = "<|system|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
TOOL = "<|tool|>"
CALL = "<|call|>"
END_OF_MESSAGE = "<|end|>"

SPECIAL_TOKENS = (END_OF_DOCUMENT, SYSTEM, USER, ASSISTANT, TOOL, CALL, END_OF_MESSAGE)
