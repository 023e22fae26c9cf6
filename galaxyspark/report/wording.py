"""Numbers as people say them: the filters of the templates."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from galaxyspark.summary import p_in_words


def percent(share: float | None) -> str:
    """A share of 1 with one decimal, such as 82.7%; a dash for none."""
    return "–" if share is None else f"{share:.1%}"


def thousandths(value: float | None) -> str:
    """A number with three decimals; a dash for none."""
    return "–" if value is None else f"{value:.3f}"


def number(value: int) -> str:
    """A whole number with its thousands apart: 61,578."""
    return f"{value:,}"


def points(metric: Mapping[str, Any], against: str = "against_svm") -> str:
    """By how many points of a hundred a classifier is better than the SVM (or as ``against`` says), and p."""
    if against not in metric:
        return ""
    difference, p_value = metric[against]["difference"], metric[against]["p_value"]
    said = f"{100 * difference:+.1f}".replace("-", "−")
    return f"{said} ({p_in_words(p_value)})"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 9.3 s, 1 min 52 s, 10 h 30 min."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def date(timestamp: str) -> str:
    """A manifest's timestamp, which is in UTC, to the minute."""
    return datetime.fromisoformat(timestamp).strftime("%Y-%m-%d %H:%M UTC")


def rate(per_second: float) -> str:
    """A rate, or what one takes, with three digits or all those before the point."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"
