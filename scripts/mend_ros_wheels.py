"""Point the .cmake files of the ROS 2 wheels at this Python and this numpy.

The wheels' exported CMake targets name include folders of the container they were built in; a package compiled against
them then fails with "imported target includes non-existent path". Run it with the Python whose environment holds the
wheels, after every installation of further ones. Running it again changes nothing.
"""

import os
import re
import sys
import sysconfig
from pathlib import Path

import numpy

BUILDER_PYTHON = re.compile(r"/opt/python/cp\d+-cp\d+/include/python[\d.]+")
BUILDER_NUMPY = re.compile(r"/opt/python/cp\d+-cp\d+/lib/python[\d.]+/site-packages/numpy/_core/include")


def mend(text: str, python_include: str, numpy_include: str) -> str:
    text = BUILDER_PYTHON.sub(lambda _: python_include, text)
    return BUILDER_NUMPY.sub(lambda _: numpy_include, text)


def main() -> None:
    share = Path(sys.prefix) / "share"
    mended = 0
    for path in share.rglob("*.cmake"):
        before = path.read_text()
        after = mend(before, sysconfig.get_path("include"), numpy.get_include())
        if after != before:
            temporary = path.with_name(path.name + ".tmp")
            with temporary.open("w") as file:
                file.write(after)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            mended += 1
    print(f"mended {mended} .cmake files under {share}")


if __name__ == "__main__":
    main()
