"""The former name of `instrlib.runner.run`, until every notebook uses the new one."""

from instrlib.core.cache import versions
from instrlib.runner.run import RECORD, Run, open_run, study_name

__all__ = ["RECORD", "Run", "open_run", "study_name", "versions"]
