"""The metrics of records, turns and latency, each declared once."""

from __future__ import annotations

from enum import StrEnum
from typing import get_args

from schemas.dead_letter import Reason
from schemas.score import Verdict
from worker.metric import Label, Metric
from worker.turn import Released

SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
    *(120, 300, 600, 1_800, 3_600),  # Of events that come late by nature.
)
STAGE_SECONDS = (0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
BATCH_RECORDS = (1, 4, 16, 64, 256, 1024, 4096, 16384)


class Stage(StrEnum):
    """The stages of a turn, in their order."""

    READ = "read"
    DECODE = "decode"
    SCORE = "score"
    ENCODE = "encode"
    WRITE = "write"
    SETTLE = "settle"


_STAGE = Label("stage", tuple(Stage))
_OUTCOME = Label("outcome", (*get_args(Verdict), "dead_letter"))

# What became of records.
RECORDS = Metric(
    "counter",
    "odradek_records",
    "Records whose output the broker has acknowledged, by what became of them.",
    "records",
    (_OUTCOME,),
)
DEAD_LETTERS = Metric(
    "counter",
    "odradek_dead_letters",
    "Records that could not be scored, by reason.",
    "records",
    (Label("reason", tuple(Reason)),),
)
UNGROUPED = Metric(
    "counter",
    "odradek_ungrouped_events",
    "Events judged by the pooled calibration because they named no group that has its own.",
    "events",
)
TRUNCATED = Metric(
    "counter",
    "odradek_outputs_truncated",
    "Outputs written again in their smaller form because the topic refused their size.",
    "records",
)
GAPS = Metric(
    "counter",
    "odradek_gaps",
    "Jumps over input records that were lost before they were read.",
    "jumps",
)
LOST_RECORDS = Metric(
    "counter",
    "odradek_lost_records",
    "Input records lost before they were read, at least: retention, truncation, deletion.",
    "records",
)

# Turns.
STAGE_TIME = Metric(
    "histogram",
    "odradek_turn_stage_seconds",
    "Wall time of each stage of a turn, without other stages within it; reading includes waiting "
    "for events.",
    "seconds",
    (_STAGE,),
    STAGE_SECONDS,
)
STAGE_CPU = Metric(
    "counter",
    "odradek_turn_stage_cpu_seconds",
    "CPU time of the worker's own thread in each stage of its turns.",
    "seconds",
    (_STAGE,),
)
BATCH = Metric(
    "histogram", "odradek_batch_records", "Records in a turn.", "records", (), BATCH_RECORDS
)
TURNS = Metric(
    "counter",
    "odradek_turns",
    "Acknowledged turns, by why their batch was as large as it was: full, waited for as long "
    "as it may, or drained, with nothing more to be read.",
    "turns",
    (Label("released", tuple(Released)),),
)
TURNS_UNDONE = Metric(
    "counter",
    "odradek_turns_undone",
    "Turns whose transaction was aborted, and whose records are read again.",
    "turns",
)
LAST_TURN = Metric(
    "gauge",
    "odradek_last_turn_timestamp_seconds",
    "When the last turn was acknowledged; before the first, when the worker started.",
    "epoch seconds",
)
LAST_EVENT = Metric(
    "gauge",
    "odradek_last_event_timestamp_seconds",
    "The latest own time of the last turn's events, or their reading if that was earlier; before "
    "the first, when the worker started.",
    "epoch seconds",
)
LAST_BEAT = Metric(
    "gauge",
    "odradek_last_beat_timestamp_seconds",
    "When the worker's loop last came round, with a turn or without; /healthz judges by it.",
    "epoch seconds",
)

# Latency.
LATENCY = Metric(
    "histogram",
    "odradek_event_latency_seconds",
    "From an event's own time to the acknowledgement of its score; the sum of the next two.",
    "seconds",
    (),
    SECONDS,
)
AGE_AT_READ = Metric(
    "histogram",
    "odradek_event_age_at_read_seconds",
    "From an event's own time to its reading: what passed before this worker had it.",
    "seconds",
    (),
    SECONDS,
)
IN_WORKER = Metric(
    "histogram",
    "odradek_event_in_worker_seconds",
    "From an event's reading to the acknowledgement of its score.",
    "seconds",
    (),
    SECONDS,
)
RECORD_WAIT = Metric(
    "histogram",
    "odradek_record_wait_seconds",
    "From a record's timestamp in Kafka to its reading, of sampled records: the part of the age "
    "that passed in the topic.",
    "seconds",
    (),
    SECONDS,
)
AHEAD = Metric(
    "counter",
    "odradek_events_ahead_of_clock",
    "Events whose own time lies after their reading: a clock is wrong. No latency is told of them.",
    "events",
)
RECORDS_AHEAD = Metric(
    "counter",
    "odradek_sampled_records_ahead_of_clock",
    "Sampled records whose timestamp in Kafka lies after their reading.",
    "records",
)
