package kernel

// The objects are built with one pinned compiler and without any system header,
// so that the same source gives the same bytes everywhere. They are committed:
// building Varvel needs no clang.

//go:generate sh -c "go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package kernel -cflags '-O2 -g -Wall -Werror -mcpu=v3 -nostdinc' -type varvel_reason -type varvel_limits -type varvel_hook -type varvel_layout4 -type varvel_event_kind -type varvel_class -type varvel_run_flags -type varvel_run -type varvel_port_set -type varvel_range4 -type varvel_block4 -type varvel_line4 -type varvel_prefix6 -type varvel_name_key -type varvel_lease -type varvel_node -type varvel_share -type varvel_redirect_key -type varvel_origin -type varvel_bucket -type varvel_flow_key -type varvel_flow -type varvel_counters -type varvel_event -type varvel_exec_event -type varvel_address -type varvel_socket abi ../../bpf/abi.bpf.c"
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package kernel -cflags "-O2 -g -Wall -Werror -mcpu=v3 -nostdinc" address ../../bpf/address.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package kernel -cflags "-O2 -g -Wall -Werror -mcpu=v3 -nostdinc" socket ../../bpf/socket.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package kernel -cflags "-O2 -g -Wall -Werror -mcpu=v3 -nostdinc" trace ../../bpf/trace.bpf.c
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package kernel -cflags "-O2 -g -Wall -Werror -mcpu=v3 -nostdinc" inbound ../../bpf/inbound.bpf.c
