"""Side-by-side benchmarks against other programs, run by ``make bench`` or ``python -m bench``."""
