"""The command `m2distill report`."""

from pathlib import Path

from tyro.conf import Positional

from m2distill_policy.errors import UserError


def report_command(runs: Positional[tuple[Path, ...]] = (), out: Path | None = None, drift: bool = False) -> None:
    """One self-contained HTML page: success matrix, loss curves, videos. Several runs are set side by side.

    Example: m2distill report runs/m2distill runs/finetune --out compared.html

    Args:
        runs: run folders, evaluated before
        out: default: report.html in the first run folder
        drift: measure latent drift first, from the runs' checkpoints and demonstrations
    """
    from m2distill_training.report import write_report

    if not runs:
        raise UserError("no run folder given; name the --out of m2distill train")
    if drift:
        from m2distill_training.evaluation.drift import measure_drift

        for run in runs:
            measure_drift(run)
    out = out or runs[0] / "report.html"
    write_report(out, list(runs))
    print(out)
