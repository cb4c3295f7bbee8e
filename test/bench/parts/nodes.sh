# shellcheck shell=bash disable=SC2154
#
# From the call of invalidate_user until the last of many nodes knows; see nodes.c.

part_nodes() {
	local nodes round answered notified fetched acknowledged

	for nodes in 3 16 100; do
		echo "$nodes nodes"
		round=0
		while read -r answered notified fetched acknowledged; do
			round=$((round + 1))
			record node_answered "$nodes" 1 "$round" "$answered" ms
			record node_notified "$nodes" 1 "$round" "$notified" ms
			record node_fetched "$nodes" 1 "$round" "$fetched" ms
			record node_acknowledged "$nodes" 1 "$round" "$acknowledged" ms
		done < <(as_user test/bench/nodes "dbname=$database" "$nodes" "$invalidations")
		[[ $round -eq $invalidations ]] || die "could not measure $nodes nodes"
	done
}
