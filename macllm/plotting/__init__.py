"""Curves drawn without a screen: growing series, braille for terminals, the ticks of axes."""
