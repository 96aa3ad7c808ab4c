# Crossfold in a container.
#   docker build -t crossfold .                                        for CPUs
#   docker build -t crossfold --build-arg TORCH_BACKEND=cu130 .        for NVIDIA GPUs; run it with --gpus all
#   docker run --rm --shm-size 2g --user "$(id -u):$(id -g)" -v "$PWD:/work" crossfold demo
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

# Which build of torch is installed: cpu, or one for a version of CUDA, such as cu130.
ARG TORCH_BACKEND=cpu
RUN python -m pip install --no-cache-dir 'uv>=0.9'

WORKDIR /opt/crossfold
COPY . .
RUN sed -n '/^[a-z]/s/ \\$//p' requirements.lock > /tmp/versions.txt \
 && uv pip install --system --no-cache --torch-backend "${TORCH_BACKEND}" --constraint /tmp/versions.txt '.[train,media,text,s3,gs]' \
 && crossfold --version

# The workspace is ./.crossfold of the folder that is mounted at /work. Any user may run this, also one without an account inside.
ENV HOME=/tmp USER=crossfold RAY_USAGE_STATS_ENABLED=0
WORKDIR /work
ENTRYPOINT ["crossfold"]
CMD ["--help"]
