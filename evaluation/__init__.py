"""The verdict: tasks, metrics, baselines, one tidy table and a report."""
