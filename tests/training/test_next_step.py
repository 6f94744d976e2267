"""Every command that finishes something names the next step."""

import inspect

from m2distill_policy.bringup import system
from m2distill_training.cli import main
from m2distill_training.cli.main import leaves, load
from m2distill_training.experiments import demo

WITHOUT = {  # they answer a question, or run until they are stopped
    "info": "versions for an issue",
    "dashboard": "runs until Ctrl-C; its log names the address",
    "instruct": "prints the state that it has reached",
    "service": "prints what the services answer",
}
ELSEWHERE = {"demo": demo, "run": system}  # the module that does the work


def test_every_command_names_the_next_step_or_is_listed_as_one_without():
    for name, entry in leaves():
        module = load(entry)
        text = inspect.getsource(ELSEWHERE.get(name, module))
        if name in ("data drop", "data trim"):
            text += inspect.getsource(inspect.getmodule(module.write_edited))
        assert ("next: " in text) != (name in WITHOUT or name.startswith("bench ")), name


def test_the_next_step_is_a_line_of_its_own_at_the_end(capsys):
    assert main.run(["tasks"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("next: m2distill tasks --suite libero_object --out ")
