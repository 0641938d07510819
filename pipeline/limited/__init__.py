"""Calls on foreign input in a child process with limits on CPU, memory, output and time.

Work that can be bounded by counting is done in the process itself. Other work (a template that compares nested lists, a
regular expression that backtracks) is done by a child, which the kernel limits and which is killed at its deadline;
then `LimitMet` names the limit. A process uses one child for all calls, so that only the first one waits for an
interpreter (some 50 ms). The child gets no environment, opens no files by itself, and ends when its parent does.
"""

from pipeline.lazy_names import imported_when_used

with imported_when_used(__name__):
    from pipeline.limited.child import AskParent
    from pipeline.limited.child_process import (
        AnswerQuestion,
        ChildCrashed,
        LimitMet,
        call_limited,
        is_loading,
        load_early,
    )

__all__ = ["AnswerQuestion", "AskParent", "ChildCrashed", "LimitMet", "call_limited", "is_loading", "load_early"]
