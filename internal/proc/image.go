package proc

import (
	"os"
	"strconv"
	"strings"
)

// deletedMark is what the kernel adds to the path of a binary that is not there
// any more.
const deletedMark = " (deleted)"

// Image is what to execute for a half of Gemel that is to be the very binary that
// runs here: path, unless that is this process's own and was replaced since. A
// package that was changed on the disk changes nothing until it is asked for.
func Image(path string) string {
	own, err := os.Readlink("/proc/self/exe")
	if err != nil || strings.TrimSuffix(own, deletedMark) != path || sameFile(path, "/proc/self/exe") {
		return path
	}
	return "/proc/self/exe"
}

// ImageOf is a path of the binary that process pid runs, for an exec by another
// process: where it lies, or the kernel's own name of it when that is gone.
func ImageOf(pid int) string {
	link := "/proc/" + strconv.Itoa(pid) + "/exe"
	path, err := os.Readlink(link)
	if err == nil && sameFile(path, link) {
		return path
	}
	return link
}

// Runs reports whether process pid runs the binary at path; ok is false if that
// cannot be told.
func Runs(pid int, path string) (is, ok bool) {
	a, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/exe")
	if err != nil {
		return false, false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b), true
}

// Name gives this process the name of its binary back, which an exec by the
// kernel's own name of it took.
func Name() {
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil || string(comm) != "exe\n" {
		return
	}
	if path, err := os.Readlink("/proc/self/exe"); err == nil {
		path = strings.TrimSuffix(path, deletedMark)
		_ = os.WriteFile("/proc/self/comm", []byte(path[strings.LastIndexByte(path, '/')+1:]), 0)
	}
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
