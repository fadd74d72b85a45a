"""The worker's settings: one definition for the environment, the flags, the help and the checks.

`ODRADEK_INPUT_TOPIC=events` and `--input-topic events` are the same; a flag wins. `KAFKA_*` (or
`--kafka-*`) are librdkafka's own properties: see `worker.kafka_properties`. All problems are
found before anything starts, and told in one message.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as _FlagError

from schemas.errors import SettingsError, did_you_mean
from worker.decode import InputFormat
from worker.kafka_properties import (
    SERVICE_LINK,
    ClientProperties,
    exactly_once,
    kafka_properties,
)
from worker.starts import StartRules, epoch_ms, offsets_of

PREFIX = "ODRADEK_"
# Variables of the same prefix that other programs of the project read.
_OTHERS = frozenset({"ODRADEK_CACHE", "ODRADEK_DATA"})

# A day: timers refuse what is much longer, and infinity is no time.
Seconds = Annotated[float, Field(gt=0, le=86_400)]
MODEL = "The sealed model file. It is watched; a new one is tried between turns."


class Settings(BaseSettings):
    """What both commands on Kafka take."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        cli_kebab_case=True,
        cli_exit_on_error=False,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        env_ignore_empty=True,
        protected_namespaces=(),
    )

    model: Path | None = Field(None, description=MODEL)
    input_topic: str = Field("events", min_length=1, description="The topic of events.")
    output_topic: str = Field("scores", min_length=1, description="The topic of score records.")
    dead_letter_topic: str = Field(
        "dead-letters", min_length=1, description="The topic of records that cannot be scored."
    )
    group: str | None = Field(
        None, min_length=1, description="The consumer group; odradek-<input topic> if not set."
    )
    # 4,096 gave 155,000 events/s on a core, 8,192 as many, 16,384 gave 136,000, 1,024 gave 112,000,
    # 256 gave 70,000 (`python -m bench.stages --of turns`).
    batch_max: Annotated[int, Field(ge=1, le=100_000)] = Field(
        4096, description="The most records in a turn."
    )
    batch_wait_ms: Annotated[int, Field(ge=0, le=1_000)] = Field(
        0, description="How long the first record of a turn waits for others; fewer, larger turns."
    )
    input_format: InputFormat = Field(
        "json", description="The format of records without a content-type header."
    )
    delivery: Literal["at-least-once", "exactly-once"] = Field(
        "at-least-once",
        description="The promise of delivery; exactly-once needs read_committed readers.",
    )
    on_gap: Literal["stop", "jump"] = Field(
        "stop", description="When records were lost before they were read; jump counts them."
    )
    provider: Literal["auto", "cuda", "cpu"] = Field(
        "auto",
        description="Where to score; cuda refuses the CPU, at start and when the GPU fails.",
    )
    # For 30 million parameters and a dozen wide layers twice over; a reload holds two such.
    gpu_mem_limit_mb: Annotated[int, Field(ge=64, le=1_000_000)] = Field(
        2_000, description="The most GPU memory for one model's weights and values."
    )
    gpu_tf32: bool = Field(
        False, description="Multiply in TF32, if the golden batch holds with it; faster, coarser."
    )
    gpu_graph: bool = Field(
        False, description="Record CUDA graphs, if every node has a CUDA kernel; faster."
    )
    # One: the default spins every core between the batches of a quiet topic.
    threads: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="onnxruntime's threads within a batch."
    )
    http_host: str = Field(
        "0.0.0.0",  # noqa: S104  # Prometheus and the orchestrator's probes come from outside.
        description="The address for /metrics, /healthz and /readyz.",
    )
    http_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        9108, description="Their port; 0 takes any free one."
    )
    top_features: Annotated[int, Field(ge=0, le=1000)] = Field(
        5, description="How many features a flagged event's record explains."
    )
    model_digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        None, description="Serve only the model with this digest."
    )
    model_check_interval_s: Seconds = Field(
        2.0, description="How often to look for a new model file."
    )
    allow_contract_change: bool = Field(
        False, description="Let a new model file have other features than the current one."
    )
    # Below the 30 s that Kubernetes grants, so that we say what was left before we are killed.
    stop_timeout_s: Seconds = Field(
        25.0, description="How long to settle the last turn after SIGTERM."
    )
    start_timeout_s: Seconds = Field(
        30.0, description="How long the broker may take to answer at start."
    )
    stuck_after_s: Seconds = Field(
        120.0, description="So long without a turn, a poll or its group, and /healthz fails."
    )
    drift_window_s: Seconds = Field(
        900.0, description="How far back drift is measured, on a topic that is not quiet."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto: text on a terminal, JSON elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least serious lines to log."
    )

    @model_validator(mode="after")
    def _three_topics(self) -> Self:
        topics = (self.input_topic, self.output_topic, self.dead_letter_topic)
        if len(set(topics)) < len(topics):
            raise ValueError(
                f"input, output and dead-letter topic must be three; seen {', '.join(topics)}"
            )
        return self

    @property
    def group_id(self) -> str:
        return self.group or f"odradek-{self.input_topic}"

    @property
    def reads(self) -> str:
        """The topic that is read."""
        return self.input_topic

    @property
    def writes(self) -> tuple[str, str]:
        """The topics that are written: of what is made of a record, and of dead letters."""
        return self.output_topic, self.dead_letter_topic

    @property
    def start_rules(self) -> StartRules:
        return StartRules(on_gap=self.on_gap)


