/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Counting and telling. Counters are exact. Events of refusals are limited for
 * each run and CPU, so that one run's flood leaves the ring to the others.
 */
#pragma once

#include "maps.h"

/* Where something wanted to go. */
struct dest {
	struct varvel_address address;
	__u16 port;
	__u8 protocol;
	bool v4;
};

static __always_inline void event_fill(struct varvel_event *e, __u8 kind, __u64 run)
{
	e->time = bpf_ktime_get_boot_ns();
	e->run = run;
	e->cookie = 0;
	e->pid = 0;
	e->uid = 0;
	e->parent = 0;
	e->port = 0;
	e->kind = kind;
	e->reason = REASON_NONE;
	e->hook = HOOK_NONE;
	e->protocol = 0;
	e->local_port = 0;
	e->code = 0;
	__builtin_memset(&e->address, 0, sizeof(e->address));
	__builtin_memset(e->comm, 0, sizeof(e->comm));
}

/* Says who is running. Not for egress: packets leave in anybody's context. */
static __always_inline void event_task(struct varvel_event *e)
{
	e->pid = bpf_get_current_pid_tgid() >> 32;
	e->uid = (__u32)bpf_get_current_uid_gid();
	bpf_get_current_comm(e->comm, sizeof(e->comm));
}

/* The counters of a run, or those of nobody, which user space has made. */
static __always_inline struct varvel_counters *counters_of(__u64 run)
{
	struct varvel_counters *c = bpf_map_lookup_elem(&counters, &run);
	__u64 nobody = 0;

	return c ?: bpf_map_lookup_elem(&counters, &nobody);
}

/* Takes a token from a bucket, into which one more falls each interval. */
static __always_inline bool take(struct varvel_bucket *b, __u64 now, __u64 interval, __u64 most)
{
	__u64 earned = (now - b->refilled) / interval;

	if (earned) {
		b->tokens = b->tokens + earned < most ? b->tokens + earned : most;
		b->refilled = now;
	}
	if (!b->tokens)
		return false;
	b->tokens--;
	return true;
}
