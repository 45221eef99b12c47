"""Where a job runs; what a job is they do not know."""
