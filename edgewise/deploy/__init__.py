"""Export to other runtimes, verify what was exported, predict with either."""
