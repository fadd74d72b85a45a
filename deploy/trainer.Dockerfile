# The trainer. Build from the repository's root:
#   docker build -f deploy/trainer.Dockerfile -t odradek-trainer .
FROM python:3.11-slim AS build
RUN pip install --no-cache-dir uv==0.13.9 && python -m venv /opt/odradek
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY schemas schemas
COPY trainer trainer
COPY worker worker
RUN uv pip install --no-cache --python /opt/odradek/bin/python -c constraints.txt ".[trainer]"

FROM python:3.11-slim
LABEL org.opencontainers.image.title="odradek-trainer" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 odradek && install -d -o odradek /models
COPY --from=build /opt/odradek /opt/odradek
ENV PATH=/opt/odradek/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
VOLUME /models
ENTRYPOINT ["odradek-trainer"]
