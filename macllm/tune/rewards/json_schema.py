"""JSON schema: what is said is JSON that the row's schema allows (https://json-schema.org)."""

import json
import re
from functools import lru_cache
from typing import Any

from macllm.errors import OptionError
from macllm.tune.rewards.reward import RawRow, Reward, said

_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)


class JsonSchema(Reward):
    """1 where what is said, with or without a fence of ```json around it, is JSON that ``schema`` allows.

    A schema may refer to parts of itself; what it names by address is never fetched. Raises OptionError where the
    package ``jsonschema`` is not installed.
    """

    def __init__(self) -> None:
        try:
            import jsonschema  # noqa: F401
        except ImportError:
            raise OptionError(
                "the reward json_schema needs the package jsonschema: pip install 'macllm[rewards]'"
            ) from None

    def missing(self, row: RawRow) -> str | None:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import validator_for

        schema = row.get("schema")
        if not isinstance(schema, dict | bool):
            return "'schema' is no object, which the reward json_schema checks by"
        try:
            validator_for(schema).check_schema(schema)
        except SchemaError as error:
            return f"'schema' is no JSON schema ({error.message})"
        return None

    def __call__(self, prompt: str, completion: str, row: RawRow) -> float:
        from referencing.exceptions import Unresolvable

        text = said(completion)
        fenced = _FENCE.match(text)
        try:
            value = json.loads(fenced[1] if fenced else text)
            return float(_validator(json.dumps(row["schema"], sort_keys=True)).is_valid(value))
        except (ValueError, RecursionError, Unresolvable):
            return 0.0


@lru_cache(maxsize=4096)
def _validator(schema: str) -> Any:
    from jsonschema.validators import validator_for
    from referencing import Registry

    told = json.loads(schema)
    return validator_for(told)(told, registry=Registry())
