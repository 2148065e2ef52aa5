//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * connect, sendmsg, recvmsg, getpeername and bind: the hooks where a program
 * names an address. They refuse with EPERM at once, and they redirect.
 */
#define PEER_CONTEXT struct bpf_sock_addr
#define PEER_SOCKET(ctx) ((ctx)->sk)
#include "lib/inbound.h"
#include "lib/share.h"

char LICENSE[] SEC("license") = "GPL"; /* what the kernel asks for; dual in SPDX */

/* All that the hooks of one socket call need to know. */
struct call {
	struct bpf_sock_addr *ctx;
	struct varvel_socket *socket; /* NULL: the call is nobody's */
	struct varvel_node *node;
	struct dest dest;
	__u8 hook;
	bool redirected; /* it goes to a door */
};

static __always_inline void dest_from4(struct dest *d, struct bpf_sock_addr *ctx)
{
	dest_v4(d, field(ctx, user_ip4));
	d->port = bpf_ntohs(ctx->user_port);
	d->protocol = ctx->protocol;
}

static __always_inline void dest_from6(struct dest *d, struct bpf_sock_addr *ctx)
{
	d->address.word[0] = field(ctx, user_ip6[0]);
	d->address.word[1] = field(ctx, user_ip6[1]);
	d->address.word[2] = field(ctx, user_ip6[2]);
	d->address.word[3] = field(ctx, user_ip6[3]);
	d->port = bpf_ntohs(ctx->user_port);
	d->protocol = ctx->protocol;
	d->v4 = is_mapped(&d->address);
}

/* Finds whose call it is. Returns false if nobody's: then it is refused. */
static __always_inline bool call_open(struct call *c)
{
	__u32 zero = 0;

	struct varvel_socket *s = bpf_sk_storage_get(&sockets, c->ctx->sk, NULL, 0);

	c->node = bpf_map_lookup_elem(&node, &zero);
	if (!s || !c->node || !socket_refresh(s, c->node))
		return false;
	c->socket = s;
	return true;
}

/* Refuses a call, or lets it pass and tells, for an agent in observe. */
static __always_inline int call_refuse(struct call *c, __u8 reason)
{
	struct refusal r = {
		.run = c->socket ? c->socket->run : 0,
		.cookie = bpf_get_socket_cookie(c->ctx),
		.reason = reason,
		.hook = c->hook,
		.observe = c->socket && (c->socket->rules.flags & RUN_OBSERVE),
	};

	refuse(&r, &c->dest);
	return r.observe;
}

/* Remembers what the socket was allowed to reach, for the backstop. */
static __always_inline void call_remember(struct call *c, __u32 flags)
{
	struct varvel_socket *s = c->socket;
	bool same = s->port == c->dest.port && address_equal(&s->dst, &c->dest.address);
	__u32 keep = SOCKET_REGISTERED | (same ? SOCKET_NOTED : 0);

	peer_leave(c->ctx, s, &c->dest);
	s->dst = c->dest.address;
	s->port = c->dest.port;
	s->flags = (s->flags & keep) | flags;
}

static __always_inline int call_allow(struct call *c)
{
	call_remember(c, SOCKET_JUDGED);
	return 1;
}

static __always_inline void rewrite4(struct bpf_sock_addr *ctx, __u16 port)
{
	ctx->user_ip4 = bpf_htonl(0x7f000001);
	ctx->user_port = bpf_htons(port);
}

static __always_inline void rewrite6(struct bpf_sock_addr *ctx, bool mapped, __u16 port)
{
	ctx->user_ip6[0] = 0;
	ctx->user_ip6[1] = 0;
	ctx->user_ip6[2] = mapped ? bpf_htonl(0xffff) : 0;
	ctx->user_ip6[3] = mapped ? bpf_htonl(0x7f000001) : bpf_htonl(1);
	ctx->user_port = bpf_htons(port);
}

