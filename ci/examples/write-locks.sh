#!/usr/bin/env bash
# Commits a night's locks onto a branch of their own and pushes it, for people to merge. Works in a tree of its own beside the
# commit that is checked out, where nothing else is changed, and needs no signing key. Only changed and new *.lock files below the recipes are taken from the patch; anything else refuses it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
say() { printf 'write-locks: %s\n' "$*" >&2; }

recipes=${RELBUILD_RECIPES:-recipes}
patch=${RELBUILD_RESULTS:-results}/locks.patch
branch=${RELBUILD_LOCKS_BRANCH:-relbuild/locks}
remote=${RELBUILD_PUSH_URL:-origin}
if [ ! -s "$patch" ]; then say "the locks are as they were"; exit 0; fi

patch=$(realpath "$patch")
work=$(mktemp -d)
trap 'command git worktree remove --force "$work/tree"; rm -rf "$work"' EXIT
command git worktree add --quiet --detach "$work/tree" HEAD
git() { command git -C "$work/tree" "$@"; }

git apply --index "$patch"
while IFS= read -r -d '' change && IFS= read -r -d '' path; do
  case $change:$path in
    ":000000 100644 "*" A:$recipes/"*.lock | ":100644 100644 "*" M:$recipes/"*.lock) ;;
    *) say "refused: the patch does more than write locks below $recipes/: $path"; exit 5 ;;
  esac
done < <(git diff --cached --raw --no-renames --no-abbrev -z)

git -c user.name="${RELBUILD_LOCKS_NAME:-relbuild nightly}" -c user.email="${RELBUILD_LOCKS_EMAIL:-relbuild@localhost}" \
  commit --quiet --message "Locks of the night of $(date --utc +%F)"

# A token is handed to git by a helper and not in an address, which process lists and logs would show.
helper=()
if [ -n "${RELBUILD_PUSH_TOKEN:+given}" ]; then
  # shellcheck disable=SC2016 # the helper's own shell expands it
  helper=(-c credential.helper= -c 'credential.helper=!f() { echo username=oauth2; echo "password=$RELBUILD_PUSH_TOKEN"; }; f')
fi
if git "${helper[@]}" fetch --quiet --no-tags "$remote" "refs/heads/$branch" 2>/dev/null &&
  [ "$(git rev-parse 'FETCH_HEAD^{tree}')" = "$(git rev-parse 'HEAD^{tree}')" ]; then
  say "$branch has them already"
  exit 0
fi
# The branch is the night's own, and is replaced: nothing else is ever pushed to.
options=()
while IFS= read -r option; do
  if [ -n "$option" ]; then options+=(--push-option "$option"); fi
done <<<"${RELBUILD_PUSH_OPTIONS:-}"
git "${helper[@]}" push --quiet --force "${options[@]}" "$remote" "HEAD:refs/heads/$branch"
say "pushed $branch"
if [ -n "${GITHUB_OUTPUT:-}" ]; then echo "pushed=true" >>"$GITHUB_OUTPUT"; fi
