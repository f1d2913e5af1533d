"""From a model of documents to one that answers: supervised examples, preference pairs, and training on both."""
