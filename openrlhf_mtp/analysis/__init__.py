"""The report: tables, figures and one HTML page from run folders. Reads files, never tensors.

| module | holds |
|---|---|
| `report` | the page |
| `figures`, `figure_spec` | one file a figure; what a figure declares. docs/analysis.md says what each shows |
| `summary`, `summary_table` | the numbers at the top of a report, and their table |
| `lengths` | promised, replayed and measured acceptance length, side by side |
| `groups` | runs that differ in their seed, as one curve with a band |
| `positions`, `regression` | entropy and acceptance at recorded positions; lines and means with intervals |
| `temperature_slope` | tokens of length per nat, from a temperature sweep |
| `style`, `table` | the look of figures and tables |
"""
