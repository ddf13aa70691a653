"""Conversations on this machine: what was said, kept in one private SQLite file. Never imports mlx."""
