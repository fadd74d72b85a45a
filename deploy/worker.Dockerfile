# The worker, without torch. Build from the repository's root:
#   docker build -f deploy/worker.Dockerfile -t odradek-worker .
# For a GPU: --build-arg EXTRAS=worker,cuda
# The whole image, for its C compiler: worker/scanner.py is at its best with one.
FROM python:3.11 AS build
ARG EXTRAS=worker-cpu
RUN pip install --no-cache-dir uv==0.13.9 && python -m venv /opt/odradek
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY schemas schemas
COPY trainer trainer
COPY worker worker
RUN uv pip install --no-cache --python /opt/odradek/bin/python -c constraints.txt ".[${EXTRAS}]"

FROM python:3.11-slim
LABEL org.opencontainers.image.title="odradek-worker" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 odradek
COPY --from=build /opt/odradek /opt/odradek
ENV PATH=/opt/odradek/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
EXPOSE 9108
STOPSIGNAL SIGTERM
ENTRYPOINT ["odradek-worker"]
CMD ["run"]
