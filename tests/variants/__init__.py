"""Tiny configs of every family: what differs from the base in each variant that the tests build."""
