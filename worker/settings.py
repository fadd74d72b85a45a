"""The worker's settings: one definition for the environment, the flags, the help and the checks.

`ODRADEK_INPUT_TOPIC=events` and `--input-topic events` are the same; a flag wins. `KAFKA_*` (or
`--kafka-*`) are librdkafka's own properties: see `worker.kafka_properties`. All problems are
found before anything starts, and told in one message.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as _FlagError

from schemas.errors import SettingsError, did_you_mean
from worker.kafka_properties import SERVICE_LINK, ClientProperties, kafka_properties

PREFIX = "ODRADEK_"
# Variables of the same prefix that other programs of the project read.
_OTHERS = frozenset({"ODRADEK_CACHE", "ODRADEK_DATA"})

# A day: timers refuse what is much longer, and infinity is no time.
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class WorkerSettings(BaseSettings):
    """Read events from Kafka, score them, and write scores and verdicts back."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        cli_prog_name="odradek-worker run",
        cli_kebab_case=True,
        cli_exit_on_error=False,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        env_ignore_empty=True,
        protected_namespaces=(),
    )

    model: Path = Field(
        description="The sealed model file. It is watched; a new one is tried between turns."
    )
    input_topic: str = Field("events", min_length=1, description="The topic of events.")
    output_topic: str = Field("scores", min_length=1, description="The topic of score records.")
    dead_letter_topic: str = Field(
        "dead-letters", min_length=1, description="The topic of records that cannot be scored."
    )
    group: str | None = Field(
        None, min_length=1, description="The consumer group; odradek-<input topic> if not set."
    )
    # 4,096 gave 152,000 events/s on a core, 1,024 gave 127,000, 512 gave 101,000.
    batch_max: Annotated[int, Field(ge=1, le=100_000)] = Field(
        4096, description="The most records in a turn."
    )
    delivery: Literal["at-least-once", "exactly-once"] = Field(
        "at-least-once", description="The promise of delivery; exactly-once is not built yet."
    )
    provider: Literal["auto", "cuda", "cpu"] = Field(
        "auto", description="Where to score; cuda refuses to start without a GPU."
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
        120.0, description="/healthz fails when no turn or poll ended for so long."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto: text on a terminal, JSON elsewhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least serious lines to log."
    )

    @field_validator("delivery")
    @classmethod
    def _not_yet(cls, delivery: str) -> str:
        if delivery == "exactly-once":
            raise ValueError("exactly-once is not built yet; at-least-once is what there is")
        return delivery

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


def read_settings(arguments: Sequence[str]) -> tuple[WorkerSettings, ClientProperties]:
    """Read settings from flags and environment.

    Raises:
        SettingsError: names every setting that is wrong, unknown or missing.
        SystemExit: help was asked for, and has been printed.
    """
    flags, kafka_flags = _split_flags(arguments)
    problems = _unknown_variables(os.environ)
    settings = None
    try:
        settings = WorkerSettings(_cli_parse_args=flags)  # type: ignore[call-arg]  # From outside.
    except ValidationError as error:
        problems += [_tell(part["loc"], part["msg"], part.get("input")) for part in error.errors()]
    except _FlagError as error:
        problems.append(str(error))
    kafka, kafka_problems = kafka_properties({**os.environ, **kafka_flags})
    problems += kafka_problems
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


def _unknown_variables(environment: Iterable[str]) -> list[str]:
    known = {name.upper() for name in WorkerSettings.model_fields}
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
