"""Which keys of the configuration are an operator's: what somebody sets who runs a site. The rest
are for experts, with defaults that were measured. In one list, so that it can be read and reviewed.
"""

#: Section -> its operator's keys, in the order of the section's own.
OPERATOR_KEYS: dict[str, tuple[str, ...]] = {
    "run": ("dir", "labelers", "shards", "learners", "replicas", "archivers", "breaker"),
    "hosts": ("addresses", "roles"),
    "stream": (
        "bootstrap_servers",
        "security_protocol",
        "topic_prefix",
        "partitions",
        "replication",
        "categorical_features",
        "numeric_features",
        "personal_features",
        "window_ms",
        "grace_ms",
        "label_strategy",
        "negative_rate",
    ),
    "labeler": ("await_verdicts", "await_breaker", "retract_horizon_ms"),
    "fraud": ("rules",),
    "breaker": ("slices",),
    "model": ("name", "kind", "categorical", "numeric", "transforms", "prior_rate", "groups"),
    "paramserver": ("staleness", "transport", "host", "memory_bytes_max"),
    "learners": ("device", "slices"),
    "governor": ("enabled", "band"),
    "checkpointer": ("root", "interval_ms", "keep", "entropy_band", "calibration_band"),
    "archive": ("root",),
    "serving": ("host", "port", "fallback_probability"),
    "replay": ("source",),
    "limits": ("model_age_max_s", "data_age_max_s", "calibration_band"),
}


def is_operators(section: str, key: str) -> bool:
    """Whether this key is an operator's; any other is an expert's."""
    return key in OPERATOR_KEYS.get(section, ())
