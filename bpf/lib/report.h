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

static __always_inline struct varvel_counters *counters_of(__u64 run)
{
	struct varvel_counters *c = bpf_map_lookup_elem(&counters, &run);
	__u32 zero = 0;

	return c ?: bpf_map_lookup_elem(&strays, &zero);
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

struct refusal {
	__u64 run;
	__u64 cookie;
	__u32 pid; /* 0: the current task */
	__u8 reason;
	__u8 hook;
	bool observe;
	bool quiet;  /* count it; the next event stands for it as well */
	__u16 local; /* ingress: port of the run */
};

/* Counts a refusal and sends its event, with those that were not sent before. */
static __always_inline void refuse(const struct refusal *r, const struct dest *d)
{
	struct varvel_counters *c = counters_of(r->run);
	struct varvel_event *e;

	if (!c)
		return;
	if (r->reason < REASON_COUNT)
		c->refused[r->reason]++;
	if (r->quiet || !take(&c->tell, bpf_ktime_get_boot_ns(), VARVEL_DENIAL_NS, VARVEL_DENIAL_BURST)) {
		c->held++;
		return;
	}
	e = bpf_ringbuf_reserve(&denials, sizeof(*e), 0);
	if (!e) {
		c->lost[CLASS_DENIAL]++;
		c->held++;
		return;
	}
	event_fill(e, r->observe ? EVENT_WOULD_DENY : EVENT_DENIED, r->run);
	e->code = (__u32)c->held + 1;
	c->held = 0;
	if (r->pid)
		e->pid = r->pid;
	else
		event_task(e);
	e->cookie = r->cookie;
	e->reason = r->reason;
	e->hook = r->hook;
	e->local_port = r->local;
	if (d) {
		e->address = d->address;
		e->port = d->port;
		e->protocol = d->protocol;
	}
	bpf_ringbuf_submit(e, 0);
}
