#!/usr/bin/env bash
# What a change would do, as CI runs it on pull and merge requests: plans the catalogue against the branch that it is to go
# to, builds and tests the recipes that are affected, and validates every image. It needs no secret and publishes nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
say() { printf 'check: %s\n' "$*" >&2; }

recipes=${RELBUILD_RECIPES:-recipes}
results=${RELBUILD_RESULTS:-results}
base=${RELBUILD_BASE:-origin/main}
mkdir -p "$results"

relbuild=("$(ci/setup build)/bin/python" -m pipeline)
export PYTHONPATH=$PWD
store=()
if [ -n "${RELBUILD_STORE:-}" ]; then store=(--store "$RELBUILD_STORE"); fi

# Planning signs nothing, so there is no key. Without a mirror to look at, everything that is affected is built.
# 1: a product could not be planned. The plan is told all the same, with the errors.
status=0
"${relbuild[@]}" nightly "$recipes" --plan --changed-since "$base" --to "${RELBUILD_TO:-dir:$results/no-mirror}" \
  --json --progress none "${store[@]}" >"$results/plan.json" || status=$?
[ "$status" -le 1 ] || exit "$status"

# Pairs of recipe and product, each with a NUL at its end: names are data, never shell.
pairs='
import json, sys
for one in json.load(open(sys.argv[1])).get("plan", ()):
    if one["action"] != "nothing":
        sys.stdout.write("%s\0%s\0" % (one["recipe"], one["product"]))
'
"${relbuild[0]}" -c "$pairs" "$results/plan.json" >"$results/affected"
# What could not be planned is built as well: the code with which that ends says what kind of error it is.
while IFS= read -r -d '' recipe && IFS= read -r -d '' product; do
  say "$product is affected"
  "${relbuild[@]}" build "$recipe" --output "$results/output" --progress plain "${store[@]}" || { status=$?; continue; }
  "${relbuild[@]}" validate "$results/output/$product" --progress none "${store[@]}" || status=$?
done <"$results/affected"
exit "$status"
