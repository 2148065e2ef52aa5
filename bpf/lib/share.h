/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* A run's share of the table of redirected connections. */
#pragma once

#include "maps.h"

/* May the socket be redirected, as far as one can know before it is counted? */
static __always_inline bool share_left(const struct varvel_socket *s)
{
	struct varvel_share *share;

	if (s->counted)
		return true;
	share = bpf_map_lookup_elem(&shares, &s->run);
	return share && share->redirects < share->limit;
}

/* Counts a socket, unless it is counted. Returns false if that would be too many. */
static __always_inline bool share_take(struct varvel_socket *s)
{
	struct varvel_share *share;

	if (s->counted)
		return true;
	share = bpf_map_lookup_elem(&shares, &s->run);
	if (!share)
		return false;
	if (__sync_fetch_and_add(&share->redirects, 1) >= share->limit) {
		__sync_fetch_and_add(&share->redirects, -1);
		return false;
	}
	/* Two threads may send by one socket at the same time. */
	if (__sync_lock_test_and_set(&s->counted, 1))
		__sync_fetch_and_add(&share->redirects, -1);
	return true;
}

static __always_inline void share_give(struct varvel_socket *s)
{
	struct varvel_share *share;

	if (!s->counted || !__sync_lock_test_and_set(&s->counted, 0))
		return;
	share = bpf_map_lookup_elem(&shares, &s->run);
	if (share)
		__sync_fetch_and_add(&share->redirects, -1);
}
