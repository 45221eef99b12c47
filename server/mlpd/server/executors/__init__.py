"""Where a job runs, in a process of its own, and on what."""
