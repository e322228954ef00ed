#!/usr/bin/env bash
# Kills `imagecot reproduce` KILLS times at random moments, lets it end, and compares rows and claims with a run in one go.
#
#   bench/kills.sh ./imagecot 20 table5 --prompts 12 -n 4
#
# The environment (IMAGECOT_BACKEND) chooses the engine. Prints every kill and how much of the journal was there.
set -euo pipefail
imagecot=$1 kills=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

start=$SECONDS
"$imagecot" reproduce "$@" --out "$work/whole" >"$work/whole.txt" 2>"$work/whole.err"
took=$((SECONDS - start))
echo "one go: $took s"

killed=0
while ((killed < kills)); do
	"$imagecot" reproduce "$@" --out "$work/parts" >"$work/parts.txt" 2>"$work/parts.err" &
	pid=$!
	sleep "$(awk -v t="$took" -v s="$RANDOM" 'BEGIN { srand(s); print rand() * t / 2 }')"
	if ! kill -9 "$pid" 2>/dev/null; then
		wait "$pid"
		echo "ended before kill $((killed + 1)): starting again from nothing"
		rm -rf "$work/parts"
		continue
	fi
	wait "$pid" 2>/dev/null || true
	killed=$((killed + 1))
	echo "kill $killed: $(wc -l <"$work/parts/journal.jsonl" 2>/dev/null || echo 0) lines of journal"
done
"$imagecot" reproduce "$@" --out "$work/parts" >"$work/parts.txt" 2>"$work/parts.err"
diff -r "$work/whole/rows" "$work/parts/rows"
diff "$work/whole/claims.json" "$work/parts/claims.json"
echo "$killed kills: rows and claims are the same"
