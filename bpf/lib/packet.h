/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * A packet as a program of a socket sees it, and its addresses and ports.
 */
#pragma once

#include "verdict.h"

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd

struct packet {
	struct __sk_buff *skb;
	struct bpf_sock *sk;
	struct varvel_socket *socket;
	struct varvel_node *node;
	struct dest to;
	struct dest from;
	__u32 transport; /* offset of the TCP or UDP header */
	bool stale; /* the socket was allowed something under other rules */
	bool options; /* IPv4 options: a source route names another address than the socket */
};

/*
 * Finds whose packet it is. Returns false if it is nobody's, or the daemon has not
 * set up the node; then it is dropped. A socket that no run owns has no p->socket.
 */
static __always_inline bool packet_open(struct packet *p)
{
	__u32 zero = 0;

	if (!p->skb->sk)
		return false;
	p->sk = bpf_sk_fullsock(p->skb->sk);
	p->node = bpf_map_lookup_elem(&node, &zero);
	if (!p->sk || !p->node)
		return false;
	p->socket = bpf_sk_storage_get(&sockets, p->sk, NULL, 0);
	return true;
}

struct ports {
	__u16 source;
	__u16 dest;
};

static __always_inline bool parse_ports(struct packet *p, __u32 offset, __u8 protocol)
{
	struct ports ports;

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return false;
	if (bpf_skb_load_bytes(p->skb, offset, &ports, sizeof(ports)))
		return false;
	p->transport = offset;
	p->to.protocol = p->from.protocol = protocol;
	p->to.port = bpf_ntohs(ports.dest);
	p->from.port = bpf_ntohs(ports.source);
	return true;
}

static __always_inline bool parse4(struct packet *p)
{
	struct {
		__u8 version_ihl, tos;
		__u16 length, id, fragment;
		__u8 ttl, protocol;
		__u16 check;
		__u32 source, dest;
	} ip;

	if (bpf_skb_load_bytes(p->skb, 0, &ip, sizeof(ip)))
		return false;
	dest_v4(&p->to, ip.dest);
	dest_v4(&p->from, ip.source);
	p->options = (ip.version_ihl & 15) > 5;
	return parse_ports(p, (ip.version_ihl & 15) * 4, ip.protocol);
}

/* Extension headers are refused: no socket that a run may have makes them. */
static __always_inline bool parse6(struct packet *p)
{
	struct {
		__u32 flow;
		__u16 length;
		__u8 next, hops;
		struct varvel_address source, dest;
	} ip;

	if (bpf_skb_load_bytes(p->skb, 0, &ip, sizeof(ip)))
		return false;
	p->to.address = ip.dest;
	p->from.address = ip.source;
	p->to.v4 = p->from.v4 = false;
	return parse_ports(p, sizeof(ip), ip.next);
}

static __always_inline bool parse(struct packet *p)
{
	if (p->skb->protocol == bpf_htons(ETH_P_IP))
		return parse4(p);
	return p->skb->protocol == bpf_htons(ETH_P_IPV6) && parse6(p);
}
