"""The training engine: one loop, run by DeepSpeed in a process group of its own, for every kind of training.

It imports no Dagster and no MLflow: it writes a stream of metrics, which whoever started it forwards.
"""
