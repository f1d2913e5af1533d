"""From documents to tokens: the tokenizer, the chat format, the shards, and the order they are trained in."""
