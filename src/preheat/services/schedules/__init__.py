"""Schedule expressions: `parse("cron(0 4 ? * TUE-SAT *)")`, then `next_time(expression, after)`.

Used by EventBridge rules and Scheduler and by Application Auto Scaling. Moments are epoch seconds.
"""

from preheat.services.schedules.cron import Cron
from preheat.services.schedules.expressions import At, Expression, Rate, ScheduleError, next_time, parse, zone

__all__ = ["At", "Cron", "Expression", "Rate", "ScheduleError", "next_time", "parse", "zone"]
