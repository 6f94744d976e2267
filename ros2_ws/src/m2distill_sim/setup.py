from setuptools import find_packages, setup

name = "m2distill_sim"

setup(
    name=name,
    version="0.1.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{name}"]),
        (f"share/{name}", ["package.xml"]),
    ],
    entry_points={"console_scripts": ["sim_node = m2distill_sim.ros.nodes.sim_node:main"]},
    extras_require={"test": ["pytest"]},
)
