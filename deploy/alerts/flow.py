"""The rules about workers and flow: are they there, do they move, is anything lost?"""

from __future__ import annotations

from deploy.alerts.parameters import Parameters
from deploy.alerts.rule import Rule, duration


def worker_rules(p: Parameters) -> tuple[Rule, ...]:
    """Return the rules about the workers themselves."""
    ours, restarts_in = f'{{job="{p.job}"}}', duration(p.restart_window_s)
    return (
        Rule(
            "OdradekWorkersMissing",
            "odradek-workers",
            "page",
            f"{p.workers_expected} - (sum(up{ours}) or vector(0))",
            0,
            p.workers_missing_for_s,
            f"{{{{ $value }}}} of {p.workers_expected} workers are not there",
            "They do not answer, or are gone from discovery. The others have taken their "
            "partitions; watch the lag.",
            keep_s=p.keep_firing_s,
        ),
        Rule(
            "OdradekRestarts",
            "odradek-workers",
            "page",
            f"max by (instance) (changes(process_start_time_seconds{ours}[{restarts_in}]))",
            p.restarts_max,
            p.restart_for_s,
            'Worker {{ $labels.instance }} was started again {{ printf "%.0f" $value }} times in '
            f"{restarts_in}",
            "It ends again and again. Its last log line says why, its exit code whose fault it is.",
            keep_s=p.keep_firing_s,
        ),
        Rule(
            "OdradekHolding",
            "odradek-workers",
            "page",
            f"max by (instance, hold) (odradek_held{ours})",
            0,
            p.held_for_s,
            "Worker {{ $labels.instance }} holds ({{ $labels.hold }}): it writes and commits "
            "nothing",
            "Nothing is lost while it holds. rejects: the breaker is open, almost nothing on the "
            "input topic can be scored. output: an output topic refuses what is written. input: "
            "the input topic is gone.",
            keep_s=p.keep_firing_s,
        ),
        Rule(
            "OdradekNotReady",
            "odradek-workers",
            "page",
            # One that holds is not ready either, and has an alert that says more.
            f"max by (instance) (1 - odradek_ready{ours})\n"
            f"* (1 - max by (instance) (odradek_held{ours}))",
            0,
            p.unready_for_s,
            "Worker {{ $labels.instance }} is up and takes no events",
            "No broker answers, it is out of its group, or it is stuck: /readyz says which.",
            keep_s=p.keep_firing_s,
        ),
    )


def flow_rules(p: Parameters) -> tuple[Rule, ...]:
    """Return the rules about what flows through all workers together."""
    ours, latency_in = f'{{job="{p.job}"}}', duration(p.latency_window_s)
    steps = f"[{duration(p.lag_window_s)}:{duration(max(1, p.lag_window_s // 20))}]"
    # While a partition goes from one worker to another, both may show it for a scrape.
    lags = f"max by (partition) (odradek_lag_records{ours})"
    lag = f"sum({lags})"
    return (
        Rule(
            "OdradekNoEvents",
            "odradek-flow",
            "page",
            f"sum(increase(odradek_records_total{ours}[{duration(p.quiet_window_s)}])) "
            "or vector(0)",
            1,
            p.quiet_for_s,
            f"No record has got through for {duration(p.quiet_window_s + p.quiet_for_s)}",
            "Nothing flagged does not mean that nothing is wrong: nothing was looked at. Either "
            "nothing arrives, or nothing gets through.",
            below=True,
        ),
        Rule(
            "OdradekLagGrowing",
            "odradek-flow",
            "page",
            f"deriv({lag}{steps})\n* ({lag} > bool {p.lag_records_min})",
            p.lag_growth_per_s,
            p.lag_for_s,
            'The lag grows by {{ printf "%.0f" $value }} records a second',
            f"It is above {p.lag_records_min:,} records: events come faster than they are scored.",
            keep_s=p.keep_firing_s,
        ),
        Rule(
            "OdradekPartitionStalled",
            "odradek-flow",
            "page",
            f"{lags}\n* (max by (partition) (changes(odradek_position_offset{ours}"
            f"[{duration(p.stalled_window_s)}])) == bool 0)",
            p.stalled_records_min,
            p.stalled_for_s,
            'Partition {{ $labels.partition }} stands still, {{ printf "%.0f" $value }} records '
            "behind",
            "Others may go on. A producer has left a transaction open, its leader is away, or its "
            "worker takes nothing.",
            keep_s=p.keep_firing_s,
        ),
        Rule(
            "OdradekLatencyHigh",
            "odradek-flow",
            "page",
            f"histogram_quantile({p.latency_quantile}, sum by (le) "
            f"(rate(odradek_event_latency_seconds_bucket{ours}[{latency_in}])))\n"
            f"* (sum(increase(odradek_event_latency_seconds_count{ours}[{latency_in}]))"
            f" >= bool {p.latency_events_min})",
            p.latency_objective_s,
            p.latency_for_s,
            f"{p.latency_quantile:.0%} of events wait up to {{{{ $value | humanizeDuration }}}} "
            "for their score",
            f"From an event's own time to the acknowledged score; the objective is "
            f"{p.latency_objective_s:g} s. 1h stands for an hour and longer.",
            keep_s=p.keep_firing_s,
        ),
    )


