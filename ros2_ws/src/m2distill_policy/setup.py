from glob import glob

from setuptools import find_packages, setup

name = "m2distill_policy"

setup(
    name=name,
    version="0.1.0",
    packages=find_packages(),
    package_data={name: ["config/*", "config/arms/*", "starter/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{name}"]),
        (f"share/{name}", ["package.xml"]),
        (f"share/{name}/launch", glob("../../../launch/*.launch.py")),
    ],
    entry_points={
        "console_scripts": [
            "policy_node = m2distill_policy.ros.nodes.policy_node:main",
            "teleop_node = m2distill_policy.ros.nodes.teleop_node:main",
            "recorder_node = m2distill_policy.ros.nodes.recorder_node:main",
        ]
    },
    extras_require={"test": ["pytest"]},
)