class WorkerSettings(Settings):
    """Read events from Kafka, score them, and write scores and verdicts back."""

    model_config = SettingsConfigDict(cli_prog_name="odradek-worker run")

    model: Path = Field(description=MODEL)
    start: Literal["earliest", "latest"] = Field(
        "earliest", description="Where a group without commits begins; later partitions: earliest."
    )
    from_time: str | None = Field(
        None,
        description="Begin at this time (RFC 3339 or epoch ms) whatever was committed; once.",
    )
    from_offset: str | None = Field(
        None, description="Begin at this offset, or at 0:17,2:40 by partition; once."
    )
    breaker: Literal["on", "off"] = Field(
        "on", description="Whether to hold when almost nothing can be scored."
    )
    breaker_ratio: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="The share of bad records, of the latest 100 to 1,000, that opens it."
    )

    tracing: Literal["off", "on"] = Field(
        "off", description="Send an OpenTelemetry span of each turn; OTEL_* variables say how."
    )

    @field_validator("from_time")
    @classmethod
    def _a_time(cls, text: str | None) -> str | None:
        if text is not None:
            epoch_ms(text)
        return text

    @field_validator("from_offset")
    @classmethod
    def _offsets(cls, text: str | None) -> str | None:
        if text is not None:
            offsets_of(text)
        return text

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.from_time and self.from_offset:
            raise ValueError("ODRADEK_FROM_TIME and ODRADEK_FROM_OFFSET: only one can be heeded")
        return self

    @property
    def start_rules(self) -> StartRules:
        return StartRules(
            self.start,
            self.on_gap,
            epoch_ms(self.from_time) if self.from_time else None,
            offsets_of(self.from_offset) if self.from_offset else {},
        )


def read_settings(arguments: Sequence[str]) -> tuple[WorkerSettings, ClientProperties]:
    """Read the settings of `run`: see `read_as`."""
    return read_as(WorkerSettings, arguments)


_S = TypeVar("_S", bound=Settings)


def read_as(kind: type[_S], arguments: Sequence[str]) -> tuple[_S, ClientProperties]:
    """Read a command's settings from flags and environment.

    Raises:
        SettingsError: names every setting that is wrong, unknown or missing.
        SystemExit: help was asked for, and has been printed.
    """
    flags, kafka_flags = _split_flags(arguments)
    # The environment may be that of `run`.
    known = {name.upper() for name in (*WorkerSettings.model_fields, *kind.model_fields)}
    problems = _unknown_variables(os.environ, known)
    settings = None
    try:
        settings = kind(_cli_parse_args=flags)  # type: ignore[call-arg]  # From outside.
    except ValidationError as error:
        problems += [_tell(part["loc"], part["msg"], part.get("input")) for part in error.errors()]
    except _FlagError as error:
        problems.append(str(error))
    kafka, kafka_problems = kafka_properties({**os.environ, **kafka_flags})
    problems += kafka_problems
    if settings is not None and settings.delivery == "exactly-once":
        kafka, unfit = exactly_once(kafka)
        problems += unfit
    if settings is None or problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise SettingsError(f"the settings cannot be used; not starting:{lines}")
    return settings, kafka


def _split_flags(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Take `--kafka-x-y value` out of the flags, as the variables KAFKA_X_Y."""
    rest: list[str] = []
    kafka: dict[str, str] = {}
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith("--kafka-"):
            rest.append(argument)
            continue
        name, given, value = argument.removeprefix("--").partition("=")
        kafka[name.upper().replace("-", "_")] = value if given else next(remaining, "")
    return rest, kafka


def _unknown_variables(environment: Iterable[str], known: Collection[str]) -> list[str]:
    unknown = [
        name.removeprefix(PREFIX)
        for name in sorted(environment)
        if name.startswith(PREFIX) and name not in _OTHERS and not SERVICE_LINK.search(name)
    ]
    # Compared without the prefix, which would make all of them look alike.
    return [
        PREFIX
        + name
        + " is not a setting"
        + did_you_mean(name, known).replace("'", f"'{PREFIX}", 1)
        for name in unknown
        if name not in known
    ]


def _tell(place: tuple[int | str, ...], message: str, seen: object) -> str:
    if not place:
        return message.removeprefix("Value error, ")
    name = str(place[0])
    variable = f"{PREFIX}{name.upper()} (--{name.replace('_', '-')})"
    if message == "Field required":
        return f"{variable} is not set, and there is no default"
    return f"{variable}: {message.removeprefix('Value error, ')}; seen {seen!r}"
