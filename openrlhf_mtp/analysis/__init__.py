"""The report: tables, figures and one HTML page from run folders. Reads files, never tensors.

`report.py` writes the page, `figures/` has one file a figure, `summary.py` and `summary_table.py` make the numbers at
its top. `docs/analysis.md` says what each figure shows.
"""
