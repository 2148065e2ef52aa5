//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Which programs a run starts. These programs are attached to the whole machine
 * and return on their first instructions for a task that is in no run.
 *
 * The kernel cannot replace a program on a tracepoint. So what is attached is a
 * stub that calls the program in a slot, and an upgrade puts another into the
 * slot: each event is seen by the old or by the new one, never by both or none.
 * A stub is never replaced. If one must change, it gets another name.
 */
#include "lib/report.h"

char LICENSE[] SEC("license") = "GPL"; /* what the kernel asks for; dual in SPDX */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct task_struct {
	int pid;
	int tgid;
	int exit_code;
	struct task_struct *real_parent;
};

struct linux_binprm {
	const char *filename;
};
#pragma clang attribute pop

/* A slot belongs to one tracepoint: the kernel keeps programs of another out. */
#define SLOT(name)                                                                                 \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);                                             \
		__uint(max_entries, 1);                                                            \
		__uint(key_size, sizeof(__u32));                                                   \
		__uint(value_size, sizeof(__u32));                                                 \
	} name SEC(".maps")
SLOT(on_exec);
SLOT(on_fork);
SLOT(on_exit);

SEC("tp_btf/sched_process_exec")
int varvel_exec_stub(__u64 *ctx)
{
	bpf_tail_call(ctx, &on_exec, 0);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int varvel_fork_stub(__u64 *ctx)
{
	bpf_tail_call(ctx, &on_fork, 0);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int varvel_exit_stub(__u64 *ctx)
{
	bpf_tail_call(ctx, &on_exit, 0);
	return 0;
}

/* The run of the current task, or 0. */
static __always_inline __u64 current_run(void)
{
	__u32 zero = 0;
	struct varvel_node *n = bpf_map_lookup_elem(&node, &zero);
	__u64 id;

	if (!n)
		return 0;
	id = bpf_get_current_ancestor_cgroup_id(n->level);
	return id && bpf_map_lookup_elem(&runs, &id) ? id : 0;
}

SEC("tp_btf/sched_process_exec")
int varvel_exec(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct linux_binprm *bprm = (void *)ctx[2];
	struct varvel_exec_event *e;
	struct varvel_counters *c;
	__u64 run = current_run();

	if (!run)
		return 0;
	c = counters_of(run);
	if (c)
		c->executed++;
	e = bpf_ringbuf_reserve(&life, sizeof(*e), 0);
	if (!e) {
		if (c)
			c->lost[CLASS_LIFE]++;
		return 0;
	}
	event_fill(&e->event, EVENT_EXEC, run);
	event_task(&e->event);
	e->event.parent = task->real_parent->tgid;
	if (bpf_probe_read_kernel_str(e->path, sizeof(e->path), bprm->filename) < 0)
		e->path[0] = 0;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int varvel_fork(__u64 *ctx)
{
	struct task_struct *child = (void *)ctx[1];
	struct varvel_counters *c;
	__u64 run = current_run();

	if (!run || child->pid != child->tgid)
		return 0; /* nobody's, or only another thread */
	c = counters_of(run);
	if (c)
		c->forked++;
	return 0;
}

SEC("tp_btf/sched_process_exit")
int varvel_exit(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct varvel_event *e;
	struct varvel_counters *c;
	__u64 run = current_run();

	if (!run || task->pid != task->tgid)
		return 0;
	c = counters_of(run);
	if (c)
		c->exited++;
	e = bpf_ringbuf_reserve(&life, sizeof(*e), 0);
	if (!e) {
		if (c)
			c->lost[CLASS_LIFE]++;
		return 0;
	}
	event_fill(e, EVENT_EXIT, run);
	event_task(e);
	e->parent = task->real_parent->tgid;
	e->code = task->exit_code;
	bpf_ringbuf_submit(e, 0);
	return 0;
}
