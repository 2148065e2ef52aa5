/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The judgement: may this run go there? Connect, sendmsg and egress all ask
 * here, so that they can't disagree.
 */
#pragma once

#include "refuse.h"
#include "lease.h"

/* The link-local addresses at which a run finds Varvel's endpoint (TCP 80). */
#define ENDPOINT4 0xa9feaa02u /* 169.254.170.2, host order */
#define ENDPOINT_PORT 80
#define DNS_PORT 53

#define SET_MASK ((1u << LAYOUT4_SET_BITS) - 1)

/*
 * Brings what a socket knows of its run up to date. What was allowed under other
 * rules has to be judged again. The daemon changes a run first and the generation
 * after that, so old rules are never taken for new ones. Returns false if the run
 * is no more.
 */
static __always_inline bool socket_refresh(struct varvel_socket *s, const struct varvel_node *n)
{
	__u32 generation = *(volatile const __u32 *)&n->generation;
	struct varvel_run *run;

	if (s->generation == generation)
		return true;
	run = bpf_map_lookup_elem(&runs, &s->run);
	if (!run)
		return false;
	s->rules = *run;
	s->flags &= ~SOCKET_JUDGED;
	s->generation = generation;
	return true;
}

enum verdict {
	VERDICT_DENY,
	VERDICT_DIRECT,	  /* a rule allows the address itself */
	VERDICT_LOOPBACK, /* a listener of the same run */
	VERDICT_PROBE,	  /* nothing is settled: what is sent is judged as it leaves */
	VERDICT_DOOR,	  /* redirect TCP to the daemon */
	VERDICT_DNS,	  /* redirect to the name server */
	VERDICT_REFUSED,  /* same-run loopback without a listener */
	VERDICT_LEASED,	  /* a lease allows the address itself */
};

struct judgement {
	enum verdict verdict;
	__u8 reason;
};

