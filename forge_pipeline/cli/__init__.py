"""`forge`: the operations of the Dagster definitions, for a terminal.

The modules of the commands import at their top only what `forge --help` needs; what a command works with is
imported inside it.
"""
