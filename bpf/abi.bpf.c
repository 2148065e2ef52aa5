//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Names every shared type once, so that its layout is in the object's BTF. */
#include "lib/maps.h"

char LICENSE[] SEC("license") = "GPL"; /* what the kernel asks for; dual in SPDX */

#define SHARED(kind, name) const kind name *shared_##name __attribute__((used))
SHARED(enum, varvel_reason);
SHARED(enum, varvel_hook);
SHARED(enum, varvel_layout4);
SHARED(enum, varvel_event_kind);
SHARED(enum, varvel_class);
SHARED(enum, varvel_run_flags);
SHARED(enum, varvel_socket_flags);
SHARED(struct, varvel_address);
SHARED(struct, varvel_run);
SHARED(struct, varvel_range);
SHARED(struct, varvel_port_set);
SHARED(struct, varvel_range4);
SHARED(struct, varvel_block4);
SHARED(struct, varvel_line4);
SHARED(struct, varvel_prefix6);
SHARED(struct, varvel_name_key);
SHARED(struct, varvel_node);
SHARED(struct, varvel_redirect_key);
SHARED(struct, varvel_origin);
SHARED(struct, varvel_socket);
SHARED(struct, varvel_flow_key);
SHARED(struct, varvel_flow);
SHARED(struct, varvel_bucket);
SHARED(struct, varvel_counters);
SHARED(struct, varvel_event);
SHARED(struct, varvel_exec_event);