/* Sends the call to a door of the daemon; six: the context is that of an IPv6 hook. */
static __always_inline int call_redirect(struct call *c, __u16 door4, __u16 door6, bool six)
{
	__u16 door = c->dest.v4 ? door4 : door6;

	if (c->socket->rules.flags & (c->dest.v4 ? RUN_NO_DOOR4 : RUN_NO_DOOR6))
		return call_refuse(c, REASON_NO_LOOPBACK);
	if (!door) /* one door only: the other could not be opened */
		return call_refuse(c, door4 | door6 ? REASON_NO_LOOPBACK : REASON_NO_DOOR);
	if (c->dest.protocol == IPPROTO_TCP && !share_left(c->socket))
		return call_refuse(c, REASON_SHARE);
	call_remember(c, SOCKET_JUDGED | SOCKET_REDIRECTED);
	c->redirected = true;
	if (six)
		rewrite6(c->ctx, c->dest.v4, door);
	else
		rewrite4(c->ctx, door);
	return 1;
}

static __always_inline int call_dns(struct call *c, bool six)
{
	int verdict;

	if (c->dest.protocol == IPPROTO_TCP)
		return call_redirect(c, c->node->tcp4, c->node->tcp6, six);
	verdict = call_redirect(c, c->node->udp4, c->node->udp6, six);
	if (c->redirected) { /* nobody answers a question that was refused */
		c->socket->dns = c->dest.address;
		c->socket->dns_port = c->dest.port;
	}
	return verdict;
}

static __always_inline int call_judge(struct call *c, bool connecting, bool six)
{
	struct judgement j;

	if (!call_open(c))
		return call_refuse(c, REASON_NO_RUN);
	if (peer_answer(c->ctx, c->socket, &c->dest, c->ctx->sk->src_port))
		return 1;
	j = judge(c->ctx, c->socket->run, &c->socket->rules, &c->dest, connecting);
	if (!connecting)
		lease_continue(&j, c->socket, &c->dest);
	switch (j.verdict) {
	case VERDICT_DIRECT:
		return call_allow(c);
	case VERDICT_LOOPBACK: /* who really gets it is seen when it leaves */
		call_remember(c, 0);
		return 1;
	case VERDICT_LEASED:
		call_remember(c, SOCKET_JUDGED | SOCKET_LEASED);
		return 1;
	case VERDICT_PROBE:
		return 1;
	case VERDICT_DOOR:
		return call_redirect(c, c->node->tcp4, c->node->tcp6, six);
	case VERDICT_DNS:
		return call_dns(c, six);
	case VERDICT_REFUSED:
		bpf_set_retval(-ECONNREFUSED);
		return 0;
	default:
		return call_refuse(c, j.reason) ? call_allow(c) : 0;
	}
}

SEC("cgroup/connect4")
int varvel_connect4(struct bpf_sock_addr *ctx)
{
	struct call c = {.ctx = ctx, .hook = HOOK_CONNECT};

	dest_from4(&c.dest, ctx);
	return call_judge(&c, true, false);
}

SEC("cgroup/connect6")
int varvel_connect6(struct bpf_sock_addr *ctx)
{
	struct call c = {.ctx = ctx, .hook = HOOK_CONNECT};

	dest_from6(&c.dest, ctx);
	return call_judge(&c, true, true);
}

SEC("cgroup/sendmsg4")
int varvel_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct call c = {.ctx = ctx, .hook = HOOK_SENDMSG};

	dest_from4(&c.dest, ctx);
	return call_judge(&c, false, false);
}

SEC("cgroup/sendmsg6")
int varvel_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct call c = {.ctx = ctx, .hook = HOOK_SENDMSG};

	dest_from6(&c.dest, ctx);
	return call_judge(&c, false, true);
}

/* Is this datagram an answer of our name server to this socket? */
static __always_inline struct varvel_socket *dns_answer(struct call *c)
{
	if (!call_open(c) || !c->socket->dns_port || !is_loopback(&c->dest))
		return NULL;
	if (c->dest.port != (c->dest.v4 ? c->node->udp4 : c->node->udp6))
		return NULL;
	/* Both ends of the exchange have one family. */
	return is_mapped(&c->socket->dns) == c->dest.v4 ? c->socket : NULL;
}

