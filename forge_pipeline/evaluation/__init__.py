"""How good a model is, on what it has never seen, with how sure one can be of the figure."""
