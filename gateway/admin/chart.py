"""Draw what the last hour brought: plain numbers for an SVG of the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.recent import Minute

MINUTES = 60
WIDTH, HEIGHT = 600, 120
_STEP = WIDTH / MINUTES


@dataclass(frozen=True, slots=True)
class Bar:
    """Place one minute's bars, in the units of the drawing; `label` says it in words."""

    x: float
    width: float
    received: float
    archived: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Hold the bars, oldest first, what the whole height stands for, and the hour's sums."""

    bars: tuple[Bar, ...]
    top: int
    received: int
    archived: int
    bytes: float


def chart(minutes: Sequence[Minute], now: int) -> Chart:
    """Draw the hour that ends with the minute `now`."""
    shown = [one for one in minutes if now - MINUTES < one.minute <= now]
    top = _round_up(max((max(one.received, one.archived) for one in shown), default=0))
    bars = tuple(
        Bar(
            x=round((one.minute - now + MINUTES - 1) * _STEP, 2),
            width=round(_STEP / 2 - 0.5, 2),
            received=round(one.received / top * HEIGHT, 2),
            archived=round(one.archived / top * HEIGHT, 2),
            label=f"{now - one.minute} min ago: {one.received:.0f} received, {one.archived:.0f} archived",
        )
        for one in shown
    )
    received, archived, size = (
        sum(getattr(one, name) for one in shown) for name in ("received", "archived", "bytes")
    )
    return Chart(bars, top, round(received), round(archived), size)


def _round_up(value: float) -> int:
    """Give the next number that reads well, 10 at least."""
    power = 10
    while value > 10 * power:
        power *= 10
    return next(round(step * power) for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if value <= step * power)
