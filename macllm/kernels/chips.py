"""Apple's chips as data: how fast their memory is, how many GPU cores they have, and who says so.

Memory bandwidth is Apple's own figure. TFLOPS are those of float32 with all cores, as the table of hardware in
huggingface.js has them: for M1 and M2 what Apple said on stage and what cores times clock gives agree with it, from
M3 on published figures differ and none is here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

_NEWS = "Apple Newsroom, "
_M1_FAMILY = f"{_NEWS}18 October 2021: Introducing M1 Pro and M1 Max"
_M1_ULTRA = f"{_NEWS}8 March 2022: Apple unveils M1 Ultra"
_M2 = f"{_NEWS}6 June 2022: Apple unveils M2"
_M2_FAMILY = f"{_NEWS}17 January 2023: Apple unveils M2 Pro and M2 Max"
_M2_ULTRA = f"{_NEWS}5 June 2023: Apple introduces M2 Ultra"
_M3_FAMILY = "Apple, technical specifications of the MacBook Pro of November 2023 (M3, M3 Pro, M3 Max)"
_M3_ULTRA = "Apple, technical specifications of the Mac Studio of 2025"
_M4 = f"{_NEWS}7 May 2024: Apple introduces M4 chip"
_M4_FAMILY = f"{_NEWS}30 October 2024: Apple introduces M4 Pro and M4 Max"
_M4_MAX = "Apple, technical specifications of the MacBook Pro of 2024 (M4 Pro, M4 Max)"
_M5 = f"{_NEWS}15 October 2025: Apple unleashes M5"
_M5_FAMILY = f"{_NEWS}3 March 2026: Apple debuts M5 Pro and M5 Max"
_M5_MAX = "Apple, technical specifications of the MacBook Pro of 2026 (M5 Pro, M5 Max)"


@dataclass(frozen=True)
class Chip:
    """A chip, or those of one name with as many GPU cores where fewer cores come with slower memory."""

    name: str  # "M4 Max"
    gpu_cores: int  # the most that this memory comes with
    bandwidth_gb_s: float  # 10^9 bytes a second
    source: str  # of the bandwidth
    tflops: float | None = None  # float32, 10^12 operations a second; None: not published


CHIPS: tuple[Chip, ...] = (
    Chip("M1", 8, 68.3, "LPDDR4X-4266 on 128 bits: Apple states none", 2.6),
    Chip("M1 Pro", 16, 200, _M1_FAMILY, 5.2),
    Chip("M1 Max", 32, 400, _M1_FAMILY, 10.4),
    Chip("M1 Ultra", 64, 800, _M1_ULTRA, 21),
    Chip("M2", 10, 100, _M2, 3.6),
    Chip("M2 Pro", 19, 200, _M2_FAMILY, 6.8),
    Chip("M2 Max", 38, 400, _M2_FAMILY, 13.6),
    Chip("M2 Ultra", 76, 800, _M2_ULTRA, 27.2),
    Chip("M3", 10, 100, _M3_FAMILY),
    Chip("M3 Pro", 18, 150, _M3_FAMILY),
    Chip("M3 Max", 30, 300, _M3_FAMILY),
    Chip("M3 Max", 40, 400, _M3_FAMILY),
    Chip("M3 Ultra", 80, 819, _M3_ULTRA),
    Chip("M4", 10, 120, _M4),
    Chip("M4 Pro", 20, 273, _M4_FAMILY),
    Chip("M4 Max", 32, 410, _M4_MAX),
    Chip("M4 Max", 40, 546, _M4_FAMILY),
    Chip("M5", 10, 153, _M5),
    Chip("M5 Pro", 20, 307, _M5_FAMILY),
    Chip("M5 Max", 32, 460, _M5_MAX),
    Chip("M5 Max", 40, 614, _M5_FAMILY),
)
_NAME = re.compile(r"\bM\d+(?: (?:Pro|Max|Ultra))?\b")


def find(device: str, cores: int | None = None) -> Chip | None:
    """The chip that a device is named after (``Apple M4 Max``); None where the table has it not.

    With its GPU ``cores`` the one whose memory comes with so many, its TFLOPS in proportion; without, the fastest
    of its name, since what follows from it is a bound.
    """
    named = list(_named(device))
    if not named:
        return None
    if cores is None:
        return named[-1]
    chip = next((chip for chip in named if cores <= chip.gpu_cores), named[-1])
    tflops = chip.tflops * cores / chip.gpu_cores if chip.tflops is not None else None
    return replace(chip, gpu_cores=cores, tflops=tflops)


def _named(device: str) -> Iterator[Chip]:
    """All of one name, slowest memory first."""
    match = _NAME.search(device)
    if match is not None:
        yield from sorted(
            (chip for chip in CHIPS if chip.name == match[0]), key=lambda chip: chip.bandwidth_gb_s
        )
