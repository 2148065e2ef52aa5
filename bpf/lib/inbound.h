/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Who from outside may reach what a run listens on, and who may be answered.
 *
 * What an agent's `listen` grants is a rule set like that of what it may reach,
 * with the peers' addresses and the run's own ports. TCP is judged before the
 * handshake. A datagram is judged by its sender, and an answer to it needs no rule
 * of its own as long as the sender is a recent peer of the socket.
 *
 * Who includes this defines PEER_CONTEXT, the type of its programs' context, and
 * PEER_SOCKET(ctx), the socket that a context is about, or NULL.
 */
#pragma once

#include "flow.h"
#include "verdict.h"

#define NS_PER_SECOND 1000000000ull

/* May this peer reach a port of the run? */
static __noinline bool inbound_grants(__u64 run, const struct dest *peer, __u16 port)
{
	struct varvel_run *grants = bpf_map_lookup_elem(&inbound, &run);
	struct dest d;

	if (!grants || !peer || is_link_local(peer))
		return false;
	d = *peer;
	d.port = port;
	return rules_allow(grants, &d);
}

static __always_inline bool peer_is(const struct varvel_peer *p, const struct dest *d, __u16 how)
{
	return p->how == how && p->port == d->port && address_equal(&p->address, &d->address);
}

/* The entries among which a peer is kept. Any peer can be made to fall on any. */
static __always_inline struct varvel_peer *peer_ways(struct varvel_peers *t, const struct dest *d)
{
	const __u32 *w = d->address.word;
	__u32 mixed = (w[0] ^ w[1] * 3 ^ w[2] * 5 ^ w[3] * 7 ^ d->port * 0x10001u) * 0x9e3779b1u;

	return &t->peer[(mixed >> 16) % VARVEL_PEER_SETS * VARVEL_PEER_WAYS];
}

static __always_inline __u32 seconds(void) { return bpf_ktime_get_boot_ns() / NS_PER_SECOND; }

/* Remembers a peer, in the place of the one that was seen longest ago. */
static __always_inline void peer_put(struct varvel_peers *t, const struct dest *d, __u16 how)
{
	struct varvel_peer *ways = peer_ways(t, d);
	__u32 now = seconds(), chosen = 0, oldest = ~0u;

	bpf_spin_lock(&t->lock);
	for (__u32 i = 0; i < VARVEL_PEER_WAYS; i++) {
		if (peer_is(&ways[i], d, how)) {
			chosen = i;
			break;
		}
		if (ways[i].seen < oldest) {
			oldest = ways[i].seen;
			chosen = i;
		}
	}
	chosen &= VARVEL_PEER_WAYS - 1;
	ways[chosen].address = d->address;
	ways[chosen].port = d->port;
	ways[chosen].how = how;
	ways[chosen].seen = now;
	bpf_spin_unlock(&t->lock);
}

/* Verified by themselves; see verdict.h. */
int peer_remember(PEER_CONTEXT *ctx, const struct dest *d, __u16 how);
int peer_recent(PEER_CONTEXT *ctx, const struct dest *d, __u16 how);

__noinline int peer_remember(PEER_CONTEXT *ctx, const struct dest *d, __u16 how)
{
	struct bpf_sock *sk = PEER_SOCKET(ctx);
	struct varvel_peers *t;

	if (!sk || !d)
		return 0;
	t = bpf_sk_storage_get(&peers, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!t)
		return 0;
	peer_put(t, d, how);
	return 1;
}

/* Returns false if there is no memory for it: then the peer is not known. */
static __always_inline bool peer_note(PEER_CONTEXT *ctx, struct varvel_socket *s,
				      const struct dest *d, __u16 how)
{
	if (!peer_remember(ctx, d, how))
		return false;
	s->peers = 1;
	return true;
}

__noinline int peer_recent(PEER_CONTEXT *ctx, const struct dest *d, __u16 how)
{
	struct bpf_sock *sk = PEER_SOCKET(ctx);
	struct varvel_peers *t;
	struct varvel_peer *ways;
	__u32 now = seconds();
	bool recent = false;

	if (!sk || !d)
		return false;
	t = bpf_sk_storage_get(&peers, sk, NULL, 0);
	if (!t)
		return false;
	ways = peer_ways(t, d);
	bpf_spin_lock(&t->lock);
	for (__u32 i = 0; i < VARVEL_PEER_WAYS; i++)
		if (peer_is(&ways[i], d, how) && now - ways[i].seen <= VARVEL_PEER_SECONDS)
			recent = true;
	bpf_spin_unlock(&t->lock);
	return recent;
}

/*
 * A socket that sends to one after the other gets their answers, too: before it
 * turns to another, the one that it has sent to is remembered. Who was only connected
 * to has nothing to answer.
 */
static __always_inline void peer_leave(PEER_CONTEXT *ctx, struct varvel_socket *s,
				       const struct dest *next)
{
	struct dest old = {.address = s->dst, .port = s->port, .protocol = IPPROTO_UDP};

	if (next->protocol != IPPROTO_UDP || !s->port || !(s->flags & SOCKET_JUDGED) ||
	    !(s->flags & SOCKET_NOTED) || s->flags & SOCKET_REDIRECTED ||
	    (s->port == next->port && address_equal(&s->dst, &next->address)))
		return;
	peer_note(ctx, s, &old, PEER_ASKED);
}

/* Does a datagram to this peer answer one that it was granted to send? */
static __always_inline bool peer_answer(PEER_CONTEXT *ctx, const struct varvel_socket *s,
					const struct dest *to, __u16 port)
{
	return s->peers && to->protocol == IPPROTO_UDP && peer_recent(ctx, to, PEER_CAME) &&
	       inbound_grants(s->run, to, port);
}

/* Counts who came in, by address and by the port of the run. */
static __always_inline void inbound_note(__u64 run, const struct dest *peer, __u16 port)
{
	struct dest d = *peer;

	d.port = port;
	flow_note_at(run, &d, true);
}
