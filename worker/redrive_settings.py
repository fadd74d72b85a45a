"""The settings of a redrive: those of `odradek-worker run` that apply, and its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from schemas.dead_letter import Reason
from schemas.errors import did_you_mean
from worker.kafka_properties import ClientProperties
from worker.settings import Settings, read_as


class RedriveSettings(Settings):
    """Score dead letters again, up to where their topic ends now; then end.

    The scores name the records' own places in the input topic. What fails again becomes a dead
    letter again, with one more attempt. Its group keeps its place, so that what was stopped goes
    on there; a redrive by reason has a group of its own, and leaves what it skips to others. It
    has no breaker, since many may fail again.
    """

    model_config = SettingsConfigDict(cli_prog_name="odradek-worker redrive")

    reason: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="The reasons to redrive, such as not_json,text; all if not set."
    )
    to_input: bool = Field(
        False,
        description="Send the records to the input topic again, for its workers; needs no model.",
    )
    group: str | None = Field(
        None,
        min_length=1,
        description="The group of the input topic's workers, which the redrive's is named after: "
        "GROUP-redrive, or GROUP-redrive-REASONS.",
    )
    # Not that of `run`, which may be at work on this machine with the same environment.
    http_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        0, description="The port of /metrics, /healthz and /readyz; 0 takes any free one."
    )

    @field_validator("reason", mode="before")
    @classmethod
    def _reasons(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        known = [reason.value for reason in Reason]
        names = sorted({name.strip() for name in given.split(",")} - {""})
        for name in names:
            if name not in known:
                raise ValueError(
                    f"{name!r} is no reason{did_you_mean(name, known)}; wanted some of "
                    f"{', '.join(known)}"
                )
        return names

    @model_validator(mode="after")
    def _has_a_model(self) -> Self:
        if self.model is None and not self.to_input:
            raise ValueError("ODRADEK_MODEL (--model) is not set; only --to-input needs none")
        return self

    @property
    def reasons(self) -> frozenset[Reason]:
        """The reasons to redrive."""
        return frozenset(map(Reason, self.reason)) or frozenset(Reason)

    @property
    def group_id(self) -> str:
        return "-".join([super().group_id, "redrive", *self.reason])

    @property
    def reads(self) -> str:
        return self.dead_letter_topic

    @property
    def writes(self) -> tuple[str, str]:
        return self.input_topic if self.to_input else self.output_topic, self.dead_letter_topic


def read_redrive_settings(
    arguments: Sequence[str],
) -> tuple[RedriveSettings, ClientProperties]:
    """Read the settings of `redrive`: see `worker.settings.read_as`."""
    return read_as(RedriveSettings, arguments)
