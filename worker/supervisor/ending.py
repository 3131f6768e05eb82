"""How a set of processes ends: the last to come goes first, politely, but not for ever."""

import asyncio
from collections.abc import Callable, Mapping

from worker.supervisor.child import Child


async def end_all(
    children: Mapping[str, Child],
    dependents: Mapping[str, frozenset[str]],
    *,
    grace_s: float,
    report: Callable[[str], None],
) -> None:
    """SIGTERM each child once those that came after it are gone, SIGKILL its group after the grace."""
    gone = {name: asyncio.Event() for name in children}

    async def end(name: str, child: Child) -> None:
        for other in dependents[name] & gone.keys():
            await gone[other].wait()
        child.ask_to_end()
        try:
            async with asyncio.timeout(grace_s):
                await child.ended()
        except TimeoutError:
            report(f"{name} did not end within {grace_s:g} s of being asked; it was killed")
            child.kill()
            await child.ended()
        gone[name].set()

    await asyncio.gather(*(end(name, child) for name, child in children.items()))
