"""Models on disk, and published checkpoints."""
