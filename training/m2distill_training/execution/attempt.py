"""What a worker does with a job. Nothing heavy is imported before the job itself needs it."""

import os
import pickle
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from m2distill_policy.errors import RendererError, UserError
from m2distill_training.execution.jobs import Job, Reply

INPUT_WAIT_S = 30.0  # network file systems show a new file late on other machines
# Libraries read these once, when they are loaded. Jobs are the parallelism; training sets torch's threads itself.
THREAD_VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LP_NUM_THREADS": "0",  # Mesa's software renderer
}


def attempt(job: Job) -> Reply:
    """Call the job's function and return the reply; no exception leaves this function."""
    try:
        wait_for(job.inputs, INPUT_WAIT_S)
        value = _call(job)
        if missing := [str(path) for path in job.outputs if not path.exists()]:
            raise RuntimeError(f"job {job.name} has ended without its output {missing[0]}")
        return Reply("result", value)
    except RendererError as error:
        return Reply("failed", _portable(error))
    except UserError as error:
        return Reply("rejected", _portable(error))
    except Exception as error:  # a defect, or a library error after the loss of a device
        kind = "memory" if type(error).__name__ == "OutOfMemoryError" else "failed"
        return Reply(kind, RuntimeError(traceback.format_exc()))


def _call(job: Job) -> object:
    if "torch" in sys.modules or job.threads != 1:  # torch takes seconds to import, and begins with one thread here
        import torch

        torch.set_num_threads(job.threads)
    return job.work(*job.arguments)


def wait_for(paths: Sequence[Path], seconds: float) -> None:
    """Wait until the paths exist. Raises UserError."""
    deadline = time.monotonic() + seconds
    for path in paths:
        while not path.exists():
            if time.monotonic() > deadline:
                raise UserError(
                    f"{path} is not visible on {os.uname().nodename} after {seconds:.0f} s; "
                    "give a folder that all machines share"
                )
            time.sleep(0.2)


def _portable(error: Exception) -> Exception:
    """Return the error itself if another process can read it, else one with its text and exit status."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:  # an __init__ with other arguments fails in any way
        plain = UserError(str(error))
        plain.exit_status = getattr(error, "exit_status", plain.exit_status)
        return plain


def use_folder(folder: str, paths: Sequence[str]) -> None:
    """Continue in `folder` and with the search path `paths`, so that a strategy's own module is found."""
    if os.path.isdir(folder):
        os.chdir(folder)
    sys.path += [path for path in paths if path not in sys.path]
