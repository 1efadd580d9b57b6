"""TensorFlow Serving's REST API of predictions: `POST /v1/models/M:predict`, with rows
(`instances`) or columns (`inputs`), and what all share as `context`.

A value may stand alone or in a list of its own, as in a tensor of shape (n, 1); bytes as
`{"b64": "..."}`. Names are those of `{"columns": ...}`.
"""

import base64
import binascii
from typing import Any

import orjson

from checkpointer.serving.request import (
    BadRequest,
    Given,
    check_extent,
    given_columns,
    with_context,
)
from stream.columns import Features

#: What a version may be called: the one that is served, alone.
LABELS = ("stable", "latest", "served")


def read_predict(body: bytes, features: Features, rows_max: int) -> tuple[Given, str]:
    """The request, and the name under which its answers stand. Raises BadRequest."""
    check_extent(body, rows_max)
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"body: not JSON ({error}); send {{'instances': [...]}}") from error
    if not isinstance(asked, dict) or ("instances" in asked) == ("inputs" in asked):
        raise BadRequest("body: send an object with 'instances' or with 'inputs'")
    if "instances" in asked:
        columns, answers = _of_instances(asked["instances"], rows_max), "predictions"
    else:
        columns, answers = _of_inputs(asked["inputs"]), "outputs"
    for name in (f.name for f in features if f.is_list and f.name in columns):
        columns[name] = [v if isinstance(v, list | None) else [v] for v in columns[name]]
    given = given_columns(columns, features, rows_max)
    context = asked.get("context")
    if context is not None:
        if not isinstance(context, dict):
            raise BadRequest("context: send an object of names and values")
        context = {name: _value("context", value) for name, value in context.items()}
        given = with_context(given, context, features, by_row=False)
    return given, answers


def status(version: str) -> dict[str, Any]:
    """Of `GET /v1/models/M`."""
    fine = {"error_code": "OK", "error_message": ""}
    there = [{"version": version, "state": "AVAILABLE", "status": fine}] if version else []
    return {"model_version_status": there}


def _of_instances(instances: Any, rows_max: int) -> dict[str, list[Any]]:
    if not isinstance(instances, list) or not all(isinstance(row, dict) for row in instances):
        raise BadRequest("instances: send a list of objects of names and values")
    if len(instances) > rows_max:
        raise BadRequest(
            f"instances: {len(instances)} rows; send at most {rows_max} in one request"
        )
    names = dict.fromkeys(name for row in instances for name in row) or {"item": None}
    return {name: [_value(name, row.get(name)) for row in instances] for name in names}


def _of_inputs(inputs: Any) -> dict[str, list[Any]]:
    if not isinstance(inputs, dict) or not all(isinstance(v, list) for v in inputs.values()):
        raise BadRequest("inputs: send an object of names and lists of values")
    return {name: [_value(name, value) for value in values] for name, values in inputs.items()}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict) and value.keys() == {"b64"}:
        try:
            raw = base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise BadRequest(f"{name}, b64 = {value['b64']!r:.60}: {error}") from error
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw  # a picture; where text is expected it is refused
    return value