/* The answer comes from the server that was asked. */
SEC("cgroup/recvmsg4")
int varvel_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct call c = {.ctx = ctx};
	struct varvel_socket *s;

	dest_from4(&c.dest, ctx);
	s = dns_answer(&c);
	if (s) {
		ctx->user_ip4 = s->dns.word[3];
		ctx->user_port = bpf_htons(s->dns_port);
	}
	return 1;
}

static __always_inline void restore6(struct bpf_sock_addr *ctx, const struct varvel_address *a,
				     __u16 port)
{
	ctx->user_ip6[0] = a->word[0];
	ctx->user_ip6[1] = a->word[1];
	ctx->user_ip6[2] = a->word[2];
	ctx->user_ip6[3] = a->word[3];
	ctx->user_port = bpf_htons(port);
}

SEC("cgroup/recvmsg6")
int varvel_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct call c = {.ctx = ctx};
	struct varvel_socket *s;

	dest_from6(&c.dest, ctx);
	s = dns_answer(&c);
	if (s)
		restore6(ctx, &s->dns, s->dns_port);
	return 1;
}

/* getpeername answers with what the program asked for. */
SEC("cgroup/getpeername4")
int varvel_getpeername4(struct bpf_sock_addr *ctx)
{
	struct varvel_socket *s = bpf_sk_storage_get(&sockets, ctx->sk, NULL, 0);

	if (s && s->flags & SOCKET_REDIRECTED && is_mapped(&s->dst)) {
		ctx->user_ip4 = s->dst.word[3];
		ctx->user_port = bpf_htons(s->port);
	}
	return 1;
}

SEC("cgroup/getpeername6")
int varvel_getpeername6(struct bpf_sock_addr *ctx)
{
	struct varvel_socket *s = bpf_sk_storage_get(&sockets, ctx->sk, NULL, 0);

	if (s && s->flags & SOCKET_REDIRECTED)
		restore6(ctx, &s->dst, s->port);
	return 1;
}

/*
 * A port that somebody outside the run listens on is in use, also for one who asks
 * to share it (SO_REUSEPORT, SO_REUSEADDR; socket(7)): the run would get others'
 * connections, and its own would lead out. Who joins the run's port later is met by
 * the backstop.
 */
static __always_inline int bind_foreign(struct call *c)
{
	if (call_refuse(c, REASON_PORT_FOREIGN))
		return 1;
	bpf_set_retval(-EADDRINUSE);
	return 0;
}

/*
 * Nobody in a run may sit on a port of the daemon, also not while the daemon is
 * away. Always refused, in observe too: it would take other runs' connections.
 */
static __always_inline int call_bind(struct call *c)
{
	struct varvel_node *n;
	__u16 port = c->dest.port;

	if (!call_open(c))
		return call_refuse(c, REASON_NO_RUN);
	n = c->node;
	if (port && (port == n->tcp4 || port == n->tcp6 || port == n->udp4 || port == n->udp6)) {
		call_refuse(c, REASON_RESERVED_PORT);
		return 0;
	}
	if (port && local_owner(c->ctx, c->socket->run, &c->dest, NULL) == OWNER_FOREIGN)
		return bind_foreign(c);
	return 1;
}

SEC("cgroup/bind4")
int varvel_bind4(struct bpf_sock_addr *ctx)
{
	struct call c = {.ctx = ctx, .hook = HOOK_BIND};

	dest_from4(&c.dest, ctx);
	return call_bind(&c);
}

SEC("cgroup/bind6")
int varvel_bind6(struct bpf_sock_addr *ctx)
{
	struct call c = {.ctx = ctx, .hook = HOOK_BIND};

	dest_from6(&c.dest, ctx);
	return call_bind(&c);
}