def record_rules(p: Parameters) -> tuple[Rule, ...]:
    """Return the rules about records that are not as they should be: a share of all, and a number,
    without which one of a quiet topic would do."""
    window = duration(p.bad_window_s)

    def increase(series: str) -> str:
        return f"sum(increase({series}[{window}]))"

    records = increase(f'odradek_records_total{{job="{p.job}"}}')

    def rule(name: str, bad_series: str, summary: str, description: str) -> Rule:
        bad = increase(bad_series)
        return Rule(
            name,
            "odradek-records",
            "ticket",
            f"{bad} / clamp_min({records}, 1)\n* ({bad} >= bool {p.bad_records_min})",
            p.bad_share,
            p.bad_for_s,
            f"{{{{ $value | humanizePercentage }}}} of {summary}",
            description,
            keep_s=p.keep_firing_s,
        )

    return (
        rule(
            "OdradekDeadLetters",
            f'odradek_dead_letters_total{{job="{p.job}"}}',
            "records cannot be read",
            "They are kept whole on the dead-letter topic, each with its reason.",
        ),
        rule(
            "OdradekUnscorable",
            f'odradek_records_total{{job="{p.job}", outcome="unscorable"}}',
            "events get no score",
            "Such an event can be flagged by nothing: it misses values that the model does not do "
            "without, or its score is not finite.",
        ),
        rule(
            "OdradekClockSkew",
            f'odradek_events_ahead_of_clock_total{{job="{p.job}"}}',
            "events come from the future",
            "A clock is wrong. No latency is told of such events, so its alert is blind to them.",
        ),
    )


def delivery_rules(p: Parameters) -> tuple[Rule, ...]:
    """Return the rules about what was promised of delivery."""
    ours, lost_in = f'{{job="{p.job}"}}', duration(p.lost_window_s)
    failed = f'{{job="{p.job}", outcome="failed"}}'
    return (
        Rule(
            "OdradekCommitsFailing",
            "odradek-delivery",
            "page",
            f"sum by (instance) (increase(odradek_commits_total{failed}"
            f"[{duration(p.commit_window_s)}]))",
            p.commits_failed_min,
            p.commit_for_s,
            'Commits of worker {{ $labels.instance }} fail, {{ printf "%.0f" $value }} in '
            f"{duration(p.commit_window_s)}",
            "Nothing is lost, but a restart would score and write again what was not committed.",
            keep_s=p.keep_firing_s,
        ),
        Rule(
            "OdradekInputLost",
            "odradek-delivery",
            "page",
            # A jump at start is in the first scrape already, and then no increase: a young
            # process is asked for the count itself.
            f"sum by (instance) (increase(odradek_gaps_total{ours}[{lost_in}]))\n"
            f"+ sum by (instance) (odradek_gaps_total{ours}"
            f" * (time() - process_start_time_seconds{ours} < bool {p.lost_window_s}))",
            0,
            p.lost_for_s,
            "Worker {{ $labels.instance }} jumped over input that was lost before it was read",
            "Retention, truncation or a deletion was faster than the worker; "
            "odradek_lost_records_total counts at least how many records.",
        ),
    )
