"""What came of it: evaluations, run records, comparisons and reports."""
