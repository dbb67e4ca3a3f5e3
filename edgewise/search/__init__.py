"""From labelled photos and a budget to the most accurate model that fits it on the device."""
