"""The language model itself: its architecture, its weights on disk."""
