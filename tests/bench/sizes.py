"""How much is measured, and how often."""

from dataclasses import dataclass

TINY, CT, MID = 10 * 1024, 512 * 1024, 2_900 * 1024


@dataclass(frozen=True)
class Sizes:
    """Hold numbers of instances, rows and runs, `few` of which where one takes long; `big` in bytes."""

    ct: int
    tiny: int
    mid: int
    sent: int
    stalled: int
    far: int
    idle: float  # seconds
    big: int
    matches: tuple[int, ...]
    rows: int
    runs: int
    few: int


FULL = Sizes(
    ct=500,
    tiny=2_000,
    mid=100,
    sent=1_000,
    stalled=100,
    far=60,
    idle=10,
    big=2 << 30,
    matches=(1_000, 10_000),
    rows=1_000_000,
    runs=5,
    few=3,
)
QUICK = Sizes(
    ct=60,
    tiny=200,
    mid=10,
    sent=100,
    stalled=20,
    far=10,
    idle=3,
    big=200 << 20,
    matches=(50, 100),
    rows=50_000,
    runs=2,
    few=2,
)
