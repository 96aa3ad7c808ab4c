"""How numbers, intervals and p values are written."""

from collections.abc import Iterable, Sequence

from crossfold.reports.stats.hypothesis_tests import ALPHA
from crossfold.reports.stats.intervals import Gain, Interval
from crossfold.reports.stats.power import Power

MINUS = "−"  # as wide as a plus sign, unlike a hyphen
DASH = "–"


def number(value: float) -> str:
    """Three decimals, as papers print CCC, with a real minus sign."""
    return f"{value:.3f}".replace("-", MINUS)


def signed(value: float) -> str:
    """Three decimals with a sign."""
    return "0.000" if abs(value) < 0.0005 else f"{value:+.3f}".replace("-", MINUS)


def with_sd(mean: float, sd: float | None) -> str:
    """A mean, and the spread over seeds where there is one."""
    return number(mean) if sd is None else f"{number(mean)} ± {number(sd)}"


def interval_text(interval: Interval | None) -> str:
    """An interval in brackets."""
    return DASH if interval is None else f"[{number(interval.low)}, {number(interval.high)}]"


def gain_text(gain: Gain | None) -> str:
    """A gain with its interval."""
    if gain is None:
        return DASH
    if gain.low is None or gain.high is None:
        return signed(gain.mean)
    return f"{signed(gain.mean)} [{_end(gain.low)}, {_end(gain.high)}]"


def _end(value: float) -> str:
    """An end of an interval; one that rounds to zero shows on which side of it it lies."""
    return number(value) if abs(value) >= 0.0005 or value == 0 else f"{value:.4f}".replace("-", MINUS)


def p_text(p: float | None) -> str:
    """A p value with two digits, `< 0.01` below that, `1` where it rounds to one; CSV files have the number itself."""
    if p is None:
        return DASH
    # More digits would be false precision: a p value is an estimate, from few videos in its tail above all.
    if p < 0.01:
        return "< 0.01"
    # A verdict must be seen from the text: 0.049 would round to 0.05, which is no verdict.
    if p < ALPHA and round(p, 2) >= ALPHA:
        return f"< {ALPHA:.2f}"
    return f"{p:.2f}" if p < 0.995 else "1"


def percent(share: float) -> str:
    """A share of one without decimals; never 0 % or 100 % for one that is neither."""
    if 0 < share < 0.005:
        return "< 1 %"
    return "> 99 %" if 0.995 <= share < 1 else f"{100 * share:.0f} %"


def power_text(power: Power | None) -> str:
    """A chance with its interval."""
    if power is None:
        return DASH
    return f"{percent(power.chance)} [{100 * power.low:.0f}, {100 * power.high:.0f}]"


def facts_text(facts: Iterable[tuple[str, str]]) -> str:
    """`term: value; term: value.`, without terms that have no value."""
    return "; ".join(f"{term}: {value}" for term, value in facts if value) + "."


def listing(values: Sequence[int | str]) -> str:
    """`0, 1 and 2`; a dash for nothing."""
    words = [str(value) for value in values] or [DASH]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
