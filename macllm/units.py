"""Quantities in words, for messages and tables."""


def size(count: int | float) -> str:
    """Bytes in words, in powers of 1000 as disks and Macs count: ``93 MB``, ``4.4 GB``."""
    value, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if abs(value) < 999.5:
            break
        value, unit = value / 1000, larger
    digits = 1 if unit != "bytes" and abs(value) < 99.95 else 0
    return f"{value:.{digits}f} {unit}"
