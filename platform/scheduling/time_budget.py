"""Until when a launch may start cells: the options `--until` and `--for`."""

import datetime
import re

from crossfold.platform.core.errors import UserError

_DURATION = re.compile(
    r"(?:(?P<hours>\d+(?:\.\d+)?)h)?(?:(?P<minutes>\d+(?:\.\d+)?)m)?(?:(?P<seconds>\d+(?:\.\d+)?)s)?"
)


def budget_seconds(until: str | None, lasting: str | None, now: datetime.datetime | None = None) -> float | None:
    """Seconds that a launch may last, from `--until 08:00` (or a date with time) or `--for 2h30m`; None: no limit.

    A time of day is the next such moment, on the clock of this machine. Raises `UserError` for what is no time, no
    duration, or over.
    """
    if until is not None and lasting is not None:
        raise UserError(f"both --until {until} and --for {lasting}", "give one of them")
    if lasting is not None:
        found = _DURATION.fullmatch(lasting.replace(" ", "").lower())
        parts = {unit: float(number) for unit, number in found.groupdict().items() if number} if found else {}
        if not (seconds := datetime.timedelta(**parts).total_seconds()):
            raise UserError(f"--for {lasting!r} is no duration", "such as 2h, 90m or 1h30m")
        return seconds
    if until is None:
        return None
    now = now or datetime.datetime.now()
    try:
        if "-" in until:
            end = datetime.datetime.fromisoformat(until)
            end = end.astimezone().replace(tzinfo=None) if end.tzinfo else end
        else:
            # `fromisoformat` wants 8:00 as 08:00.
            end = datetime.datetime.combine(now.date(), datetime.time.fromisoformat(until.zfill(5)))
            end += datetime.timedelta(days=end <= now)
    except ValueError:
        raise UserError(f"--until {until!r} is no time", "such as 08:00, or 2026-11-30T08:00") from None
    if end <= now:
        raise UserError(f"--until {until} is over", "give a time that is still to come")
    return (end - now).total_seconds()


def moment(until: str | None, lasting: str | None) -> str | None:
    """The same moment for a machine elsewhere: date and time with the time zone of this one; None: no limit."""
    seconds = budget_seconds(until, lasting)
    if seconds is None:
        return None
    return (datetime.datetime.now().astimezone() + datetime.timedelta(seconds=seconds)).isoformat(timespec="seconds")
