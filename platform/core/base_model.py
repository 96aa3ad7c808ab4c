"""Frozen, strict values: unknown keys are refused with the nearest known one."""

import reprlib
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from crossfold.platform.core.errors import UserError, did_you_mean

# A slip in a count must not ask for all memory before anything is checked.
MOST_LAYERS = 64
"""Of layers, stages and iterations."""
MOST_LEVELS = 16
"""Of a TCN, whose reach doubles with each."""
MOST_WIDTH = 16_384
"""Of a layer or a kernel."""
MOST_COUNT = 1_000_000
"""Of frames, epochs, trials and all else that is counted."""

MOST_PROBLEMS = 12
"""That an error lists."""

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict, _SHORT.maxstring = 3, 12, 12, 12, 120
_SHORT.maxlong = 60


class FrozenModel(BaseModel):
    """A frozen value whose unknown keys are refused with the nearest known one."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @classmethod
    def parse(cls, data: Any, where: str) -> Self:
        """Builds the value from plain data.

        `where` names the source for the reader, such as `sweeps/demo.yaml`.
        Raises `UserError` that names each offending key, its value and the rule.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            problems = error.errors()
            lines = [_explain(cls, problem) for problem in problems[:MOST_PROBLEMS]]
            if len(problems) > MOST_PROBLEMS:
                lines.append(f"and {len(problems) - MOST_PROBLEMS} more")
            raise UserError(f"{where}: " + "; ".join(lines), "correct the named keys") from None


def _explain(cls: type[BaseModel], problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"]) or "(whole value)"
    if problem["type"] == "missing":
        return f"key {path!r} is missing"
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):
        # The rule is about keys that do not go together, and names them; the whole mapping would hide it.
        return f"{'.'.join(map(str, problem['loc']))}: {_rule(problem)}" if problem["loc"] else _rule(problem)
    if problem["type"] != "extra_forbidden":
        return f"{path} = {_SHORT.repr(problem['input'])}: {_rule(problem)}"
    known = _known_keys(cls, problem["loc"][:-1])
    return f"unknown key {path!r}" + did_you_mean(str(problem["loc"][-1]), known)


_RULES = {
    "tuple_type": "give a list, such as [0, 1]",
    "list_type": "give a list, such as [0, 1]",
    "dict_type": "give a mapping, such as {key: value}",
    "int_parsing": "give a whole number",
    "int_type": "give a whole number",
    "int_from_float": "give a whole number",
    "float_parsing": "give a number",
    "float_type": "give a number",
    "bool_parsing": "give true or false",
    "bool_type": "give true or false",
    "string_type": "give a word; one that looks like a number or a date goes in quotes",
    "model_type": "give a mapping, such as {key: value}",
    "model_attributes_type": "give a mapping, such as {key: value}",
    "invalid_key": "give a word; one that looks like a number or a date goes in quotes",
}
"""In plain words what pydantic says in those of Python."""


def _rule(problem: Any) -> str:
    """The rule that a value breaks."""
    if problem["type"] == "string_pattern_mismatch":
        return f"does not match {problem['ctx']['pattern']}"
    return _RULES.get(problem["type"], str(problem["msg"]).removeprefix("Value error, "))


def _known_keys(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The keys of the models that may stand at a path; an index of a list or a key of a mapping leads to its values."""
    models = [cls]
    for part in path:
        named = [model.model_fields[str(part)].annotation for model in models if str(part) in model.model_fields]
        models = [inner for annotation in named for inner in _models_in(annotation)] if named else models
    return [key for model in models for key in model.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models in a type such as `dict[str, Model] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
