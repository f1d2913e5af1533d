"""The lineage: which stages a recipe has, what each is made from, and how a stage is planned, run and sealed.

It knows no Dagster: `components` turns the same stages into assets, and a test or a benchmark runs them bare.
"""
