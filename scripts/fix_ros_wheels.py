"""Point the .cmake files of the ROS 2 wheels at this Python and this numpy.

The exported CMake targets of the wheels name include folders of the container that built them. A package compiled
against them fails with "imported target includes non-existent path". Run the script with the Python that has the
wheels, after each installation of ROS 2 wheels. A second run changes nothing.
"""

import os
import re
import sys
import sysconfig
from pathlib import Path

import numpy

BUILDER_PYTHON = re.compile(r"/opt/python/cp\d+-cp\d+/include/python[\d.]+")
BUILDER_NUMPY = re.compile(r"/opt/python/cp\d+-cp\d+/lib/python[\d.]+/site-packages/numpy/_core/include")


def fix(text: str, python_include: str, numpy_include: str) -> str:
    """Return `text` with the include folders of the build container replaced by the given ones."""
    text = BUILDER_PYTHON.sub(lambda _: python_include, text)
    return BUILDER_NUMPY.sub(lambda _: numpy_include, text)


def main() -> None:
    """Rewrite the .cmake files below share/ that name folders of the build container."""
    share = Path(sys.prefix) / "share"
    fixed = 0
    for path in share.rglob("*.cmake"):
        before = path.read_text()
        after = fix(before, sysconfig.get_path("include"), numpy.get_include())
        if after != before:
            temporary = path.with_name(path.name + ".tmp")
            with temporary.open("w") as file:
                file.write(after)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            fixed += 1
    print(f"fixed {fixed} .cmake files under {share}")


if __name__ == "__main__":
    main()
