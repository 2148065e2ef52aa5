//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * A socket's life: its birth gives it the run that it belongs to, its redirected
 * connections are made known to the daemon, its packets pass the backstop, its
 * end takes everything away.
 */
#include "lib/flow.h"
#define PEER_CONTEXT struct __sk_buff
#define PEER_SOCKET(ctx) ((ctx)->sk ? bpf_sk_fullsock((ctx)->sk) : NULL)
#include "lib/inbound.h"
#include "lib/packet.h"
#include "lib/share.h"

char LICENSE[] SEC("license") = "GPL"; /* what the kernel asks for; dual in SPDX */

#define TCP_RST 4
#define LOOPBACK_IFINDEX 1 /* in every network namespace (include/net/flow.h) */

static __always_inline bool transport_allowed(const struct bpf_sock *sk)
{
	if (sk->family != AF_INET && sk->family != AF_INET6)
		return false;
	if (sk->type == SOCK_STREAM)
		return sk->protocol == IPPROTO_IP || sk->protocol == IPPROTO_TCP;
	if (sk->type == SOCK_DGRAM)
		return sk->protocol == IPPROTO_IP || sk->protocol == IPPROTO_UDP;
	return false;
}

static __always_inline int birth_refuse(__u64 id, __u8 reason, bool observe, __u8 protocol)
{
	struct refusal r = {.run = id, .reason = reason, .hook = HOOK_SOCKET, .observe = observe};
	struct dest d = {.protocol = protocol};

	refuse(&r, &d);
	return observe;
}

/*
 * The socket gets the run of the task that makes it. Its cgroup is at a fixed
 * depth, so that children of the run's cgroup belong to it as well.
 */
SEC("cgroup/sock_create")
int varvel_sock_create(struct bpf_sock *ctx)
{
	__u32 zero = 0;
	struct varvel_node *n = bpf_map_lookup_elem(&node, &zero);
	struct varvel_socket *s;
	struct varvel_run *run;
	__u32 generation;
	__u64 id;

	if (!n)
		return 0;
	generation = *(volatile __u32 *)&n->generation; /* before the rules; see socket_refresh */
	id = bpf_get_current_ancestor_cgroup_id(n->level);
	run = bpf_map_lookup_elem(&runs, &id);
	if (!run)
		return birth_refuse(id, REASON_NO_RUN, false, ctx->protocol);
	if (!transport_allowed(ctx)) {
		__u8 reason = ctx->family == AF_INET || ctx->family == AF_INET6 ?
				      REASON_PROTOCOL : REASON_FAMILY;

		if (!birth_refuse(id, reason, run->flags & RUN_OBSERVE, ctx->protocol))
			return 0;
	}
	s = bpf_sk_storage_get(&sockets, ctx, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!s)
		return birth_refuse(id, REASON_FULL, false, ctx->protocol);
	s->run = id;
	s->rules = *run;
	s->generation = generation;
	s->pid = bpf_get_current_pid_tgid() >> 32;
	s->netns = bpf_get_netns_cookie(ctx);
	return 1;
}

/* Takes a socket's entry away, unless another socket has its address by now. */
static __always_inline void retract(const struct varvel_socket *s, __u64 cookie)
{
	struct varvel_origin *origin = bpf_map_lookup_elem(&redirects, &s->local);

	if (origin && origin->cookie == cookie)
		bpf_map_delete_elem(&redirects, &s->local);
}

/*
 * Tells the daemon who is at a local address, before the first packet leaves. Returns
 * why that could not be done, or REASON_NONE.
 */
static __always_inline __u8 announce(struct varvel_socket *s, const struct varvel_address *local,
				     __u16 port, __u8 protocol, __u64 cookie)
{
	struct varvel_redirect_key key = {
		.netns = s->netns, .address = *local, .port = port, .protocol = protocol};
	struct varvel_origin origin = {
		.run = s->run, .cookie = cookie, .address = s->dst, .port = s->port,
		.protocol = protocol};

	if (!share_take(s))
		return REASON_SHARE;
	if (s->flags & SOCKET_REGISTERED && !(s->local.port == port &&
					      address_equal(&s->local.address, local)))
		retract(s, cookie);
	if (bpf_map_update_elem(&redirects, &key, &origin, 0))
		return REASON_FULL;
	s->local = key;
	s->flags |= SOCKET_REGISTERED;
	return REASON_NONE;
}

