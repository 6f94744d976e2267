"""LeRobot's statistics of each feature: min, max, mean, std, count and five quantiles.

They are exact, over every row and pixel of an episode and of the whole dataset. (LeRobot samples images and merges the
quantiles of episodes into bounds.) Images are counted by value, so the histograms of episodes add up.
"""

import numpy as np

QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)
_NAMES = tuple(f"q{round(q * 100):02d}" for q in QUANTILES)


def of_rows(rows: np.ndarray) -> dict[str, list]:
    """Return {statistic: D numbers} of (T, D) or (T,) numbers; whole numbers keep whole min and max; `count` is [T]."""
    own = rows.reshape(len(rows), -1)
    table = own.astype(np.float64)
    values = {
        "min": own.min(0),
        "max": own.max(0),
        "mean": table.mean(0),
        "std": table.std(0),
        **dict(zip(_NAMES, np.quantile(table, QUANTILES, axis=0), strict=True)),
    }
    return {name: value.tolist() for name, value in values.items()} | {"count": [len(table)]}


def histogram(frames: np.ndarray) -> np.ndarray:
    """Return (3, 256) int64, the number of pixels of each channel and value in (T, H, W, 3) uint8."""
    return np.stack([np.bincount(frames[..., channel].ravel(), minlength=256) for channel in range(3)])


def of_images(counts: np.ndarray, images: int) -> dict[str, list]:
    """Return {statistic: (3, 1, 1) in [0, 1]} from the (3, 256) histogram of that many images; `count` is [images]."""
    levels, cumulated = np.arange(256), counts.cumsum(1)
    total = cumulated[:, -1]
    mean = counts @ levels / total
    values = {
        "min": (counts > 0).argmax(1),
        "max": 255 - (counts[:, ::-1] > 0).argmax(1),
        "mean": mean,
        "std": np.sqrt((counts * (levels - mean[:, None]) ** 2).sum(1) / total),
        **{name: (cumulated >= q * total[:, None]).argmax(1) for name, q in zip(_NAMES, QUANTILES, strict=True)},
    }
    return {name: (value / 255).reshape(3, 1, 1).tolist() for name, value in values.items()} | {"count": [images]}
