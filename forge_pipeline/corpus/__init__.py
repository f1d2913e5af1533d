"""From files to clean, attributed, unique documents, split for training and evaluation.

One stage a module: `landing`, `extraction`, `curation`, `deduplication`, `splitting`, `inventory`. What they are
told is in `settings`, what they write in `tables`.
"""
