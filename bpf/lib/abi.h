/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Every structure and constant that kernel programs and user space share.
 * bpf2go turns it into Go; nothing of it is written twice.
 *
 * Addresses are 16 bytes in network order; IPv4 is IPv4-mapped (::ffff:a.b.c.d).
 * Ports are in host byte order everywhere in these structures.
 */
#pragma once

#include "kernel.h"

#define VARVEL_RULESETS 1024	/* rule sets that can be loaded at once */
#define VARVEL_PORT_SETS 4096	/* different port sets over all rule sets */
#define VARVEL_PORT_RANGES 16	/* ranges in one port set */
#define VARVEL_RUNS 16384	/* live runs */
#define VARVEL_NAMES 262144	/* (run, synthetic address, port) entries */
#define VARVEL_LEASES 131072	/* (run, real address, port) entries of `direct` names */
#define VARVEL_REDIRECTS 131072 /* redirected connections that are being made or open */
#define VARVEL_RING_BYTES (4 << 20) /* of each class of events */
#define VARVEL_FLOWS 65536	/* (run, destination) entries between two readings */
#define VARVEL_FLOW_BURST 512	/* of them a run may make at once, on each CPU */
#define VARVEL_FLOW_NS 20000000 /* after which it may make one more */
#define VARVEL_DENIAL_BURST 256	/* events of refusals that a run may send at once, on each CPU */
#define VARVEL_DENIAL_NS 20000000 /* after which it may send one more */
#define VARVEL_PEER_SETS 64	/* recent peers of a UDP socket: so many sets */
#define VARVEL_PEER_WAYS 8	/* of so many each; a power of two */
#define VARVEL_PEER_SECONDS 180 /* for how long a peer is recent */
#define VARVEL_PATH 128		/* bytes of a file name kept in an exec event */
#define VARVEL_COMM 16

/* The measures of the IPv4 part of a rule set; see struct varvel_line4. */
enum varvel_layout4 {
	LAYOUT4_FEW = 64,	  /* ranges that are found in fewer steps; a power of two */
	LAYOUT4_BLOCK = 2048,	  /* ranges of a small rule set; a power of two */
	LAYOUT4_SLOTS = 16,	  /* in a cache line; a power of two */
	LAYOUT4_SET_BITS = 12,	  /* of a slot: an index below VARVEL_PORT_SETS */
	LAYOUT4_HOST_BITS = 12,	  /* of a hashed address: an index of lines */
	LAYOUT4_BUCKET_BITS = 15, /* of an address: an index of lines */
	LAYOUT4_FACTOR = 0x9e3779b1u,	 /* 2^32 by the golden ratio: spreads neighbours */
	LAYOUT4_ELSEWHERE = 0x80000000u, /* flag of a line's first slot */
};

enum varvel_limits {
	LIMIT_SHARE = 8, /* a run may have this part of a table, so that none fills it for all */
};

/* Why the kernel refused something; index into counters. New ones come last: counts outlive a build. */
enum varvel_reason {
	REASON_NONE,
	REASON_NO_RUN,		  /* the socket or its cgroup belongs to no known run */
	REASON_NO_RULE,		  /* no rule of the rule set matches */
	REASON_FAMILY,		  /* address family other than IPv4 and IPv6 */
	REASON_PROTOCOL,	  /* transport other than TCP and UDP */
	REASON_LOOPBACK_FOREIGN,  /* a loopback listener that is not this run's */
	REASON_NAME_PORT,	  /* a synthetic address, but not a name and port of this run */
	REASON_NAME_UDP,	  /* UDP to a name: names are reached over TCP */
	REASON_RESERVED_PORT,	  /* bind to a port of Varvel */
	REASON_NO_DOOR,		  /* redirect wanted, but the daemon does not listen */
	REASON_PEER_FOREIGN,	  /* somebody outside the run connected to its listener */
	REASON_MALFORMED,	  /* the packet could not be parsed */
	REASON_FULL,		  /* a map of Varvel is full */
	REASON_STALE,		  /* a live connection that the new rule set denies */
	REASON_PORT_FOREIGN,	  /* bind to a port that somebody outside the run listens on */
	REASON_LEASE_EXPIRED,	  /* the address of a `direct` name, handed out too long ago */
	REASON_REWRITTEN,	  /* the packet goes elsewhere than the socket was allowed to */
	REASON_SHARE,		  /* the run has its share of a table of Varvel */
	REASON_INBOUND,		  /* somebody whom the agent's listen does not grant the port */
	REASON_LINK_LOCAL,	  /* an IPv6 link-local address */
	REASON_NO_LOOPBACK,	  /* redirect wanted, but there is no such loopback address */
	REASON_COUNT,
};

