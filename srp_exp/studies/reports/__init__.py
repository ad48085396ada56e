"""The report of a study: tables, plots, CSV files and pages."""
