"""Measure systems side by side: in turn within each run, medians over the runs, ratios run by run."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

Sample = Mapping[str, float]
"""What one run gave: a value per column; a column may be missing."""

Once = Callable[[], Sample]


@dataclass(frozen=True)
class Column:
    """Describe a column: its heading, the format of its values, and what they are multiplied with.

    `better` is "more" or "less" where the systems are compared by it, and says which.
    """

    key: str
    heading: str
    form: str = ",.0f"
    factor: float = 1
    better: Literal["more", "less", ""] = ""

    def cell(self, samples: Sequence[Sample]) -> str:
        """Give the median, and from the smallest to the largest when they differ."""
        values = sorted(sample[self.key] * self.factor for sample in samples if self.key in sample)
        if not values:
            return ""
        middle, least, most = (format(value, self.form) for value in (median(values), values[0], values[-1]))
        return middle if least == most else f"{middle} ({least} to {most})"


RATE = Column("rate", "instances/s", better="more")
ACCEPT = Column("accept", "response p50 ms", ".1f", 1000)
CPU = Column("cpu", "CPU ms/instance", ".2f", 1000, better="less")
PEAK = Column("peak", "peak memory MB", ",.0f", 1e-6)


def interleaved(systems: Mapping[str, Once], runs: int) -> dict[str, list[Sample]]:
    """Measure each system once per run, A B C, B C A ...; the disk is at rest before each turn."""
    names = list(systems)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    for run in range(runs):
        turn = run % len(names)
        for name in names[turn:] + names[:turn]:
            os.sync()
            samples[name].append(systems[name]())
    return samples


def show(title: str, samples: Mapping[str, Sequence[Sample]], columns: Sequence[Column], *, ours: str = "") -> None:
    """Print a table; with `ours`, further columns tell how many times better ours is, run by run."""
    compared = [column for column in columns if column.better] if ours else []
    headings = [column.heading for column in columns]
    headings += [f"{ours} better, times: {column.heading}" for column in compared]
    print(f"\n### {title}\n\n| | {' | '.join(headings)} |\n|---|{'---|' * len(headings)}", flush=True)
    for name, of_name in samples.items():
        cells = [column.cell(of_name) for column in columns]
        cells += ["" if name == ours else ratio(samples[ours], of_name, column) for column in compared]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def ratio(ours: Sequence[Sample], theirs: Sequence[Sample], column: Column) -> str:
    """Tell how many times better ours is, run by run."""
    pairs = [(our.get(column.key), their.get(column.key)) for our, their in zip(ours, theirs, strict=True)]
    ratios = [our / their if column.better == "more" else their / our for our, their in pairs if our and their]
    return Column("ratio", "", ".2f").cell([{"ratio": ratio} for ratio in ratios])
