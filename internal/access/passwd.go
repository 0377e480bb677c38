package access

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// passwdName returns the name that /etc/passwd gives to a user, or its number.
// It reads the file itself: the C library would ask a name service.
func passwdName(uid uint32) string {
	num := strconv.FormatUint(uint64(uid), 10)
	f, err := os.Open("/etc/passwd")
	if err != nil {
		return num
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if fields := strings.Split(lines.Text(), ":"); len(fields) > 2 && fields[2] == num {
			return fields[0]
		}
	}
	return num
}
