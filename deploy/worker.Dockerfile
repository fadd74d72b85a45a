# The worker, without torch. Build from the repository's root:
#   docker build -f deploy/worker.Dockerfile -t odradek-worker .
# For a GPU: --build-arg EXTRAS=worker,cuda

# The whole image, for its C compiler: worker/scanner.py is at its best with one.
FROM python:3.11.14-bookworm AS build
RUN pip install --no-cache-dir uv==0.13.9
# Compiled to bytecode here: the program cannot leave any where it runs, on a read-only system.
# The system's certificates: a company may have added its own authority.
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_SYSTEM_CERTS=true
# No pip in it, unlike in one that `python -m venv` makes.
RUN uv venv --python "$(command -v python3)" /opt/odradek
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY schemas schemas
COPY trainer trainer
COPY worker worker
ARG EXTRAS=worker-cpu
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --python /opt/odradek/bin/python -c constraints.txt ".[${EXTRAS}]"

FROM python:3.11.14-slim-bookworm
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="odradek-worker" \
      org.opencontainers.image.description="Scores the events of a Kafka topic with a sealed model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Nothing that installs packages stays. The folder is there for a volume to take its owner from.
RUN rm -rf /usr/local/lib/python3.11/site-packages/pip* /usr/local/lib/python3.11/ensurepip \
       /usr/local/bin/pip* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin odradek \
    && install -d -o 10001 /models
COPY --from=build /opt/odradek /opt/odradek
# onnxruntime reports nothing to anybody, and does not complain that it cannot keep an id for it.
ENV PATH=/opt/odradek/bin:$PATH PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1 OPENBLAS_NUM_THREADS=1
USER 10001
EXPOSE 9108
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["odradek-worker", "health"]
ENTRYPOINT ["odradek-worker"]
CMD ["run"]
