"""The console script `m2distill`. Commands import what they need when they run, so that --help is quick.

Exit codes: 0 done, 2 something the user can mend (one line on stderr), 130 interrupted.
"""

import errno
import re
import shlex
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from m2distill_policy.errors import UserError, require_at_least, unknown_name

COMMANDS = {
    "demo": "the whole promise in half an hour: two tasks learned one after the other, obeyed over ROS 2",
    "tasks": "the tasks of a suite, as a list or as a picture",
    "collect": "scripted demonstrations in simulation -> LIBERO-format HDF5 files",
    "train": "learn a sequence of tasks; a checkpoint after every one",
    "learn": "teach a run one more task, from its own memory and new demonstrations",
    "promote": "let the robot follow a checkpoint, once it is proven that nothing was forgotten",
    "rollback": "let the robot follow the checkpoint before",
    "evaluate": "closed-loop episodes in simulation; success matrix and forgetting",
    "report": "one HTML page from a run folder",
    "bench": "what a training step, reading data and simulating cost, against the plain path",
    "run": "simulator and policy as ROS 2 nodes, until Ctrl-C",
    "import": "bag: recorded episodes; lerobot: a dataset; libero-checkpoint: LIBERO's own; robosuite-demos: by people",
    "export": "lerobot: demonstrations as a LeRobot dataset",
    "bag": "recover: finish the episodes that a recorder which died has left open",
}
RESUMING = ("demo", "collect", "evaluate", "learn", "promote")  # the same command goes on where it was; train says how
# What the system says of a path that the user gave, or of a full disk. Any other OSError is a defect of ours.
REFUSALS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR,
            errno.EEXIST, errno.ENAMETOOLONG}


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command line (without the program's name); returns the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: m2distill COMMAND ...   (m2distill COMMAND --help for its options)\n")
        print("\n".join(f"  {name:10}{text}" for name, text in COMMANDS.items()))
        return 0 if argv else 2
    command, rest = argv[0], _spread_lists(argv[1:])
    try:
        if command not in COMMANDS:
            raise UserError(unknown_name("command", command, COMMANDS))
        globals()[f"_{command}"](rest)
    except UserError as error:
        print(f"m2distill: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"m2distill: {where}{error.strerror}; choose another path, or make this one usable", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "; the same command goes on where it was" if command in RESUMING else ""
        print(f"m2distill: interrupted{hint}", file=sys.stderr)
        return 130
    return 0


def _spread_lists(argv: list[str]) -> list[str]:
    """`--tasks 0,1` means `--tasks 0 1`."""
    return [part for word in argv for part in (word.split(",") if re.fullmatch(r"\d+(,\d+)+", word) else [word])]


def _train(argv: list[str]) -> None:
    import tyro

    from m2distill_training.config import TrainConfig
    from m2distill_training.device import usable_device
    from m2distill_training.presets import preset
    from m2distill_training.protocols import in_suite_order, with_protocol

    @dataclass
    class Arguments:
        """Learn the given tasks, one after the other, and keep a checkpoint after each in OUT/steps/.

        --preset small (64 px, minutes on two CPU cores), libero (LIBERO's network and training) or debug (seconds,
        learns nothing) gives every value below; any of them can be overridden. --protocol ten_steps or base6_plus4
        sets those that the benchmark prescribes.

        Example: m2distill train --preset small --data data/demos/*.hdf5 --out runs/two_tasks --optim.budget 1000

        On several GPUs or machines, the batch shared among the processes:
        torchrun --nproc-per-node 4 -m m2distill_training train --preset libero --data data/demos/*.hdf5 --out runs/ten
        """

        data: tuple[Path, ...]  # HDF5 files, one per task, in the order of learning; a folder stands for its *.hdf5
        out: Path  # run folder
        config: Annotated[TrainConfig, tyro.conf.arg(name="")]
        resume: bool = False  # go on with the run in `out`
        start_from: Path | None = None  # another run's checkpoint in place of the first step
        device: str = "auto"  # cpu, cuda, cuda:1 ...; auto takes a GPU when there is one, and says so
        cache: Path | None = None  # where decoded frames are kept; default: beside each data file
        suite: str | None = None  # learn the files in the order and with the instructions of this suite of LIBERO
        tasks: tuple[int, ...] = ()  # with --suite: only these of its tasks, in this order

    name, rest = _take_option(argv, "--preset", "small")
    protocol, rest = _take_option(rest, "--protocol", "custom")
    settings = with_protocol(preset(name), protocol)
    arguments = tyro.cli(Arguments, args=rest, prog=f"m2distill train --preset {name}",
                         default=Arguments(tyro.MISSING, tyro.MISSING, settings))

    from m2distill_training.loop import train
    from m2distill_training.progress import show_training
    from m2distill_training.ranks import started_by_torchrun

    files, instructions = _files(arguments.data), None
    if arguments.suite is not None:
        files, instructions = in_suite_order(files, arguments.suite, arguments.tasks)
    elif arguments.tasks:
        raise UserError("--tasks are numbers of a suite's tasks; name the suite with --suite")
    device = usable_device(arguments.device)
    ranks = started_by_torchrun()
    if ranks.leads:
        print(f"training {arguments.config.strategy} ({name}) on {device}, {ranks.size} process(es)")
    try:
        with show_training(arguments.config.strategy) if ranks.leads else nullcontext(lambda progress: None) as on_step:
            run = train(arguments.config, files, arguments.out, resume=arguments.resume, device=device,
                        start_from=arguments.start_from, cache=arguments.cache, instructions=instructions,
                        on_step=on_step)
    except KeyboardInterrupt:
        if ranks.leads and (arguments.out / "config.json").is_file():
            again = argv if arguments.resume else [*argv, "--resume"]
            print(f"state saved; go on with: m2distill train {shlex.join(again)}", file=sys.stderr)
        raise
    if ranks.leads:
        print(f"done: {run.path}")


def _tasks(argv: list[str]) -> None:
    import tyro

    from m2distill_sim.contact_sheet import tasks_command

    tyro.cli(tasks_command, args=argv, prog="m2distill tasks")


def _collect(argv: list[str]) -> None:
    import tyro

    from m2distill_sim.collect import collect_command

    tyro.cli(collect_command, args=argv, prog="m2distill collect")


def _learn(argv: list[str]) -> None:
    import tyro

    from m2distill_training.routine import learn_command

    tyro.cli(learn_command, args=argv, prog="m2distill learn")


def _promote(argv: list[str]) -> None:
    import tyro

    from m2distill_training.routine import promote_command

    tyro.cli(promote_command, args=argv, prog="m2distill promote")


def _rollback(argv: list[str]) -> None:
    import tyro

    from m2distill_training.routine import rollback_command

    tyro.cli(rollback_command, args=argv, prog="m2distill rollback")


def _evaluate(argv: list[str]) -> None:
    import tyro

    @dataclass
    class Arguments:
        """Success rates in simulation, from initial states that no demonstration used.

        Of a run folder: every step's checkpoint on every task learned so far, with success matrix and forgetting; kept
        in the run folder. Of a checkpoint: the tasks that it knows, or --tasks; kept in --out.

        Written are evaluation.json (success rates with 95 % Wilson intervals, steps to success, every episode, failures
        first; settings, assets and versions), videos/ (every failure, and each task's first episode: both views, the
        instruction, and the mixture's weights with the mode that acted) and episodes.jsonl, from which the same command
        goes on after Ctrl-C or a crash. Checkpoint, settings and seed determine the result, --workers does not. A
        process that dies costs no more than the repetition of its episode.

        Example: m2distill evaluate runs/two_tasks --episodes 10

        Example: m2distill evaluate runs/two_tasks/steps/1/checkpoint --suite libero_object --tasks 0 1 --workers 2
        """

        path: tyro.conf.Positional[Path]  # a run folder or a checkpoint
        suite: tuple[str, ...] = ("libero_object",)  # where the tasks are from: a suite of LIBERO, or robosuite
        tasks: tuple[int, ...] = ()  # task numbers in the suite, from 0, for a checkpoint; default: those it knows
        episodes: int = 10  # per task, each from another held-out initial state; at most 10
        acting: str = "mode_mean"  # sample (LIBERO's), low_noise or mode_mean
        seed: int = 0  # of the draws from the policy's mixture
        max_steps: int = 600  # after which an episode has failed; LIBERO's number
        workers: int = 2  # processes, each with a simulator of its own; the result does not depend on it
        assets: str | None = None  # builtin, installed, hub or a folder; default: the first that is there
        out: Path | None = None  # of a checkpoint: where to write; default: beside it, CHECKPOINT_evaluation

    a = tyro.cli(Arguments, args=argv, prog="m2distill evaluate")
    require_at_least(1, workers=a.workers)

    from m2distill_policy.checkpoint import load_checkpoint
    from m2distill_sim.suites import find_task
    from m2distill_training.evaluate import evaluate_checkpoint, evaluate_run, find_tasks
    from m2distill_training.progress import show_episodes

    options = {"acting": a.acting, "seed": a.seed, "max_steps": a.max_steps, "workers": a.workers, "assets": a.assets}
    if (a.path / "data.json").is_file():
        if a.tasks or a.out:
            raise UserError(f"{a.path} is a run folder: all its tasks are evaluated and the result is kept in it; "
                            "leave --tasks and --out away, or name one of its checkpoints")
        with show_episodes() as listener:
            result = evaluate_run(a.path, a.suite, a.episodes, **options, listener=listener)
        for i, step in enumerate(result["steps"]):
            print(f"after step {i + 1}")
            _print_tasks(step["tasks"])
        print("  ".join(f"{name} {value}" for name, value in result["metrics"].items()))
        print(a.path / "evaluation.json")
        return
    if a.tasks:
        if len(a.suite) != 1:
            raise UserError(f"--tasks are numbers of one suite's tasks, --suite names {len(a.suite)}; evaluate them "
                            "one after the other")
        tasks = [find_task(a.suite[0], task) for task in a.tasks]
    else:
        tasks = find_tasks(a.suite, sorted(load_checkpoint(a.path).instructions))
        if not tasks:
            raise UserError(f"{a.path} knows no instruction; import it again with --instructions")
    out = a.out or a.path.with_name(f"{a.path.name}_evaluation")
    with show_episodes() as listener:
        result = evaluate_checkpoint(a.path, tasks, a.episodes, out, **options, listener=listener)
    _print_tasks(result["tasks"])
    print(out / "evaluation.json")


def _print_tasks(tasks: list[dict]) -> None:
    for t in tasks:
        low, high = t["wilson_95"]
        steps = f"  in {t['steps_to_success']['median']:.0f} steps (median)" if t["steps_to_success"] else ""
        print(f"  {t['successes']}/{t['episodes']}  [{low:.0%} to {high:.0%}]  {t['instruction']}{steps}")


def _report(argv: list[str]) -> None:
    import tyro

    @dataclass
    class Arguments:
        """One self-contained HTML page: success matrix, loss curves, videos. Several runs are set side by side.

        Example: m2distill report runs/m2distill runs/finetune --out compared.html
        """

        runs: tyro.conf.Positional[tuple[Path, ...]]  # run folders, evaluated before
        out: Path | None = None  # default: report.html in the first run folder
        drift: bool = False  # measure latent drift first, from the runs' checkpoints and demonstrations

    a = tyro.cli(Arguments, args=argv, prog="m2distill report")

    from m2distill_training.report import write_report

    if not a.runs:
        raise UserError("no run folder given; name the --out of m2distill train")
    if a.drift:
        from m2distill_training.drift import measure_drift

        for run in a.runs:
            measure_drift(run)
    out = a.out or a.runs[0] / "report.html"
    write_report(out, list(a.runs))
    print(out)


def _import(argv: list[str]) -> None:
    import tyro

    def libero_checkpoint(file: tyro.conf.Positional[Path], out: tyro.conf.Positional[Path],
                          instructions: tuple[str, ...] = (), bert: Path | None = None) -> None:
        """LIBERO's task*_model.pth becomes a checkpoint directory, without running anything that the pickle asks for.

        Example: m2distill import libero-checkpoint task9_model.pth runs/libero --instructions "open the top drawer"

        Args:
            file: LIBERO's checkpoint.
            out: the new checkpoint directory.
            instructions: what it shall obey; the file does not say. Each is embedded with bert-base-cased.
            bert: folder with bert-base-cased; default: the hub's local cache, then the hub.
        """
        from m2distill_policy.text import BERT, load_text_encoder
        from m2distill_training.data.libero_checkpoint import import_libero_checkpoint

        embeddings = {}
        if instructions:
            embeddings = dict(zip(instructions, load_text_encoder(BERT, bert).encode(instructions), strict=True))
        print(f"{out}: {import_libero_checkpoint(file, out, embeddings)}")
        if not instructions:
            print("it knows no instruction yet; repeat with --instructions to use it on a robot")

    def robosuite_demos(out: tyro.conf.Positional[Path], file: Path | None = None, size_px: int = 128) -> None:
        """robosuite's three human demonstrations of lifting a cube become a LIBERO-format file, OUT/lift_demo.hdf5:
        the recorded states drawn from both cameras, and OSC_POSE actions derived from the motion in them. It trains
        like any other file, and its task is evaluated as --suite robosuite.

        Example: m2distill import robosuite-demos data/lift

        Args:
            out: folder of the new file.
            file: a demo.hdf5 that robosuite recorded of its Lift; default: the one in its wheel.
            size_px: side of the two cameras' pictures.
        """
        from m2distill_training.data.robosuite_demos import import_lift

        print(import_lift(out, file, size_px))

    from m2distill_training.data.bag_commands import import_bag_command
    from m2distill_training.data.lerobot_commands import import_lerobot_command

    commands = {"libero-checkpoint": libero_checkpoint, "robosuite-demos": robosuite_demos, "bag": import_bag_command,
                "lerobot": import_lerobot_command}
    tyro.extras.subcommand_cli_from_dict(commands, args=argv, prog="m2distill import", use_underscores=False)


def _export(argv: list[str]) -> None:
    import tyro

    from m2distill_training.data.lerobot_commands import export_lerobot_command

    tyro.extras.subcommand_cli_from_dict({"lerobot": export_lerobot_command}, args=argv, prog="m2distill export")


def _bag(argv: list[str]) -> None:
    import tyro

    from m2distill_training.data.bag_commands import recover_command

    tyro.extras.subcommand_cli_from_dict({"recover": recover_command}, args=argv, prog="m2distill bag")


def _bench(argv: list[str]) -> None:
    import tyro

    from m2distill_training.bench.data import bench_data
    from m2distill_training.bench.experts import bench_experts
    from m2distill_training.bench.node import bench_node
    from m2distill_training.bench.record import bench_record
    from m2distill_training.bench.sim import bench_sim
    from m2distill_training.bench.train import bench_train

    commands = {"train": bench_train, "data": bench_data, "sim": bench_sim, "experts": bench_experts,
                "node": bench_node, "record": bench_record}
    tyro.extras.subcommand_cli_from_dict(commands, args=argv, prog="m2distill bench",
                                         description="Example: m2distill bench train --json > train.json")


def _run(argv: list[str]) -> None:
    from m2distill_policy.bringup import main as start

    if status := start(argv):
        sys.exit(status)


def _demo(argv: list[str]) -> None:
    import tyro

    from m2distill_training.demo import demo

    tyro.cli(demo, args=argv, prog="m2distill demo")


def _take_option(argv: list[str], option: str, default: str) -> tuple[str, list[str]]:
    """The value of `--option value` or `--option=value`, and the other arguments."""
    for i, argument in enumerate(argv):
        if argument.startswith(f"{option}="):
            return argument.split("=", 1)[1], argv[:i] + argv[i + 1:]
        if argument == option and i + 1 < len(argv):
            return argv[i + 1], argv[:i] + argv[i + 2:]
    return default, argv


def _files(paths: tuple[Path, ...]) -> list[Path]:
    files = []
    for path in paths:
        found = sorted(path.glob("*.hdf5")) if path.is_dir() else [path]
        if not found:
            raise UserError(f"{path} holds no *.hdf5 file; collect demonstrations into it or name another folder")
        files += found
    return files
