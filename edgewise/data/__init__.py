"""Labelled images: scan, check, split, decode, augment, load."""
