"""Training, with checkpoints that resume, and evaluation."""