/* Which hook spoke. */
enum varvel_hook {
	HOOK_NONE,
	HOOK_SOCKET,
	HOOK_CONNECT,
	HOOK_SENDMSG,
	HOOK_BIND,
	HOOK_EGRESS,
	HOOK_INGRESS,
};

/* What an event is about. */
enum varvel_event_kind {
	EVENT_DENIED = 1,
	EVENT_EXEC = 2,
	EVENT_EXIT = 3,
	EVENT_WOULD_DENY = 4, /* denied if the agent were in enforce */
};

/*
 * Events come in classes, each with a ring of its own, so that refusals never
 * cost anybody the record of what was executed. Index into lost.
 */
enum varvel_class {
	CLASS_LIFE,   /* exec and exit: every one is sent */
	CLASS_DENIAL, /* refusals: all are counted, so many of each run are sent */
	CLASS_COUNT,
};

enum varvel_run_flags {
	RUN_OBSERVE = 1 << 0, /* count and report, but let it happen */
	RUN_NO_DOOR6 = 1 << 1, /* its network namespace has no IPv6 doors */
	RUN_NO_DOOR4 = 1 << 2, /* its network namespace has no IPv4 doors */
};

struct varvel_address {
	__u32 word[4];
};

/* A live run; key: id of its cgroup. Replaced as a whole (RCU), never edited. */
struct varvel_run {
	__u32 ruleset; /* index of its rule set; 0: none, nothing is allowed */
	__u32 flags;   /* enum varvel_run_flags */
	__u32 ranges4; /* of its rule set, if they are in a block; else 0 */
	__u32 unused;
};

struct varvel_range {
	__u16 first;
	__u16 last;
	__u8 protocol;
	__u8 unused;
};

/* The ports that a rule allows. */
struct varvel_port_set {
	__u32 count;
	struct varvel_range range[VARVEL_PORT_RANGES];
	__u32 unused[7]; /* to two cache lines, of which ten ranges need one */
};

/*
 * IPv4 rules are compiled to ranges: from .start (host order) to the next one's
 * start, the ports of one port set. Port set 0 is empty.
 */
struct varvel_range4 {
	__u32 start;
	__u32 set;
};

/*
 * All ranges of a small rule set, in order. What is not used repeats the last
 * one's set, with the greatest start.
 */
struct varvel_block4 {
	__u32 start[LAYOUT4_BLOCK];
	__u16 set[LAYOUT4_BLOCK];
};

/*
 * A cache line of slots in ascending order. A slot has an index of a port set in
 * its low LAYOUT4_SET_BITS and a number above them.
 *
 * In the table of host routes, the line is chosen by the upper bits of
 * address * LAYOUT4_FACTOR, and the number is the rest of that. The factor is
 * odd, so that each address has a product of its own and nothing is lost. Slots
 * at the front that are not used are 0.
 *
 * In the table of ranges, the line is chosen by the upper bits of the address,
 * and the number is where a range starts in the rest; the first starts at 0. Slots
 * at the end that are not used repeat the last one's set, with the greatest start.
 * If the ranges do not fit, the first slot has LAYOUT4_ELSEWHERE and their count,
 * the second the index of the first of them in another map.
 */
struct varvel_line4 {
	__u32 slot[LAYOUT4_SLOTS];
};

_Static_assert(VARVEL_PORT_SETS <= 1 << LAYOUT4_SET_BITS, "an index of a port set fits into a slot");
_Static_assert(sizeof(struct varvel_line4) == 64, "a line is a cache line");

struct varvel_prefix6 {
	__u32 length; /* bits */
	struct varvel_address address;
};

/* A synthetic address and port that a run may connect to. */
struct varvel_name_key {
	__u64 run;
	struct varvel_address address;
	__u16 port;
	__u8 protocol;
	__u8 unused[5];
};

/*
 * The lease of a real address that a `direct` name led to; key: varvel_name_key.
 * Port 0 of protocol 0 says that the address was handed out at all. An entry stays
 * after its expiry: then it opens nothing, but what it has opened goes on.
 */
struct varvel_lease {
	__u64 expires; /* ns since boot, CLOCK_BOOTTIME */
};

/*
 * What the programs have to know of this node. One entry, written by the daemon.
 * Ports are where it listens, in the node's network namespace; 0: nowhere.
 */
struct varvel_node {
	__u16 tcp4;
	__u16 tcp6;
	__u16 udp4;
	__u16 udp6;
	__u32 generation; /* grows whenever a run gets another rule set */
	__u32 level;	  /* depth of a run's cgroup in the cgroup tree */
};

/* A local end of a redirected connection, while it exists. */
struct varvel_redirect_key {
	__u64 netns; /* cookie of the network namespace */
	struct varvel_address address;
	__u16 port;
	__u8 protocol;
	__u8 unused[5];
};

