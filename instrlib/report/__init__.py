"""The report: a study's argument as one page and one PDF, with every table and figure traced to what made it.

Neither asks another host for anything, and neither needs TensorFlow: both are made from `results.json`, the committed
figures and the notebooks' titles.
"""

from instrlib.report.tables import Table, metric_tables
from instrlib.report.write import write_pdf, write_report

__all__ = ["Table", "metric_tables", "write_pdf", "write_report"]
