"""The distribution of latencies as a picture: for each call, how many microseconds which part stays under."""

from pathlib import Path
from typing import Final

import matplotlib as mpl

mpl.use("Agg")  # a file, no window
from matplotlib import pyplot as plt

# Nines are spread evenly: a percentile axis would hide the slowest calls in its last pixel.
AT: Final = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999)


def percentiles(samples: list[float]) -> list[float]:
    """Return the latencies at `AT`."""
    samples = sorted(samples)
    return [samples[min(len(samples) - 1, int(len(samples) * part))] for part in AT]


def draw(rows: dict[str, list[float]], path: Path) -> None:
    """Write the picture of *rows*, each a call's latencies at `AT` in microseconds."""
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    for name, latencies in rows.items():
        axes.plot(range(len(AT)), latencies, marker="o", markersize=3, label=name)
    axes.set_yscale("log")
    axes.set_xticks(range(len(AT)), [f"{part * 100:g} %" for part in AT])
    axes.set_xlabel("calls that took no longer")
    axes.set_ylabel("microseconds")
    axes.set_title("Latency of a call, one caller, all rounds")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
