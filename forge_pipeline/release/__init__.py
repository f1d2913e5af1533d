"""From an evaluated model to one that may be served: the gate, the package, the registry and the serving check."""
