package spawn

// MessageSize is the length of what a child sends over the handover socket
// before its exec: its start id and its pid, 8 bytes each in the byte order of
// the machine. Its pidfd comes along as SCM_RIGHTS.
const MessageSize = 16
