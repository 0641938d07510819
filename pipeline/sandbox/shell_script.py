"""The script of the shell that runs commands one after the other in one container."""

from __future__ import annotations

SHELL_SCRIPT = """\
trap : INT
look() {
  seen=
  for kind in msg sem shm; do
    { read -r line && read -r line && seen="$seen $kind"; } </proc/sysvipc/$kind
  done
}
folder=$1
look
clean=$seen
echo ready
while read -r token; do
  if [ ! -e "$folder/command.$token" ]; then echo "$token"; continue; fi
  if [ -p "$folder/gate.$token" ]; then
    : | ( . "$folder/command.$token" )
  else
    ( . "$folder/command.$token" )
  fi
  status=$?
  if kill -0 -1 2>/dev/null; then echo "$token $status changed"; exit; fi
  look
  if [ "$seen" = "$clean" ]; then echo "$token $status same"; else echo "$token $status changed"; fi
done
"""
"""The shell's script, in POSIX's language. `look` lists what a command could leave of System V's objects.

If a command has left a process, the shell ends at once, and the kernel all others with it: until relbuild knew, they
would write to the image.

A command with input is the last of a pipeline whose first ends at once (see `command_input`).

A shell may handle SIGINT, and would end by one that a command sends to its whole group: the trap keeps it. Commands
get the signal's default, since it is not ignored.
"""
