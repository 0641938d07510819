#!/usr/bin/env bash
# One night over this catalogue, at a terminal as in CI: builds, tests and publishes what changed.
# RELBUILD_TO is the mirror (registry://HOST/NAMESPACE or dir:PATH), RELBUILD_KEY_FILE the signing key that `relbuild keygen`
# made, RELBUILD_KEY_PASSWORD its password. `./nightly.sh --plan` only says what would be done. `relbuild help nightly` says
# what counts as a change, `relbuild help ci` what runners must allow.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
results=${RELBUILD_RESULTS:-results}
mkdir -p "$results"
exec relbuild nightly recipes --output "$results/output" --junit "$results/junit.xml" --summary "$results/summary.md" \
  --progress plain "$@"
