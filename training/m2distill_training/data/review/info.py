"""Summary of a set: episodes, lengths and sizes by instruction."""

import statistics

from m2distill_training.data.review.episodes import DemoSet


def describe(demos: DemoSet) -> dict:
    """Return the summary as JSON values. Raises DataError."""
    rows: dict[str, dict] = {}
    contents = demos.contents()
    for text in dict.fromkeys(each.instruction for each in contents):
        own = [each for each in contents if each.instruction == text]
        steps = [each.steps for each in own if each.steps is not None]
        rows[text] = {
            "episodes": len(own),
            "steps": sum(steps) if steps else None,
            "shortest": min(steps, default=None),
            "median": statistics.median(steps) if steps else None,
            "longest": max(steps, default=None),
            "seconds": round(sum(each.seconds for each in own), 3),
        }
    return {"set": str(demos.path), "kind": demos.kind, "bytes": demos.size_bytes(), "instructions": rows}
