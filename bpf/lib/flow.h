/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * What is allowed by a rule is counted for each destination, when the first packet
 * leaves, and who is let in for each peer, when it has come. Counts are exact; entries are bounded for each run, so that one run does
 * not take the room of another.
 */
#pragma once

#include "report.h"

static __noinline void flow_note_at(__u64 run, const struct dest *d, bool inbound)
{
	struct varvel_flow_key key = {
		.run = run, .address = d->address, .port = d->port, .protocol = d->protocol,
		.inbound = inbound};
	struct varvel_counters *c = counters_of(run);
	__u64 now = bpf_ktime_get_boot_ns();
	struct varvel_flow fresh = {.count = 1, .first = now, .last = now};
	struct varvel_flow *flow;

	if (!c)
		return;
	c->flows++;
	flow = bpf_map_lookup_elem(&flows, &key);
	if (flow) {
		__sync_fetch_and_add(&flow->count, 1);
		flow->last = now;
		return;
	}
	if (!take(&c->note, now, VARVEL_FLOW_NS, VARVEL_FLOW_BURST) ||
	    bpf_map_update_elem(&flows, &key, &fresh, BPF_NOEXIST))
		c->flows_untold++;
}

static __always_inline void flow_note(__u64 run, const struct dest *d)
{
	flow_note_at(run, d, false);
}
