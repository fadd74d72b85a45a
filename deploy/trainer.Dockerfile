# The trainer. Build from the repository's root:
#   docker build -f deploy/trainer.Dockerfile -t odradek-trainer .
# --build-arg TORCH_BACKEND=cpu takes a torch without CUDA, a fifth of the size, where the index
# that has it can be reached.
FROM python:3.11.14-bookworm AS build
RUN pip install --no-cache-dir uv==0.13.9
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_SYSTEM_CERTS=true
RUN uv venv --python "$(command -v python3)" /opt/odradek
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY schemas schemas
COPY trainer trainer
COPY worker worker
ARG TORCH_BACKEND=
# The constraints name the torch with CUDA, so they are not for the other one.
RUN --mount=type=cache,target=/root/.cache/uv \
    if [ -n "$TORCH_BACKEND" ]; then set -- "--torch-backend=$TORCH_BACKEND"; \
    else set -- -c constraints.txt; fi \
    && uv pip install --python /opt/odradek/bin/python "$@" ".[trainer]"

FROM python:3.11.14-slim-bookworm
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="odradek-trainer" \
      org.opencontainers.image.description="Fits detectors to normal events and seals them" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN rm -rf /usr/local/lib/python3.11/site-packages/pip* /usr/local/lib/python3.11/ensurepip \
       /usr/local/bin/pip* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin odradek \
    && install -d -o 10001 /models
COPY --from=build /opt/odradek /opt/odradek
# onnxruntime reports nothing to anybody, and does not complain that it cannot keep an id for it.
ENV PATH=/opt/odradek/bin:$PATH PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
USER 10001
# Training stops at its checkpoint and goes on from there.
STOPSIGNAL SIGTERM
ENTRYPOINT ["odradek-trainer"]
