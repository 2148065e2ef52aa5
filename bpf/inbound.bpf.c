//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Packets on their way into a run. Established TCP passes at once: who may connect
 * is judged at the packets that make a connection, where a refusal means that no
 * program ever sees it. Datagrams are judged here and not as they are read, since a
 * read that does not ask for the sender passes no other hook.
 */
#define PEER_CONTEXT struct __sk_buff
#define PEER_SOCKET(ctx) ((ctx)->sk ? bpf_sk_fullsock((ctx)->sk) : NULL)
#include "lib/inbound.h"
#include "lib/packet.h"

char LICENSE[] SEC("license") = "GPL"; /* what the kernel asks for; dual in SPDX */

/* A peer that tries again is counted; an event of it is sent once. */
static __always_inline bool turned_before(struct packet *p)
{
	struct varvel_socket *s = p->socket;
	bool before = s->turned_port == p->from.port && address_equal(&s->turned, &p->from.address);

	s->turned_port = p->from.port;
	s->turned = p->from.address;
	return before;
}

static __always_inline int ingress_refuse(struct packet *p, __u8 reason, bool always)
{
	struct refusal r = {
		.run = p->socket ? p->socket->run : 0,
		.cookie = bpf_get_socket_cookie(p->skb),
		.pid = p->socket && p->socket->pid ? p->socket->pid : 1,
		.reason = reason,
		.hook = HOOK_INGRESS,
		.observe = !always && p->socket && (p->socket->rules.flags & RUN_OBSERVE),
		.quiet = p->socket && turned_before(p),
		.local = p->to.port,
	};

	refuse(&r, &p->from);
	return r.observe;
}

/* An answer of the name server to a question that was redirected to it. */
static __always_inline bool from_door(const struct packet *p)
{
	const struct varvel_node *n = p->node;
	__u16 door = p->from.v4 ? n->udp4 : n->udp6;

	return p->from.protocol == IPPROTO_UDP && p->socket->dns_port && door &&
	       p->from.port == door;
}

/* Has the socket sent to where this comes from, as a rule allows still? */
static __always_inline bool is_solicited(const struct packet *p)
{
	const struct varvel_socket *s = p->socket;
	bool last = s->port == p->from.port && address_equal(&s->dst, &p->from.address) &&
		    !(s->flags & SOCKET_REDIRECTED);
	struct judgement j;

	if (last && s->flags & SOCKET_JUDGED)
		return true;
	if (!last && !(s->peers && peer_recent(p->skb, &p->from, PEER_ASKED)))
		return false;
	j = judge(p->skb, s->run, &s->rules, &p->from, false);
	lease_continue(&j, s, &p->from);
	return j.verdict == VERDICT_DIRECT || j.verdict == VERDICT_LEASED;
}

/* Somebody from outside: may it reach this port? */
static __always_inline int ingress_outsider(struct packet *p, __u8 reason)
{
	struct varvel_socket *s = p->socket;

	if (!inbound_grants(s->run, &p->from, p->to.port))
		return ingress_refuse(p, is_link_local(&p->from) ? REASON_LINK_LOCAL : reason,
				      false);
	if (p->from.protocol == IPPROTO_TCP)
		return 1;
	if (!(s->peers && peer_recent(p->skb, &p->from, PEER_CAME)))
		inbound_note(s->run, &p->from, p->to.port);
	if (!peer_note(p->skb, s, &p->from, PEER_CAME))
		return ingress_refuse(p, REASON_FULL, true);
	return 1;
}

static __noinline int ingress_judge(struct __sk_buff *skb)
{
	struct packet p = {.skb = skb};

	if (!packet_open(&p))
		return 0;
	if (!p.socket || !socket_refresh(p.socket, p.node))
		return ingress_refuse(&p, REASON_NO_RUN, true);
	if (!parse(&p))
		return ingress_refuse(&p, REASON_MALFORMED, false);
	if (!is_loopback(&p.from))
		return p.from.protocol == IPPROTO_UDP && is_solicited(&p) ?
			       1 : ingress_outsider(&p, REASON_INBOUND);
	if (from_door(&p) ||
	    local_owner(skb, p.socket->run, &p.from, &p.to) == OWNER_SAME)
		return 1;
	return ingress_outsider(&p, REASON_PEER_FOREIGN);
}

SEC("cgroup_skb/ingress")
int varvel_ingress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : NULL;

	if (!sk)
		return 0;
	if (sk->protocol == IPPROTO_TCP && sk->state != BPF_TCP_LISTEN)
		return 1;
	return ingress_judge(skb);
}