static __always_inline bool address_equal(const struct varvel_address *a,
					  const struct varvel_address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

static __always_inline bool is_mapped(const struct varvel_address *a)
{
	return a->word[0] == 0 && a->word[1] == 0 && a->word[2] == bpf_htonl(0xffff);
}

static __always_inline void dest_v4(struct dest *d, __u32 address)
{
	d->address.word[0] = 0;
	d->address.word[1] = 0;
	d->address.word[2] = bpf_htonl(0xffff);
	d->address.word[3] = address;
	d->v4 = true;
}

static __always_inline bool is_loopback(const struct dest *d)
{
	const __u32 *w = d->address.word;

	/* Connecting to the unspecified address means loopback. */
	if (d->v4)
		return (w[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000) || w[3] == 0;
	return w[0] == 0 && w[1] == 0 && w[2] == 0 && (w[3] == bpf_htonl(1) || w[3] == 0);
}

/* 198.18.0.0/15 (RFC 2544) and fd56:6172:7665:6c00::/64. */
static __always_inline bool is_synthetic(const struct dest *d)
{
	const __u32 *w = d->address.word;

	if (d->v4)
		return (w[3] & bpf_htonl(0xfffe0000)) == bpf_htonl(0xc6120000);
	return w[0] == bpf_htonl(0xfd566172) && w[1] == bpf_htonl(0x76656c00);
}

static __always_inline bool is_endpoint(const struct dest *d)
{
	const __u32 *w = d->address.word;

	if (d->port != ENDPOINT_PORT || d->protocol != IPPROTO_TCP)
		return false;
	if (d->v4)
		return w[3] == bpf_htonl(ENDPOINT4);
	return w[0] == bpf_htonl(0xfd000ec2) && w[1] == 0 && w[2] == 0 && w[3] == bpf_htonl(0x23);
}

/* fe80::/10: which link is meant is not in the address, so no rule can name one. */
static __always_inline bool is_link_local(const struct dest *d)
{
	return !d->v4 && (d->address.word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/*
 * The functions that are not static here are verified by themselves, once in each
 * program, for any arguments (the kernel's Documentation/bpf, "global functions").
 * Inlined, their loops and branches are tried again for each state in which a path
 * comes to them, which was most of the time that it took to load the programs.
 */
int port_set_allows(__u32 index, __u16 port, __u8 protocol);
__u32 find4(__u32 ruleset, __u32 block, __u32 address);
__u32 find6(__u32 ruleset, __u64 high, __u64 low);

__noinline int port_set_allows(__u32 index, __u16 port, __u8 protocol)
{
	struct varvel_port_set *set = bpf_map_lookup_elem(&port_sets, &index);

	if (!set)
		return false;
	for (__u32 i = 0; i < VARVEL_PORT_RANGES; i++) {
		if (i >= set->count)
			return false;
		if (set->range[i].protocol == protocol && set->range[i].first <= port &&
		    port <= set->range[i].last)
			return true;
	}
	return false;
}

/*
 * All ones if a <= b, else 0. Which way a search goes can't be predicted. A
 * branch would be, wrongly, and while the data come from memory the processor
 * would wait instead of going on. The barrier keeps the compiler from making one.
 */
static __always_inline __u64 not_above(__u32 a, __u32 b)
{
	__s64 difference = (__s64)a - (__s64)b - 1;

	asm volatile("" : "+r"(difference));
	return difference >> 63;
}

/*
 * Looks for the last of some ascending numbers that is at most a value, and goes on
 * from at: steps of half the length, and half of that, while they are above end.
 */
static __always_inline __u64 search(const __u32 *number, __u64 at, __u64 step, __u64 end,
				    __u32 value)
{
	for (; step > end; step /= 2)
		at += not_above(number[at + step], value) & step;
	return at;
}

/* The slot of a line that holds a number, or the last one below it. */
static __always_inline __u32 line_search(const struct varvel_line4 *line, __u32 number)
{
	__u32 greatest = number << LAYOUT4_SET_BITS | SET_MASK;

	return line->slot[search(line->slot, 0, LAYOUT4_SLOTS / 2, 0, greatest)];
}

static __always_inline __u32 find_in_block(__u32 ruleset, __u32 count, __u32 address)
{
	void *map = bpf_map_lookup_elem(&block4, &ruleset);
	struct varvel_block4 *block;
	__u32 zero = 0;
	__u64 at = 0;

	block = map ? bpf_map_lookup_elem(map, &zero) : NULL;
	if (!block)
		return 0;
	if (count > LAYOUT4_FEW)
		at = search(block->start, 0, LAYOUT4_BLOCK / 2, LAYOUT4_FEW / 2, address);
	return block->set[search(block->start, at, LAYOUT4_FEW / 2, 0, address)];
}

/* The port set of a host route; 0 if there is none, or not in the table. */
static __always_inline __u32 find_host(__u32 ruleset, __u32 address)
{
	__u32 product = address * LAYOUT4_FACTOR;
	__u32 index = product >> (32 - LAYOUT4_HOST_BITS);
	__u32 number = product & ((1u << (32 - LAYOUT4_HOST_BITS)) - 1), slot;
	void *map = bpf_map_lookup_elem(&hosts4, &ruleset);
	struct varvel_line4 *line = map ? bpf_map_lookup_elem(map, &index) : NULL;

	if (!line)
		return 0;
	slot = line_search(line, number);
	return slot >> LAYOUT4_SET_BITS == number ? slot & SET_MASK : 0;
}

/* A bucket has at most one range for each of its addresses. */
#define SEARCH_STEPS (32 - LAYOUT4_BUCKET_BITS + 1)

/* The port set of the last of some ranges that starts at or below an address. */
static __always_inline __u32 search4(void *ranges, __u32 first, __u32 count, __u32 address)
{
	__u32 set = 0;

	for (int i = 0; i < SEARCH_STEPS && count; i++) {
		__u32 half = count / 2, middle = first + half;
		struct varvel_range4 *range = bpf_map_lookup_elem(ranges, &middle);

		if (!range)
			return 0;
		if (range->start <= address) {
			set = range->set;
			first = middle + 1;
			count -= half + 1;
		} else {
			count = half;
		}
	}
	return set;
}

static __always_inline __u32 find_range(__u32 ruleset, __u32 address)
{
	__u32 index = address >> (32 - LAYOUT4_BUCKET_BITS);
	__u32 number = address & ((1u << (32 - LAYOUT4_BUCKET_BITS)) - 1), first;
	void *map = bpf_map_lookup_elem(&buckets4, &ruleset);
	struct varvel_line4 *line = map ? bpf_map_lookup_elem(map, &index) : NULL;

	if (!line)
		return 0;
	first = line->slot[0];
	if (!(first & LAYOUT4_ELSEWHERE))
		return line_search(line, number) & SET_MASK;
	map = bpf_map_lookup_elem(&ranges4, &ruleset);
	return map ? search4(map, line->slot[1], first & ~LAYOUT4_ELSEWHERE, address) : 0;
}

/*
 * The port set for an IPv4 address; 0 is the empty one. block is how many ranges
 * there are if they are in one block, else 0.
 */
__noinline __u32 find4(__u32 ruleset, __u32 block, __u32 address)
{
	if (block)
		return find_in_block(ruleset, block, address);
	return find_host(ruleset, address) ?: find_range(ruleset, address);
}

/* The port set for an IPv6 address, given as its halves as they are in memory. */
__noinline __u32 find6(__u32 ruleset, __u64 high, __u64 low)
{
	struct varvel_prefix6 key = {
		.length = 128,
		.address.word = {high, high >> 32, low, low >> 32},
	};
	void *map = bpf_map_lookup_elem(&exact6, &ruleset);
	__u32 *set = map ? bpf_map_lookup_elem(map, &key.address) : NULL;

	if (!set) {
		map = bpf_map_lookup_elem(&prefix6, &ruleset);
		set = map ? bpf_map_lookup_elem(map, &key) : NULL;
	}
	return set ? *set : 0;
}

static __always_inline bool rules_allow(const struct varvel_run *run, const struct dest *d)
{
	const __u32 *w = d->address.word;
	__u32 set;

	if (d->v4)
		set = find4(run->ruleset, run->ranges4, bpf_ntohl(w[3]));
	else
		set = find6(run->ruleset, w[0] | (__u64)w[1] << 32, w[2] | (__u64)w[3] << 32);
	return set && port_set_allows(set, d->port, d->protocol);
}

static __always_inline bool name_allows(__u64 run, const struct dest *d)
{
	struct varvel_name_key key = {
		.run = run,
		.address = d->address,
		.port = d->port,
		.protocol = d->protocol,
	};

	return bpf_map_lookup_elem(&names, &key) != NULL;
}

enum owner { OWNER_NONE, OWNER_SAME, OWNER_FOREIGN };

/* The address, or loopback if there is none. */
static __always_inline void tuple6(__u32 *to, const struct dest *d)
{
	if (d) {
		to[0] = d->address.word[0];
		to[1] = d->address.word[1];
		to[2] = d->address.word[2];
		to[3] = d->address.word[3];
	}
	if (!(to[0] | to[1] | to[2] | to[3]))
		to[3] = bpf_htonl(1);
}

/*
 * Whose socket would receive this if it came from this machine? from is the
 * sender's address and port; without it, listeners only. To the unspecified
 * address means to loopback.
 */
static __always_inline enum owner local_owner(void *ctx, __u64 run, const struct dest *d,
						 const struct dest *from)
{
	struct bpf_sock_tuple tuple = {};
	struct varvel_socket *s;
	struct bpf_sock *sk;
	enum owner owner;
	__u32 size;

	if (d->v4) {
		size = sizeof(tuple.ipv4);
		tuple.ipv4.daddr = d->address.word[3] ?: bpf_htonl(0x7f000001);
		tuple.ipv4.dport = bpf_htons(d->port);
		tuple.ipv4.saddr = from ? from->address.word[3] : bpf_htonl(0x7f000001);
		tuple.ipv4.sport = from ? bpf_htons(from->port) : 0;
	} else {
		size = sizeof(tuple.ipv6);
		tuple6(tuple.ipv6.daddr, d);
		tuple.ipv6.dport = bpf_htons(d->port);
		tuple6(tuple.ipv6.saddr, from);
		tuple.ipv6.sport = from ? bpf_htons(from->port) : 0;
	}
	if (d->protocol == IPPROTO_TCP)
		sk = bpf_sk_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	else
		sk = bpf_sk_lookup_udp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return OWNER_NONE;
	s = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	owner = s && s->run == run ? OWNER_SAME : OWNER_FOREIGN;
	bpf_sk_release(sk);
	return owner;
}

/*
 * A UDP socket that is connected to the one that asks is not found here, since
 * the asker's port is not known yet; its datagrams find it as they leave.
 */
static __always_inline struct judgement judge_loopback(void *ctx, __u64 run, const struct dest *d)
{
	switch (local_owner(ctx, run, d, NULL)) {
	case OWNER_SAME:
		return (struct judgement){VERDICT_LOOPBACK, REASON_NONE};
	case OWNER_NONE:
		return (struct judgement){d->protocol == IPPROTO_UDP ? VERDICT_PROBE :
								       VERDICT_REFUSED,
					  REASON_NONE};
	default:
		return (struct judgement){VERDICT_DENY, REASON_LOOPBACK_FOREIGN};
	}
}

/*
 * A name's address. Resolvers connect UDP sockets to what DNS answered, at any
 * port, only to see which source address the kernel picks (RFC 6724): nothing is
 * sent, and the first datagram is judged on its way out.
 */
static __always_inline struct judgement judge_synthetic(__u64 run, const struct dest *d,
							bool connecting)
{
	if (d->protocol == IPPROTO_UDP)
		return connecting ? (struct judgement){VERDICT_PROBE, REASON_NONE} :
				    (struct judgement){VERDICT_DENY, REASON_NAME_UDP};
	if (name_allows(run, d))
		return (struct judgement){VERDICT_DOOR, REASON_NONE};
	return (struct judgement){VERDICT_DENY, REASON_NAME_PORT};
}

/*
 * A real address that no rule lists: it may be that of a `direct` name. Resolvers
 * look for a route to it as they do to a synthetic one.
 */
static __always_inline struct judgement judge_lease(__u64 run, const struct dest *d,
						    bool connecting)
{
	switch (lease_of(run, &d->address, d->port, d->protocol)) {
	case LEASE_LIVE:
		return (struct judgement){VERDICT_LEASED, REASON_NONE};
	case LEASE_EXPIRED:
		return (struct judgement){VERDICT_DENY, REASON_LEASE_EXPIRED};
	default:
		if (connecting && d->protocol == IPPROTO_UDP && lease_known(run, &d->address))
			return (struct judgement){VERDICT_PROBE, REASON_NONE};
		return (struct judgement){VERDICT_DENY, REASON_NO_RULE};
	}
}

/*
 * What a socket was leased goes on after the lease, as a connection outlives the
 * DNS record that it was made by. A lease that was withdrawn is no longer there.
 */
static __always_inline void lease_continue(struct judgement *j, const struct varvel_socket *s,
					   const struct dest *d)
{
	if (j->reason == REASON_LEASE_EXPIRED && s->flags & SOCKET_LEASED && s->port == d->port &&
	    address_equal(&s->dst, &d->address))
		*j = (struct judgement){VERDICT_LEASED, REASON_NONE};
}

/* Judges a destination for a run. d is in final form: no mapped IPv6. */
static __always_inline struct judgement judge(void *ctx, __u64 id, const struct varvel_run *run,
					      const struct dest *d, bool connecting)
{
	struct judgement j;

	if (is_endpoint(d))
		return (struct judgement){VERDICT_DOOR, REASON_NONE};
	if (is_synthetic(d))
		return judge_synthetic(id, d, connecting);
	if (d->port == DNS_PORT)
		return (struct judgement){VERDICT_DNS, REASON_NONE};
	if (is_loopback(d))
		return judge_loopback(ctx, id, d);
	if (rules_allow(run, d))
		return (struct judgement){VERDICT_DIRECT, REASON_NONE};
	j = judge_lease(id, d, connecting);
	if (j.reason == REASON_NO_RULE && is_link_local(d))
		j.reason = REASON_LINK_LOCAL;
	return j;
}
