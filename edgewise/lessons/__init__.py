"""Lessons: what a part or a network costs, in formulas, counts and milliseconds of this machine."""
