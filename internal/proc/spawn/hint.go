package spawn

import (
	"bufio"
	"debug/elf"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// execHint looks at a program that the kernel would not execute and says what the
// errno leaves out. It is read after the failure, by the parent.
func execHint(path string, errno syscall.Errno) string {
	st, err := os.Stat(path)
	switch errno {
	case unix.ENOENT:
		if err == nil {
			if in := interpreter(path); in != "" {
				return "the file is there, but its interpreter " + in + " is not"
			}
		}
	case unix.EACCES:
		switch {
		case err != nil:
			return ""
		case st.IsDir():
			return "it is a directory"
		case !st.Mode().IsRegular():
			return "it is no file"
		case st.Mode().Perm()&0o111 == 0:
			return "it is not executable: chmod +x"
		case noexec(path):
			return "its file system is mounted noexec"
		}
		if in := interpreter(path); in != "" {
			if ist, err := os.Stat(in); err == nil && (ist.IsDir() || ist.Mode().Perm()&0o111 == 0) {
				return "its interpreter " + in + " is not executable"
			}
		}
		return "the user of the program may not execute it, or not reach its directory"
	case unix.ENOEXEC:
		return "it is neither a binary of this machine nor a script with a #! line"
	case unix.E2BIG:
		return "arguments and environment together are too long"
	case unix.ETXTBSY:
		return "it is being written at this moment"
	}
	return ""
}

// interpreter names what the kernel loads to run the file: that of the #! line,
// or the loader of a dynamic binary.
func interpreter(path string) string {
	// Its user may have put a pipe in its place meanwhile, which would never open.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return ""
	}
	line, _ := bufio.NewReaderSize(f, 256).ReadSlice('\n')
	if rest, ok := strings.CutPrefix(string(line), "#!"); ok {
		if words := strings.Fields(rest); len(words) > 0 {
			return words[0]
		}
		return ""
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return ""
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz < 4096 {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				return ""
			}
			return strings.TrimRight(string(b), "\x00")
		}
	}
	return ""
}

func noexec(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_NOEXEC != 0
}

func under(path, dir string) bool {
	return dir == "/" || path == dir || strings.HasPrefix(path, dir+"/")
}

// unescape undoes the octal escapes of the table of mounts.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
