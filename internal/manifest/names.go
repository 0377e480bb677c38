package manifest

import "slices"

// limitNames holds the names of resource limits; the index is Linux's number,
// which is the same on amd64 and arm64.
var limitNames = [...]string{
	"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile",
	"memlock", "as", "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime",
}

// capNames holds the names of capabilities; the index is the kernel's number.
var capNames = [...]string{
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid",
	"setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
	"sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
	"sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
	"mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
	"checkpoint_restore",
}

// LimitNumber returns the number of a resource limit of that name.
func LimitNumber(name string) (int, bool) { return index(limitNames[:], name) }

// LimitNames returns the names of the resource limits in the order of their numbers.
func LimitNames() []string { return slices.Clone(limitNames[:]) }

// CapNumber returns the number of a capability of that name, in lower case and
// without CAP_.
func CapNumber(name string) (int, bool) { return index(capNames[:], name) }

// CapNames returns the names of the capabilities in the order of their numbers.
func CapNames() []string { return slices.Clone(capNames[:]) }

func index(names []string, name string) (int, bool) {
	i := slices.Index(names, name)
	return i, i >= 0
}