static __always_inline void ops_local(struct varvel_address *a, struct bpf_sock_ops *ctx)
{
	if (ctx->family == AF_INET) {
		a->word[0] = 0;
		a->word[1] = 0;
		a->word[2] = bpf_htonl(0xffff);
		a->word[3] = field(ctx, local_ip4);
		return;
	}
	a->word[0] = field(ctx, local_ip6[0]);
	a->word[1] = field(ctx, local_ip6[1]);
	a->word[2] = field(ctx, local_ip6[2]);
	a->word[3] = field(ctx, local_ip6[3]);
}

static __always_inline void ops_remote(struct dest *d, struct bpf_sock_ops *ctx)
{
	if (ctx->family == AF_INET) {
		dest_v4(d, field(ctx, remote_ip4));
		return;
	}
	d->address.word[0] = field(ctx, remote_ip6[0]);
	d->address.word[1] = field(ctx, remote_ip6[1]);
	d->address.word[2] = field(ctx, remote_ip6[2]);
	d->address.word[3] = field(ctx, remote_ip6[3]);
	d->v4 = is_mapped(&d->address);
}

/* The local port of a redirected connection is known just before the SYN. */
static __always_inline void ops_connect(struct bpf_sock_ops *ctx, struct varvel_socket *s)
{
	struct varvel_address local;
	__u32 flags = ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG;
	__u8 reason = REASON_FULL;

	ops_local(&local, ctx);
	/* If it can't be announced, the daemon does not know it and closes it. */
	if (!bpf_sock_ops_cb_flags_set(ctx, flags))
		reason = announce(s, &local, ctx->local_port, IPPROTO_TCP, bpf_get_socket_cookie(ctx));
	if (reason) {
		struct refusal r = {.run = s->run, .reason = reason, .hook = HOOK_CONNECT};

		refuse(&r, NULL);
	}
}

/* A connection that has ended, or has failed, gives its port back: to anybody. */
static __always_inline void ops_state(struct bpf_sock_ops *ctx, struct varvel_socket *s)
{
	if (ctx->args[1] != BPF_TCP_CLOSE)
		return;
	share_give(s);
	if (!(s->flags & SOCKET_REGISTERED))
		return;
	retract(s, bpf_get_socket_cookie(ctx));
	s->flags &= ~SOCKET_REGISTERED;
}

/*
 * A connection has come in. Who has made it was judged before the handshake; here
 * its socket is told, so that what it answers needs no rule. On loopback, whose the
 * other end is, is seen when the answer leaves.
 */
static __always_inline void ops_accepted(struct bpf_sock_ops *ctx, struct varvel_socket *s)
{
	struct dest peer = {.protocol = IPPROTO_TCP, .port = bpf_ntohl(ctx->remote_port)};
	__u32 zero = 0;
	struct varvel_node *n = bpf_map_lookup_elem(&node, &zero);

	ops_remote(&peer, ctx);
	s->dst = peer.address;
	s->port = peer.port;
	s->flags = SOCKET_ACCEPTED;
	if (!n || !socket_refresh(s, n) || is_loopback(&peer))
		return;
	if (!inbound_grants(s->run, &peer, ctx->local_port)) {
		if (s->rules.flags & RUN_OBSERVE)
			s->flags |= SOCKET_JUDGED | SOCKET_NOTED;
		return;
	}
	s->flags |= SOCKET_JUDGED | SOCKET_NOTED;
	inbound_note(s->run, &peer, ctx->local_port);
}

