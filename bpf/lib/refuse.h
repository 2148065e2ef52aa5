/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Refusing: counted exactly, told as well as possible. */
#pragma once

#include "report.h"

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

/*
 * Counts a refusal and sends its event, with those that were not sent before. Not inline: what is allowed shares the
 * processor's instruction cache with the rest of the system call.
 */
static __noinline void refuse(const struct refusal *r, const struct dest *d)
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
