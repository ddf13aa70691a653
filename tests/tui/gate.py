"""Holds what an engine plays, anywhere: in place of the sleep between two batches."""

import asyncio


class Gate:
    """Lets so many batches through, then holds the rest."""

    def __init__(self, batches: int = 10**9) -> None:
        self.left = batches
        self._open = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.left -= 1
        if self.left < 0:
            await self._open.wait()

    def open(self) -> None:
        self.left = 10**9
        self._open.set()
