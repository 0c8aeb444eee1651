"""The page of a Run as a file in its folder. Drawing is imported when a page is written, not before."""

from pathlib import Path

from micrographia.core.claims import Run

REPORT = "report.html"


def write_report(run: Run) -> Path:
    """Write the Run's report, one HTML file, in its folder, in place of one that is there; its path."""
    from micrographia.core.store import add_file
    from micrographia.faces.report.page import render

    return add_file(run.path, REPORT, render(run))
