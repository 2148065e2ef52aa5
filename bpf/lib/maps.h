/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The maps, shared by all objects: the first object that is loaded makes them,
 * the others are given them. Sizes are limits that are reached loudly: what does
 * not fit is refused and counted, and nothing is ever evicted.
 */
#pragma once

#include "abi.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct varvel_node);
} node SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, VARVEL_RUNS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct varvel_run);
} runs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, VARVEL_RUNS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct varvel_counters);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, VARVEL_RING_BYTES);
} life SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, VARVEL_RING_BYTES);
} denials SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, VARVEL_FLOWS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct varvel_flow_key);
	__type(value, struct varvel_flow);
} flows SEC(".maps");

/* Sockets born in a run. Accepted sockets inherit the run of their listener. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, __s32);
	__type(value, struct varvel_socket);
} sockets SEC(".maps");

/* UDP sockets of runs: with whom they have spoken lately. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __s32);
	__type(value, struct varvel_peers);
} peers SEC(".maps");

/* What a run's listen grants: a rule set with the peers' addresses and its own ports. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, VARVEL_RUNS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct varvel_run);
} inbound SEC(".maps");

/* The daemon's accepted sockets: who is at the other end. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __s32);
	__type(value, struct varvel_origin);
} accepted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, VARVEL_REDIRECTS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct varvel_redirect_key);
	__type(value, struct varvel_origin);
} redirects SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, VARVEL_RUNS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct varvel_share);
} shares SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, VARVEL_NAMES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct varvel_name_key);
	__type(value, __u32);
} names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, VARVEL_PORT_SETS);
	__type(key, __u32);
	__type(value, struct varvel_port_set);
} port_sets SEC(".maps");

/*
 * A rule set is a few maps, found by its index. For IPv4, a small one is a block
 * of ranges. A larger one has host routes in a table, and all else in ranges,
 * which are in lines by address; those that do not fit there are searched. For
 * IPv6, there are host routes by hash and the rest by longest prefix. Values are
 * indices of port sets. A map that would be empty is absent.
 *
 * Arrays of a fixed size are looked up without a call; those of different sizes
 * (BPF_F_INNER_MAP) are not.
 */
struct block4_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct varvel_block4));
};

struct hosts4_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << LAYOUT4_HOST_BITS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct varvel_line4));
};

struct buckets4_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << LAYOUT4_BUCKET_BITS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct varvel_line4));
};

struct ranges4_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct varvel_range4));
};

struct exact6_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct varvel_address);
	__type(value, __u32);
};

struct prefix6_map {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, sizeof(struct varvel_prefix6));
	__uint(value_size, sizeof(__u32));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, VARVEL_RULESETS);
	__type(key, __u32);
	__array(values, struct block4_map);
} block4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, VARVEL_RULESETS);
	__type(key, __u32);
	__array(values, struct hosts4_map);
} hosts4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, VARVEL_RULESETS);
	__type(key, __u32);
	__array(values, struct buckets4_map);
} buckets4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, VARVEL_RULESETS);
	__type(key, __u32);
	__array(values, struct exact6_map);
} exact6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, VARVEL_RULESETS);
	__type(key, __u32);
	__array(values, struct ranges4_map);
} ranges4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, VARVEL_RULESETS);
	__type(key, __u32);
	__array(values, struct prefix6_map);
} prefix6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, VARVEL_LEASES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct varvel_name_key);
	__type(value, struct varvel_lease);
} leases SEC(".maps");
