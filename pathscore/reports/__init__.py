"""Pages about runs: `diagnose(run_dir)` writes report.html, `compare(run_dirs)` comparison.html."""

from pathscore.reports.comparison import compare
from pathscore.reports.diagnosing import diagnose

__all__ = ["compare", "diagnose"]
