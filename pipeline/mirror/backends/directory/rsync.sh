#!/bin/sh
# Copies a relbuild mirror with rsync, also while it is published to or pruned, so that every tag of the copy has, at
# every moment, all that it needs there, however often this is interrupted.
# Usage: rsync.sh [--keep] SOURCE DESTINATION
#   SOURCE, DESTINATION: as rsync has them; one of them may be on another machine.
#   --keep: never delete anything at the destination.
#   RSYNC="rsync --bwlimit=10m -e ssh" in the environment gives rsync more options.
#
# Blobs, then manifests, then tags is the order in which a mirror is published, but copying in that order is not
# enough: a tag published meanwhile would arrive without what it needs. So the tags are noted first, and those alone
# are put that were the same before and after everything else was copied; the others wait for the next round. Last,
# and only if no tag changed in the whole round, goes what the source had no more before the second look at its tags.
set -eu

keep=no
if [ "${1-}" = --keep ]; then keep=yes; shift; fi
if [ $# -ne 2 ]; then sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
source=${1%/}/
destination=${2%/}/
rounds=3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Two copies at once to one destination could delete what the other has just put: the end on this machine is locked.
case $destination in
  *:*)
    case $source in *:*) echo "rsync.sh: one of the two must be on this machine" >&2; exit 2 ;; esac
    lock=$source.lock ;;
  *) lock=$destination.lock ;;
esac
mkdir -p "$lock"
exec 9>"$lock/rsync"
flock 9

# 24: something was gone before it could be read, which the second look at the tags judges.
# shellcheck disable=SC2086
run() { ${RSYNC:-rsync} "$@" || [ $? -eq 24 ]; }
copy() { run --recursive --links --times --perms --chmod=D755,F644 "$@"; }

# The tags of the source, with their times, into a folder; and what they are in a list.
look() {
  rm -rf "${work:?}/$1"
  mkdir "$work/$1"
  copy --prune-empty-dirs --include=/repositories/ --include='/repositories/**/' --include='_tags/*' \
    --include=_tags.json --exclude='*' "$source" "$work/$1/"
  (cd "$work/$1" && find . -type l -printf '%P\t%T@\t%l\n' -o -type f -printf '%P\t%T@\t\n') | LC_ALL=C sort >"$work/$1.list"
}

# What the destination has and the source has not, as names below the mirror's root; "$@" says where to look.
surplus() {
  run --dry-run --recursive --links --delete --existing --ignore-existing --out-format='%o %n' "$@" --exclude='*' \
    "$source" "$destination" | sed -n 's/^del\. *//p' | { grep -v '/$' || true; }
}

remove() {
  [ ! -s "$1" ] || run --links --delete-missing-args --existing --ignore-existing --files-from="$1" "$source" "$destination"
}

round=1
while :; do
  look before
  copy --include='/blobs/***' --exclude='*' "$source" "$destination"
  copy --include=/repositories/ --include='/repositories/**/' --include='_manifests/*' --exclude='*' \
    "$source" "$destination"
  if [ $keep = no ]; then
    surplus --include=/repositories/ --include='/repositories/**/' --include='_manifests/*' >"$work/manifests"
    surplus --include=/blobs/ --include='/blobs/**' >"$work/blobs"
  fi
  look after
  LC_ALL=C comm -12 "$work/before.list" "$work/after.list" | cut -f1 >"$work/same"
  # Lists of names are compared by content: one that was written twice within a second may have its size and time still.
  copy --checksum --files-from="$work/same" "$work/before/" "$destination"
  copy --checksum --include=/catalog.json --include=/relbuild-mirror.json --exclude='*' "$source" "$destination"
  # Pages of the nights, if there are any; what its writer has to itself stays where it is.
  if [ $keep = no ]; then pages=--delete-after; else pages=--recursive; fi
  copy "$pages" --exclude='.*' --include='/nightly/***' --exclude='*' "$source" "$destination"
  # The first copy is what the operator of the destination then changes: it names paths.
  copy --ignore-existing --include=/nginx.conf --include=/rsync.sh --exclude='*' "$source" "$destination"
  if cmp -s "$work/before.list" "$work/after.list"; then
    if [ $keep = no ]; then
      copy --delete-after --filter='protect */' --include=/repositories/ --include='/repositories/**/' \
        --include='_tags/*' --include=_tags.json --exclude='*' "$work/before/" "$destination"
      remove "$work/manifests"
      remove "$work/blobs"
    fi
    break
  fi
  if [ $round -ge $rounds ]; then
    echo "rsync.sh: tags moved all the while; those will be copied, and what is not needed deleted, next time" >&2
    break
  fi
  round=$((round + 1))
  # rsync does not set times that differ by less than a second, so a link made just now looks changed.
  sleep 1
done
