#!/usr/bin/env bash
# One night over the catalogue, as CI runs it: sets up what is missing, builds, tests and publishes what changed, and leaves
# in $RELBUILD_RESULTS what CI shows. docs/ci.md lists the environment variables and what the exit codes mean.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
say() { printf 'nightly: %s\n' "$*" >&2; }
needed() { [ -n "${!1:+given}" ] || { say "$1 is not set: docs/ci.md says what goes there"; exit 2; }; }

recipes=${RELBUILD_RECIPES:-recipes}
results=${RELBUILD_RESULTS:-results}
needed RELBUILD_TO
mkdir -p "$results"
rm -f "$results"/junit.xml "$results"/summary.md "$results"/locks.patch

# Secrets that come as text go into files that only this user can read, and out of the environment. They are named and never
# expanded, so that a trace of this script (`bash -x`, CI_DEBUG_TRACE) does not show them.
private=$(mktemp -d)
trap 'rm -rf "$private"' EXIT
umask 077
key=${RELBUILD_KEY_FILE:-}
if [ -z "$key" ]; then
  needed RELBUILD_KEY
  key=$private/release.key
  printenv RELBUILD_KEY >"$key"
fi
if [ -n "${RELBUILD_KEY_PASSWORD_FILE:-}" ]; then
  # The last line of a file may lack its end, which `read` calls a failure.
  IFS= read -r RELBUILD_KEY_PASSWORD <"$RELBUILD_KEY_PASSWORD_FILE" || [ -n "${RELBUILD_KEY_PASSWORD:+given}" ]
  export RELBUILD_KEY_PASSWORD
fi
if [ -n "${RELBUILD_REGISTRY_AUTH:+given}" ]; then
  export REGISTRY_AUTH_FILE=$private/auth.json
  printenv RELBUILD_REGISTRY_AUTH >"$REGISTRY_AUTH_FILE"
fi
if [ -n "${RELBUILD_STORE_KEY:+given}" ]; then
  export RELBUILD_STORE_KEY_FILE=$private/store.key
  printenv RELBUILD_STORE_KEY >"$RELBUILD_STORE_KEY_FILE"
fi
unset RELBUILD_KEY RELBUILD_REGISTRY_AUTH RELBUILD_STORE_KEY
umask 022

relbuild=("$(ci/setup build)/bin/python" -m pipeline)
export PYTHONPATH=$PWD
store=()
if [ -n "${RELBUILD_STORE:-}" ]; then store=(--store "$RELBUILD_STORE"); fi
words=("$recipes" --to "$RELBUILD_TO" --key "$key" "${store[@]}" --progress plain)
words+=(--output "$results/output" --junit "$results/junit.xml" --summary "$results/summary.md")
if [ -n "${RELBUILD_SITE:-}" ]; then words+=(--site "$RELBUILD_SITE"); fi
if [ -n "${RELBUILD_JOBS:-}" ]; then words+=(--jobs "$RELBUILD_JOBS"); fi
if [ -n "${RELBUILD_THRESHOLD:-}" ]; then words+=(--threshold "$RELBUILD_THRESHOLD"); fi
case ${RELBUILD_LOCKS:-} in
  write) words+=(--write-locks) ;;
  locked) words+=(--locked) ;;
  "") ;;
  *) say "RELBUILD_LOCKS is '$RELBUILD_LOCKS': say 'write', 'locked' or nothing"; exit 2 ;;
esac

status=0
"${relbuild[@]}" nightly "${words[@]}" || status=$?

# Tonight's locks as a patch: whoever commits it needs no signing key, and whoever signs need not commit.
if [ "${RELBUILD_LOCKS:-}" = write ]; then
  locks=":(glob)$recipes/**/*.lock"
  git ls-files -z --others --exclude-standard -- "$locks" | xargs -0 --no-run-if-empty git add --intent-to-add --
  git diff --binary -- "$locks" >"$results/locks.patch"
fi

"${relbuild[@]}" store gc --older-than "${RELBUILD_KEEP_DAYS:-14}" --locks "$recipes" "${store[@]}" ||
  say "the store could not be tidied, which does not matter to the night"

case $status in
  0) say "0: everything that was wanted is on the mirror" ;;
  1) say "1: something failed, the rest is on the mirror: $results/summary.md says what, why and how to see it again" ;;
  2) say "2: the command line or an environment variable is wrong; nothing was built" ;;
  3) say "3: a recipe or repositories.yaml is wrong" ;;
  4) say "4: no set of packages satisfies a recipe, or with RELBUILD_LOCKS=locked its lock is stale" ;;
  5) say "5: a checksum, signature or digest does not match: look at it before you try again" ;;
  6) say "6: an image was launched and did not pass its tests" ;;
  7) say "7: the mirror's rules refused a publication" ;;
  8) say "8: this runner lacks something: relbuild doctor says what, docs/ci.md what runners must allow" ;;
  9) say "9: everything is on the mirror, and a security fix is missing for longer than RELBUILD_THRESHOLD allows" ;;
  *) say "$status: interrupted, or ended from outside (137: killed, often out of memory)" ;;
esac
exit "$status"
