"""How fast networks are here: every runtime, measured side by side, and the roofline."""
