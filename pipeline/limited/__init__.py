"""Work on foreign input in a child process with limits.

The limits are on processor time, memory, output and time.

What can be bounded by counting is bounded where it is done. What cannot (a template that compares nested lists, a
regular expression that backtracks) is done by a child, which the kernel limits and which is killed when its time is
over; then `LimitMet` says why. One child serves a process for as long as that lives, so only the first call waits for
an interpreter (some 50 ms). It gets no environment, opens nothing by itself, and ends when its parent does.
"""

from pipeline.limited.child import AskParent
from pipeline.limited.child_process import AnswerQuestion, LimitMet, call_limited

__all__ = ["AnswerQuestion", "AskParent", "LimitMet", "call_limited"]