/*
 * How much of the table of redirected connections a run has; key: as for runs. What
 * is counted are sockets: each has at most one entry, and is counted from before it
 * is made until the socket has closed.
 */
struct varvel_share {
	__s32 redirects;
	__s32 limit;
};

/* Who is at that end, and what it asked for. */
struct varvel_origin {
	__u64 run;
	__u64 cookie; /* of the run's socket */
	struct varvel_address address;
	__u16 port;
	__u8 protocol;
	__u8 unused[5];
};

enum varvel_socket_flags {
	SOCKET_JUDGED = 1 << 0,	    /* dst is allowed, as of .generation */
	SOCKET_REDIRECTED = 1 << 1, /* dst is what was asked for, not what is dialled */
	SOCKET_REGISTERED = 1 << 2, /* a varvel_redirect_key for local exists */
	SOCKET_NOTED = 1 << 3,	    /* that dst was sent to, or came in, is counted */
	SOCKET_LEASED = 1 << 4,	    /* dst was allowed by a lease */
	SOCKET_ACCEPTED = 1 << 5,   /* TCP: dst has connected to us */
};

/* What is known of a socket that was born in a run. */
struct varvel_socket {
	__u64 run;
	struct varvel_run rules; /* of the run, as of .generation */
	__u32 generation;
	__u32 flags; /* enum varvel_socket_flags */
	__u32 pid;   /* thread group that created it */
	__u32 counted; /* 1: in the varvel_share of its run */
	__u32 unused0;
	__u16 port;  /* of dst */
	__u16 dns_port;
	__u64 netns; /* cookie of its network namespace */
	struct varvel_address dst;
	struct varvel_address dns; /* the name server that was asked last */
	struct varvel_redirect_key local;
	__u32 peers; /* 1: it has a struct varvel_peers */
	__u16 turned_port; /* of turned */
	__u16 unused;
	struct varvel_address turned; /* who was turned away last, 0: nobody */
};

enum varvel_peer_how {
	PEER_CAME = 1,	/* it has sent to the socket, as listen grants */
	PEER_ASKED = 2, /* the socket has sent to it, as a rule allows */
};

struct varvel_peer {
	struct varvel_address address;
	__u16 port;
	__u16 how;  /* enum varvel_peer_how */
	__u32 seen; /* seconds since boot; 0: never, the entry is free */
};

/*
 * With whom a UDP socket has spoken lately. It is made for sockets that speak with
 * more than one, and ends with them. What it has no room for is forgotten: an
 * answer is then refused until the peer sends again.
 */
struct varvel_peers {
	struct bpf_spin_lock lock;
	__u32 unused;
	struct varvel_peer peer[VARVEL_PEER_SETS * VARVEL_PEER_WAYS];
};

/* A token bucket. One that is all zero is full when it is first used. */
struct varvel_bucket {
	__u64 refilled; /* when tokens were added, ns since boot */
	__u64 tokens;
};

/* What a run has reached by a rule, or has come to it, between two readings. */
struct varvel_flow_key {
	__u64 run;
	struct varvel_address address;
	__u16 port; /* inbound: of the run */
	__u8 protocol;
	__u8 inbound; /* 1: the address has come to the run */
	__u8 unused[4];
};

struct varvel_flow {
	__u64 count; /* of sockets that began to send there, or began again */
	__u64 first; /* ns since boot */
	__u64 last;
};

/* Counters of a run, on each CPU. */
struct varvel_counters {
	__u64 refused[REASON_COUNT];
	__u64 lost[CLASS_COUNT]; /* events that found their ring full */
	__u64 held; /* refusals that were counted, not sent, since the last that was */
	struct varvel_bucket tell; /* events of refusals */
	struct varvel_bucket note; /* new entries in flows */
	__u64 flows;	   /* destinations that were allowed by a rule and sent to */
	__u64 flows_untold; /* of them, those that are in no entry of flows */
	__u64 forked;
	__u64 executed;
	__u64 exited;
};

struct varvel_event {
	__u64 time; /* ns since boot, CLOCK_BOOTTIME */
	__u64 run;
	__u64 cookie;
	__u32 pid; /* thread group, in the initial PID namespace */
	__u32 uid;
	__u32 parent; /* exec and exit: thread group of the parent */
	__u16 port;
	__u8 kind;   /* enum varvel_event_kind */
	__u8 reason; /* enum varvel_reason */
	__u8 hook;   /* enum varvel_hook */
	__u8 protocol;
	__u16 local_port; /* ingress: of the run; address and port are the peer's */
	__u32 code; /* exit: wait status; denied, would deny: how many refusals it stands for */
	struct varvel_address address;
	char comm[VARVEL_COMM];
};

/* An exec: the same, and the file as it was named. */
struct varvel_exec_event {
	struct varvel_event event;
	char path[VARVEL_PATH];
};
