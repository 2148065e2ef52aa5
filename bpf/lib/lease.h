/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Leases: real addresses that the name server has handed out for `direct` names. */
#pragma once

#include "report.h"

enum lease { LEASE_NONE, LEASE_LIVE, LEASE_EXPIRED };

static __always_inline enum lease lease_of(__u64 run, const struct varvel_address *address,
					   __u16 port, __u8 protocol)
{
	struct varvel_name_key key = {
		.run = run, .address = *address, .port = port, .protocol = protocol};
	struct varvel_lease *l = bpf_map_lookup_elem(&leases, &key);

	if (!l)
		return LEASE_NONE;
	return bpf_ktime_get_boot_ns() < l->expires ? LEASE_LIVE : LEASE_EXPIRED;
}

/* Was the address handed out to the run, whatever for and however long ago? */
static __always_inline bool lease_known(__u64 run, const struct varvel_address *address)
{
	return lease_of(run, address, 0, 0) != LEASE_NONE;
}
