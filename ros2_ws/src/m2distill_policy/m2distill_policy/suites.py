"""The suites of tasks: the one table of their names. The tasks of a suite are m2distill_sim.suites' matter.

A suite of LIBERO's that is not in the table is found as well, in the package `libero`; the table states what this
repository offers for a suite: built-in assets, a scripted expert, an image.
"""

from dataclasses import dataclass

ROBOSUITE = "robosuite"  # robosuite's own Lift


@dataclass(frozen=True)
class Suite:
    """One suite.

    Attributes:
        name: Name for `--suite`.
        has_builtin_assets: The built-in assets hold every object of its tasks.
        has_expert: A scripted expert solves its tasks.
        is_libero: It is one of LIBERO's, whose assets may be installed, downloaded or built-in.
    """

    name: str
    has_builtin_assets: bool = False
    has_expert: bool = False
    is_libero: bool = True

    def image(self, assets: str) -> str:
        """Return the path of the image of its tasks in the repository; `assets` is builtin or libero."""
        return f"docs/tasks/{self.name}_{assets}.jpg"


SUITES = (  # in the order in which papers list them
    Suite("libero_object", has_builtin_assets=True, has_expert=True),
    Suite("libero_goal", has_builtin_assets=True, has_expert=True),
    Suite("libero_spatial", has_builtin_assets=True, has_expert=True),
    Suite("libero_10", has_builtin_assets=True),
    Suite("libero_90"),
    Suite(ROBOSUITE, has_builtin_assets=True, is_libero=False),
)
OBJECT, GOAL = SUITES[0].name, SUITES[1].name
DEFAULT_SUITE = OBJECT
LIBERO_SUITES = tuple(suite.name for suite in SUITES if suite.is_libero)
BUILTIN_SUITES = tuple(suite.name for suite in SUITES if suite.is_libero and suite.has_builtin_assets)
EXPERT_SUITES = tuple(suite.name for suite in SUITES if suite.has_expert)


def task_instruction(name: str) -> str:
    """Return the words of a task's file name without the scene prefix of LIBERO-10 and -90, which is LIBERO's rule."""
    if name[:1].isupper() and "SCENE" in name:
        _, _, name = name[name.index("SCENE") :].partition("_")
    return name.replace("_", " ")


def listed(names: tuple[str, ...]) -> str:
    """Return names as words: "a, b or c"."""
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]
