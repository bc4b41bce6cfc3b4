"""A config as flat text: the params of a tracked run."""

import json
from collections.abc import Mapping
from typing import Any

from infra.config import Config

VALUE_LIMIT = 6000


def flatten(config: Config | Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys to text; sequences and booleans as JSON; values cut at 6000 characters, MLflow's limit."""
    values = config.model_dump(mode="json") if isinstance(config, Config) else config
    params: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Config | Mapping):
            params |= flatten(value, f"{prefix}{key}.")
        else:
            text = json.dumps(value) if isinstance(value, list | tuple | bool) else str(value)
            params[f"{prefix}{key}"] = text[:VALUE_LIMIT]
    return params