/* In a run: what is announced of a connection is true as long as it lasts. */
SEC("sockops")
int varvel_sock_ops(struct bpf_sock_ops *ctx)
{
	struct varvel_socket *s;
	struct bpf_sock *sk = ctx->sk;

	if ((ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB && ctx->op != BPF_SOCK_OPS_STATE_CB &&
	     ctx->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) ||
	    !sk)
		return 1;
	s = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	if (!s)
		return 1;
	if (ctx->op == BPF_SOCK_OPS_STATE_CB)
		ops_state(ctx, s);
	else if (ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		ops_accepted(ctx, s);
	else if (s->flags & SOCKET_REDIRECTED)
		ops_connect(ctx, s);
	return 1;
}

static __always_inline bool at_door(const struct bpf_sock_ops *ctx)
{
	__u32 zero = 0;
	struct varvel_node *n = bpf_map_lookup_elem(&node, &zero);

	return n && ctx->local_port == (ctx->family == AF_INET ? n->tcp4 : n->tcp6);
}

/*
 * In the daemon: an accepted socket is told who is at its other end. While the
 * handshake ends, the client's socket exists and owns its port, so the entry can
 * only be its own. At another listener of the daemon, another client could have
 * the same port.
 */
SEC("sockops")
int varvel_accept(struct bpf_sock_ops *ctx)
{
	struct varvel_redirect_key key = {.protocol = IPPROTO_TCP};
	struct varvel_origin *origin, *mine;
	struct dest peer = {};
	struct bpf_sock *sk = ctx->sk;

	if (ctx->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB || !sk || !at_door(ctx))
		return 1;
	key.netns = bpf_get_netns_cookie(ctx);
	key.port = bpf_ntohl(ctx->remote_port);
	ops_remote(&peer, ctx);
	key.address = peer.address;
	origin = bpf_map_lookup_elem(&redirects, &key);
	if (!origin)
		return 1;
	mine = bpf_sk_storage_get(&accepted, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (mine)
		*mine = *origin;
	bpf_map_delete_elem(&redirects, &key);
	return 1;
}

SEC("cgroup/sock_release")
int varvel_sock_release(struct bpf_sock *ctx)
{
	struct varvel_socket *s = bpf_sk_storage_get(&sockets, ctx, NULL, 0);

	if (!s)
		return 1;
	if (s->flags & SOCKET_REGISTERED)
		retract(s, bpf_get_socket_cookie(ctx));
	share_give(s);
	return 1;
}

/* The first packet to a destination makes it one that was reached. */
static __always_inline int packet_sent(struct packet *p)
{
	struct varvel_socket *s = p->socket;

	if (s->flags & (SOCKET_NOTED | SOCKET_REDIRECTED))
		return 1;
	s->flags |= SOCKET_NOTED;
	if (!is_loopback(&p->to))
		flow_note(s->run, &p->to);
	return 1;
}

/* Remembers that this destination is allowed. A listener has many peers. */
static __always_inline int packet_allow(struct packet *p, __u32 flags)
{
	struct varvel_socket *s = p->socket;
	bool same = s->port == p->to.port && address_equal(&s->dst, &p->to.address);
	__u32 keep = SOCKET_REGISTERED | SOCKET_ACCEPTED | (same ? SOCKET_NOTED : 0);

	if (p->sk->state == BPF_TCP_LISTEN)
		return 1;
	peer_leave(p->skb, s, &p->to);
	s->dst = p->to.address;
	s->port = p->to.port;
	s->flags = (s->flags & keep) | SOCKET_JUDGED | flags;
	return packet_sent(p);
}

static __always_inline int packet_refuse(struct packet *p, __u8 reason, bool always)
{
	struct refusal r = {
		.run = p->socket ? p->socket->run : 0,
		.cookie = bpf_get_socket_cookie(p->skb),
		.pid = p->socket && p->socket->pid ? p->socket->pid : 1,
		.reason = reason,
		.hook = HOOK_EGRESS,
		.observe = !always && p->socket && (p->socket->rules.flags & RUN_OBSERVE),
	};

	refuse(&r, &p->to);
	return r.observe ? packet_allow(p, 0) : 0;
}

static __always_inline bool to_door(const struct packet *p)
{
	const struct varvel_node *n = p->node;
	__u16 port = p->to.port;

	if (!is_loopback(&p->to) || !port)
		return false;
	if (p->to.protocol == IPPROTO_TCP)
		return port == (p->to.v4 ? n->tcp4 : n->tcp6);
	return port == (p->to.v4 ? n->udp4 : n->udp6);
}

/*
 * An unconnected UDP socket may talk to others between two questions, so what
 * counts for it is that it was ever sent to the name server.
 */
static __always_inline bool was_redirected(const struct packet *p)
{
	return p->to.protocol == IPPROTO_UDP ? p->socket->dns_port != 0 :
					       !!(p->socket->flags & SOCKET_REDIRECTED);
}

/*
 * A datagram can claim a source that is another socket's (IP_PKTINFO, ip(7)).
 * Whose question it is, is therefore known by who gets the answer.
 */
static __always_inline int packet_question(struct packet *p)
{
	struct varvel_socket *s = p->socket;
	__u8 reason = REASON_NONE;

	if (local_owner(p->skb, s->run, &p->from, &p->to) != OWNER_SAME)
		return packet_refuse(p, REASON_PEER_FOREIGN, true);
	if (!(s->flags & SOCKET_REGISTERED && s->local.port == p->from.port &&
	      address_equal(&s->local.address, &p->from.address)))
		reason = announce(s, &p->from.address, p->from.port, IPPROTO_UDP,
				  bpf_get_socket_cookie(p->skb));
	if (reason)
		return packet_refuse(p, reason, true);
	s->flags |= SOCKET_JUDGED;
	return 1;
}

/* A redirected socket's packet: to the door, as long as its name is allowed. */
static __always_inline int packet_redirected(struct packet *p)
{
	struct varvel_socket *s = p->socket;
	struct dest asked = {.address = s->dst, .port = s->port, .protocol = p->to.protocol};

	asked.v4 = is_mapped(&s->dst);
	if (!(s->flags & SOCKET_JUDGED) && is_synthetic(&asked) && !name_allows(s->run, &asked))
		return packet_refuse(p, REASON_STALE, true);
	if (p->to.protocol == IPPROTO_UDP)
		return packet_question(p);
	s->flags |= SOCKET_JUDGED;
	return 1;
}

/* Is it TCP that somebody else has begun? */
static __always_inline bool is_accepted(const struct packet *p)
{
	return p->to.protocol == IPPROTO_TCP &&
	       (p->sk->state == BPF_TCP_LISTEN || p->socket->flags & SOCKET_ACCEPTED);
}

/* Does it answer somebody who is granted the port that it comes from? */
static __always_inline bool is_answer(const struct packet *p)
{
	if (is_accepted(p))
		return inbound_grants(p->socket->run, &p->to, p->from.port);
	return peer_answer(p->skb, p->socket, &p->to, p->from.port);
}

/*
 * What answers is allowed as long as the peer is granted the port: for TCP that is
 * remembered until the rules change, datagrams are asked about each time.
 */
static __always_inline int packet_answer(struct packet *p)
{
	struct varvel_socket *s = p->socket;

	if (p->to.protocol == IPPROTO_UDP || p->sk->state == BPF_TCP_LISTEN)
		return 1;
	if (!(s->flags & SOCKET_NOTED))
		inbound_note(s->run, &p->to, p->from.port);
	s->flags |= SOCKET_JUDGED | SOCKET_NOTED;
	return 1;
}

/* Has the other end of a TCP connection been chosen? */
static __always_inline bool is_settled(const struct packet *p)
{
	return p->to.protocol == IPPROTO_TCP && p->sk->state == BPF_TCP_ESTABLISHED;
}

/*
 * Loopback, by who would receive it. Who of a port's group gets a connection is
 * chosen when its SYN arrives, perhaps by a program of theirs (socket(7),
 * SO_ATTACH_REUSEPORT_CBPF), so only a look after that is remembered.
 */
static __always_inline int packet_loopback(struct packet *p)
{
	struct varvel_socket *s = p->socket;
	enum owner owner = local_owner(p->skb, s->run, &p->to, &p->from);

	if (owner == OWNER_FOREIGN)
		return is_answer(p) ? packet_answer(p) :
				      packet_refuse(p, REASON_PEER_FOREIGN, false);
	if (owner == OWNER_SAME)
		return is_settled(p) ? packet_allow(p, 0) : 1;
	/* Nobody: the packet makes its sender a reset or a port unreachable. */
	return 1;
}

/*
 * Why a packet is refused. Its socket may have been allowed to go somewhere else:
 * then a program that was asked after ours (Cilium's, for a service's address)
 * has changed where to.
 */
static __always_inline __u8 packet_reason(const struct packet *p, __u8 reason)
{
	const struct varvel_socket *s = p->socket;

	if (p->stale)
		return REASON_STALE;
	if (reason && reason != REASON_NO_RULE)
		return reason;
	return s->flags & SOCKET_JUDGED && !p->options ? REASON_REWRITTEN : REASON_NO_RULE;
}

/*
 * The reset with which a connection ends that the daemon cuts, or that a program
 * gives up. It has no data, and goes to whom the socket was once allowed, who would
 * otherwise wait for a long time.
 */
static __noinline bool is_farewell(struct __sk_buff *skb, __u32 transport)
{
	struct {
		__u8 length, flags; /* length: in words, in the upper half (RFC 9293, section 3.1) */
	} tcp;

	return !bpf_skb_load_bytes(skb, transport + 12, &tcp, sizeof(tcp)) &&
	       tcp.flags & TCP_RST && skb->len == transport + (tcp.length >> 4) * 4;
}

static __always_inline bool may_leave(const struct packet *p)
{
	const struct varvel_socket *s = p->socket;

	return p->to.protocol == IPPROTO_TCP && p->sk->state != BPF_TCP_LISTEN &&
	       s->port == p->to.port && address_equal(&s->dst, &p->to.address) &&
	       is_farewell(p->skb, p->transport);
}

static __always_inline int packet_judge(struct packet *p)
{
	struct varvel_socket *s = p->socket;
	struct judgement j;

	if (is_loopback(&p->to))
		return packet_loopback(p);
	if (is_answer(p))
		return packet_answer(p);
	if (is_accepted(p))
		return may_leave(p) ||
		       packet_refuse(p, p->stale ? REASON_STALE : REASON_INBOUND, false);
	j = judge(p->skb, s->run, &s->rules, &p->to, false);
	lease_continue(&j, s, &p->to);
	if (j.verdict == VERDICT_LEASED)
		return packet_allow(p, SOCKET_LEASED);
	if (j.verdict != VERDICT_DIRECT)
		return may_leave(p) || packet_refuse(p, packet_reason(p, j.reason), false);
	return packet_allow(p, 0);
}

/*
 * Is it known that this packet may go where its header says? What the socket was
 * allowed is compared with the packet, not with the socket's idea of its peer: a
 * routing header makes the two differ. A loopback listener can change hands until
 * the handshake has ended, so until then it is looked up each time.
 */
static __always_inline bool packet_known(const struct packet *p)
{
	const struct varvel_socket *s = p->socket;

	if (!(s->flags & SOCKET_JUDGED) || s->generation != p->node->generation)
		return false;
	if (s->flags & SOCKET_REDIRECTED)
		return p->to.protocol == IPPROTO_TCP && to_door(p);
	if (s->port != p->to.port || !address_equal(&s->dst, &p->to.address))
		return false;
	return !is_loopback(&p->to) || is_settled(p);
}

/* Loopback stays on the machine: a socket can be bound to another device. */
static __always_inline bool leaves_loopback(const struct packet *p)
{
	return is_loopback(&p->to) && p->skb->ifindex != LOOPBACK_IFINDEX;
}

SEC("cgroup_skb/egress")
int varvel_egress(struct __sk_buff *skb)
{
	struct packet p = {.skb = skb};

	if (!packet_open(&p))
		return 0;
	if (!p.socket)
		return packet_refuse(&p, REASON_NO_RUN, true);
	if (!parse(&p))
		return packet_refuse(&p, REASON_MALFORMED, false);
	if (leaves_loopback(&p))
		return packet_refuse(&p, REASON_LOOPBACK_FOREIGN, true);
	if (packet_known(&p))
		return packet_sent(&p);
	p.stale = p.socket->flags & SOCKET_JUDGED && p.socket->generation != p.node->generation;
	if (!socket_refresh(p.socket, p.node))
		return packet_refuse(&p, REASON_NO_RUN, true);
	if (to_door(&p) && was_redirected(&p))
		return packet_redirected(&p);
	return packet_judge(&p);
}
